"""An index of settled commands alone: each other change of a request was written to it, too."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_SETTLED_COMMAND = sa.text("kind = 'command' AND state = 'settled'")


def upgrade() -> None:
    """Replace the index."""
    op.drop_index("requests_kind_state_updated_at", "requests")
    op.create_index(
        "requests_settled_commands",
        "requests",
        ["updated_at"],
        sqlite_where=_SETTLED_COMMAND,
        postgresql_where=_SETTLED_COMMAND,
    )


def downgrade() -> None:
    """Put the former one back."""
    op.drop_index("requests_settled_commands", "requests")
    op.create_index("requests_kind_state_updated_at", "requests", ["kind", "state", "updated_at"])

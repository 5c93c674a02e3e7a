"""The operating system's user of an operator's command, beside the operator's name."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("replays", sa.Column("real_user", sa.String(255)))


def downgrade() -> None:
    """Remove the column."""
    op.drop_column("replays", "real_user")

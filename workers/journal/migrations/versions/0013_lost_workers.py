"""Count the workers that died while they had a request."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. Workers of the version before leave it as it is: they count none."""
    op.add_column(
        "requests",
        sa.Column("lost_workers", sa.Integer, nullable=False, server_default=sa.text("0")),
    )


def downgrade() -> None:
    """Remove it."""
    op.drop_column("requests", "lost_workers")

"""Replays of messages whose sender was never authenticated, confirmed by the operator."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it is false for all earlier replays."""
    op.add_column(
        "replays", sa.Column("vouched", sa.Boolean(), nullable=False, server_default=sa.false())
    )


def downgrade() -> None:
    """Remove the column."""
    op.drop_column("replays", "vouched")

"""Notes of what requests wait for."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of what earlier versions left behind nothing is known."""
    op.add_column("requests", sa.Column("waits_for", sa.Text()))


def downgrade() -> None:
    """Remove the column."""
    op.drop_column("requests", "waits_for")

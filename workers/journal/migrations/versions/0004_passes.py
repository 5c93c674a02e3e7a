"""Hashes of the resume tokens of rescheduled requests."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("requests", sa.Column("pass_hash", sa.Text))


def downgrade() -> None:
    """Remove the column."""
    op.drop_column("requests", "pass_hash")

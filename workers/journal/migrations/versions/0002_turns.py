"""Table of server locks."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table, and on PostgreSQL the sequence of the tickets."""
    op.create_table(
        "turns",
        sa.Column("resource", sa.String(255), primary_key=True),
        sa.Column("request_key", sa.String(800), primary_key=True),
        sa.Column("ticket", sa.BigInteger, nullable=False),
        sa.Column("since", sa.Float(53), nullable=False),
    )
    op.create_index("turns_request_key", "turns", ["request_key"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute("CREATE SEQUENCE turn_tickets")


def downgrade() -> None:
    """Remove both."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP SEQUENCE turn_tickets")
    op.drop_table("turns")

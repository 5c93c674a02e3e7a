"""Add what operators are shown: retries as they happened, looks at queues, and what is unfinished."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_UNFINISHED = sa.text("state <> 'settled'")


def upgrade() -> None:
    """Create tables and index; of the retries before nothing is known."""
    op.create_index(
        "requests_unfinished",
        "requests",
        ["received_at"],
        sqlite_where=_UNFINISHED,
        postgresql_where=_UNFINISHED,
    )
    op.create_table(
        "retries",
        sa.Column("request_key", sa.String(800), primary_key=True),
        sa.Column("attempts", sa.Integer, primary_key=True),
        sa.Column("reason", sa.String(32), primary_key=True),
        sa.Column("first_at", sa.Float(53), nullable=False),
        sa.Column("last_at", sa.Float(53), nullable=False),
        sa.Column("until", sa.Float(53), nullable=False),
        sa.Column("times", sa.Integer, nullable=False),
        sa.Column("wait", sa.Text, nullable=False),
    )
    op.create_table(
        "looks",
        sa.Column("queue", sa.String(255), primary_key=True),
        sa.Column("looked_at", sa.Float(53), nullable=False),
        sa.Column("ready", sa.Integer, nullable=False),
        sa.Column("returned", sa.Integer, nullable=False),
        sa.Column("head_at", sa.Float(53)),
    )


def downgrade() -> None:
    """Remove them."""
    op.drop_table("looks")
    op.drop_table("retries")
    op.drop_index("requests_unfinished", "requests")

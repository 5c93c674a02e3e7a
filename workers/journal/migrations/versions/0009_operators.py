"""Add what operators see and do: workers, pauses, cancellations, the record of what was done."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables; workers of earlier versions neither write nor read them."""
    op.create_table(
        "workers",
        sa.Column("owner", sa.String(64), primary_key=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("region", sa.String(255), nullable=False),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("seen_at", sa.Float(53), nullable=False),
        sa.Column("ended_at", sa.Float(53)),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "pauses",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("since", sa.Float(53), nullable=False),
        sa.Column("until", sa.Float(53)),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("operator", sa.String(255), nullable=False),
        sa.Column("real_user", sa.String(255), nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("operator", sa.String(255), nullable=False),
        sa.Column("real_user", sa.String(255), nullable=False),
        sa.Column("origin", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("target", sa.String(800)),
        sa.Column("details", sa.Text, nullable=False),
    )
    op.create_index("audit_at", "audit", ["at"])
    op.create_index("audit_target", "audit", ["target"])
    op.create_table(
        "cancellations",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("operator", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text),
    )
    op.add_column("requests", sa.Column("cancelled_at", sa.Float(53)))


def downgrade() -> None:
    """Remove all of it."""
    op.drop_column("requests", "cancelled_at")
    for table in ("cancellations", "audit", "pauses", "workers"):
        op.drop_table(table)

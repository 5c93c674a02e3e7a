"""Table of replays; index of requests by arrival."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table and the index."""
    op.create_index("requests_received_at", "requests", ["received_at"])
    op.create_table(
        "replays",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("batch", sa.String(40), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("operator", sa.String(255), nullable=False),
        sa.Column("selection", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255)),
        sa.Column("message_id", sa.String(255)),
        sa.Column("operation", sa.String(64)),
        sa.Column("origin", sa.String(255), nullable=False),
        sa.Column("code", sa.String(16), nullable=False),
        sa.Column("failed_at", sa.String(40), nullable=False),
        sa.Column("identity", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(255)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("pass_hash", sa.String(64)),
        sa.Column("pinned_at", sa.Float(53), nullable=False),
        sa.Column("done_at", sa.Float(53)),
        sa.Column("arrived_at", sa.Float(53)),
    )
    op.create_index("replays_batch", "replays", ["batch", "position"])
    op.create_index("replays_name", "replays", ["name"])
    op.create_index("replays_identity", "replays", ["identity"])
    op.create_index("replays_pass_hash", "replays", ["pass_hash"], unique=True)


def downgrade() -> None:
    """Remove both."""
    op.drop_table("replays")
    op.drop_index("requests_received_at", "requests")

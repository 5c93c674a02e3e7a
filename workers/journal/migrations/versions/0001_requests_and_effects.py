"""Tables of requests and effects."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "requests",
        sa.Column("key", sa.String(800), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("operation", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(64)),
        sa.Column("claim", sa.String(64)),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("deliveries", sa.Integer, nullable=False),
        sa.Column("received_at", sa.Float(53), nullable=False),
        sa.Column("updated_at", sa.Float(53), nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("updates", sa.Text),
    )
    op.create_index("requests_name", "requests", ["name"])
    op.create_index("requests_kind_state_updated_at", "requests", ["kind", "state", "updated_at"])
    op.create_table(
        "effects",
        sa.Column("request_key", sa.String(800), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("intended_at", sa.Float(53), nullable=False),
        sa.Column("marker", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.Column("request_id", sa.String(255)),
        sa.Column("recorded_at", sa.Float(53)),
    )


def downgrade() -> None:
    """Remove both tables."""
    op.drop_table("effects")
    op.drop_table("requests")

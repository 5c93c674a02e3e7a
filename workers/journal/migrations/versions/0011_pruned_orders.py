"""Add the time at which an order was pruned, and an index of those that can be."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_SETTLED_ORDER = sa.text("kind = 'order' AND state = 'settled' AND pruned_at IS NULL")


def upgrade() -> None:
    """Add the column and the index."""
    op.add_column("requests", sa.Column("pruned_at", sa.Float(53)))
    op.create_index(
        "requests_settled_orders",
        "requests",
        ["updated_at"],
        sqlite_where=_SETTLED_ORDER,
        postgresql_where=_SETTLED_ORDER,
    )


def downgrade() -> None:
    """Remove both; what was pruned stays so."""
    op.drop_index("requests_settled_orders", "requests")
    op.drop_column("requests", "pruned_at")

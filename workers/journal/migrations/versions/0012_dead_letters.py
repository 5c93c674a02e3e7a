"""Batches, archive and counts of dead letters; who carried a replay out, and what became of it."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables and add the columns; of earlier replays nothing of it is known."""
    op.add_column("replays", sa.Column("reason", sa.String(40)))
    op.add_column("replays", sa.Column("done_by", sa.String(255)))
    op.add_column("replays", sa.Column("done_user", sa.String(255)))
    op.add_column("replays", sa.Column("outcome", sa.String(16)))
    op.add_column("replays", sa.Column("outcome_text", sa.Text()))
    op.create_table(
        "replay_batches",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("operator", sa.String(255), nullable=False),
        sa.Column("real_user", sa.String(255)),
        sa.Column("source", sa.String(255)),
        sa.Column("why", sa.Text),
        sa.Column("chosen_by", sa.Text),
        sa.Column("begun_at", sa.Float(53), nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("hindered", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("runner", sa.String(64)),
        sa.Column("runner_name", sa.String(255)),
        sa.Column("seen_at", sa.Float(53)),
        sa.Column("stop_by", sa.String(255)),
        sa.Column("stop_at", sa.Float(53)),
        sa.Column("trouble", sa.Text),
    )
    op.create_table(
        "dead_letter_archive",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("batch", sa.String(40)),
        sa.Column("archived_at", sa.Float(53), nullable=False),
        sa.Column("operator", sa.String(255), nullable=False),
        sa.Column("real_user", sa.String(255)),
        sa.Column("why", sa.Text),
        sa.Column("name", sa.String(255)),
        sa.Column("message_id", sa.String(255)),
        sa.Column("operation", sa.String(64)),
        sa.Column("tenant", sa.String(255)),
        sa.Column("origin", sa.String(255), nullable=False),
        sa.Column("code", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(40)),
        sa.Column("error", sa.Text),
        sa.Column("failed_at", sa.String(40), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("edited", sa.LargeBinary),
        sa.Column("restored_at", sa.Float(53)),
        sa.Column("restored_by", sa.String(255)),
        sa.Column("restored_user", sa.String(255)),
    )
    op.create_index("dead_letter_archive_archived_at", "dead_letter_archive", ["archived_at"])
    op.create_table(
        "dead_letter_causes",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("code", sa.String(16), primary_key=True),
        sa.Column("reason", sa.String(40), primary_key=True),
        sa.Column("messages", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    """Remove them."""
    op.drop_table("dead_letter_causes")
    op.drop_table("dead_letter_archive")
    op.drop_table("replay_batches")
    for name in ("outcome_text", "outcome", "done_user", "done_by", "reason"):
        op.drop_column("replays", name)

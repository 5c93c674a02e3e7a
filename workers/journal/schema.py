"""The tables. A change here needs a migration beside it."""

from sqlalchemy import Column, Float, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

requests = Table(
    "requests",
    metadata,
    Column("key", String(800), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("operation", String(64), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("owner", String(64)),
    Column("claim", String(64)),
    Column("attempts", Integer, nullable=False),
    Column("deliveries", Integer, nullable=False),
    Column("received_at", Float(53), nullable=False),
    Column("updated_at", Float(53), nullable=False),
    Column("result", Text),
    Column("updates", Text),
    # SHA-256 of the words by which the message is known again without its token, newest first, a blank after each.
    Column("pass_hash", Text),
)
Index("requests_name", requests.c.name)
Index("requests_kind_state_updated_at", requests.c.kind, requests.c.state, requests.c.updated_at)

effects = Table(
    "effects",
    metadata,
    Column("request_key", String(800), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("intended_at", Float(53), nullable=False),
    Column("marker", Text, nullable=False),
    Column("outcome", Text),
    Column("request_id", String(255)),
    Column("recorded_at", Float(53)),
)

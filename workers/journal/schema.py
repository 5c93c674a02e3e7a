"""The tables. A change here needs a migration beside it."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
)

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
    # SHA-256 of the words by which the message is known again without its token, newest first, a
    # blank after each.
    Column("pass_hash", Text),
)
Index("requests_name", requests.c.name)
Index("requests_kind_state_updated_at", requests.c.kind, requests.c.state, requests.c.updated_at)
Index("requests_received_at", requests.c.received_at)

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

#: What operators did with parked messages. A row is one message of one set ("batch") that was
#: pinned before anything was done, so that exactly this is done, however often it is interrupted.
#: Of a message only what tells it is kept.
replays = Table(
    "replays",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("batch", String(40), nullable=False),
    Column("position", Integer, nullable=False),
    Column("action", String(16), nullable=False),
    Column("operator", String(255), nullable=False),
    # The words by which they were chosen: the same command goes on with what it left.
    Column("selection", String(64), nullable=False),
    Column("name", String(255)),
    Column("message_id", String(255)),
    Column("operation", String(64)),
    Column("origin", String(255), nullable=False),
    Column("code", String(16), nullable=False),
    Column("failed_at", String(40), nullable=False),
    Column("identity", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("tenant", String(255)),
    Column("state", String(16), nullable=False),
    Column("pass_hash", String(64)),
    Column("pinned_at", Float(53), nullable=False),
    Column("done_at", Float(53)),
    Column("arrived_at", Float(53)),
    # The user that the process ran as; `operator` is what he called himself. None in rows of before
    # there was one.
    Column("real_user", String(255)),
    # Who sent the message was not proven: the operator has answered for him.
    Column("vouched", Boolean, nullable=False, server_default=false()),
)
Index("replays_batch", replays.c.batch, replays.c.position)
Index("replays_name", replays.c.name)
Index("replays_identity", replays.c.identity)
Index("replays_pass_hash", replays.c.pass_hash, unique=True)

turns = Table(
    "turns",
    metadata,
    Column("resource", String(255), primary_key=True),
    Column("request_key", String(800), primary_key=True),
    Column("ticket", BigInteger, nullable=False),
    Column("since", Float(53), nullable=False),
)
Index("turns_request_key", turns.c.request_key)

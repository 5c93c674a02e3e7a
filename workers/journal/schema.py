"""The tables. A change here needs a migration.

Tables and columns keep the names that they were made with: workers of the version before run beside
this one during a rolling update, and a rename would stop them. Where the code has a better name
today, the stored one is given beside it (`docs/decisions/0020-stored-names.md`).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
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
    # SHA-256 of the resume tokens that copies of the message carry, newest first, each followed by
    # a blank.
    Column("pass_hash", Text, key="resume_token_hash"),
    # What it waits for (`noted_wait`), while the claim is the one that is named in it. None in rows
    # of earlier versions.
    Column("waits_for", Text),
    # When an operator cancelled it: whichever worker has it next answers it, and begins nothing.
    Column("cancelled_at", Float(53)),
    # When an order was pruned: its effects are deleted, its result is shortened.
    Column("pruned_at", Float(53)),
    # Workers that died while they had it.
    Column("lost_workers", Integer, nullable=False, server_default=text("0")),
)
Index("requests_name", requests.c.name)
#: For pruning. A request enters it once, when it is settled.
_SETTLED_COMMAND = text("kind = 'command' AND state = 'settled'")
Index(
    "requests_settled_commands",
    requests.c.updated_at,
    sqlite_where=_SETTLED_COMMAND,
    postgresql_where=_SETTLED_COMMAND,
)
_SETTLED_ORDER = text("kind = 'order' AND state = 'settled' AND pruned_at IS NULL")
Index(
    "requests_settled_orders",
    requests.c.updated_at,
    sqlite_where=_SETTLED_ORDER,
    postgresql_where=_SETTLED_ORDER,
)
Index("requests_received_at", requests.c.received_at)
#: For overviews: few rows at any time.
_UNFINISHED = text("state <> 'settled'")
Index(
    "requests_unfinished",
    requests.c.received_at,
    sqlite_where=_UNFINISHED,
    postgresql_where=_UNFINISHED,
)

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

#: Dead letters that operators replayed or discarded. A row is one message of a batch, written
#: before anything is done, so that exactly these are done, however often the command is
#: interrupted. Of a message only its identification is kept.
replays = Table(
    "replays",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("batch", String(40), nullable=False),
    Column("position", Integer, nullable=False),
    Column("action", String(16), nullable=False),
    Column("operator", String(255), nullable=False),
    # Digest of the command's options: the same command goes on with its unfinished batch.
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
    Column("pass_hash", String(64), key="resume_token_hash"),
    Column("pinned_at", Float(53), nullable=False),
    Column("done_at", Float(53)),
    Column("arrived_at", Float(53)),
    # The operating system's user; `operator` is the name that was given. None in rows of earlier
    # versions.
    Column("real_user", String(255)),
    # The message's sender was never authenticated, and the operator confirmed it.
    Column("vouched", Boolean, nullable=False, server_default=false()),
    # The word for the cause, as `dead_letter_causes` has it; None in rows of earlier versions.
    Column("reason", String(40)),
    # Who carried it out: another operator may have resumed the batch. None in rows of earlier
    # versions, and while nothing was done.
    Column("done_by", String(255)),
    Column("done_user", String(255)),
    # What a worker did with the replayed message where it did not carry it out: `ReplayOutcome`,
    # and why.
    Column("outcome", String(16)),
    Column("outcome_text", Text),
)
Index("replays_batch", replays.c.batch, replays.c.position)
Index("replays_name", replays.c.name)
Index("replays_identity", replays.c.identity)
Index("replays_pass_hash", replays.c.resume_token_hash, unique=True)

#: Batches of `replays`. Rows of earlier versions have none.
replay_batches = Table(
    "replay_batches",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("action", String(16), nullable=False),
    Column("operator", String(255), nullable=False),
    Column("real_user", String(255)),
    # From where: a host's terminal, or the address of a browser.
    Column("source", String(255)),
    Column("why", Text),
    # The conditions by which the messages were chosen, for people.
    Column("chosen_by", Text),
    Column("begun_at", Float(53), nullable=False),
    Column("total", Integer, nullable=False),
    # Messages that were chosen and could not be part of it.
    Column("hindered", Integer, nullable=False, server_default=text("0")),
    # The process that carries it out, until `seen_at` is too old; None while none does.
    Column("runner", String(64)),
    Column("runner_name", String(255)),
    Column("seen_at", Float(53)),
    Column("stop_by", String(255)),
    Column("stop_at", Float(53)),
    # Why the last run ended early.
    Column("trouble", Text),
)

#: What was discarded or edited, without its secrets.
dead_letter_archive = Table(
    "dead_letter_archive",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("batch", String(40)),
    Column("archived_at", Float(53), nullable=False),
    Column("operator", String(255), nullable=False),
    Column("real_user", String(255)),
    Column("why", Text),
    Column("name", String(255)),
    Column("message_id", String(255)),
    Column("operation", String(64)),
    Column("tenant", String(255)),
    Column("origin", String(255), nullable=False),
    Column("code", String(16), nullable=False),
    Column("reason", String(40)),
    Column("error", Text),
    Column("failed_at", String(40), nullable=False),
    # Exchange, routing key, properties and headers as JSON, and the body as it was.
    Column("message", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    # The body that took its place.
    Column("edited", LargeBinary),
    Column("restored_at", Float(53)),
    Column("restored_by", String(255)),
    Column("restored_user", String(255)),
)
Index("dead_letter_archive_archived_at", dead_letter_archive.c.archived_at)

#: Counts of the messages in `ecs.dead` by cause. An estimate between two listings: the queue itself
#: is never read for it.
dead_letter_causes = Table(
    "dead_letter_causes",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("code", String(16), primary_key=True),
    # Empty where there is none.
    Column("reason", String(40), primary_key=True),
    Column("messages", Integer, nullable=False),
)

#: Locks of servers, first in, first out: the lowest ticket holds the lock, the others wait.
server_locks = Table(
    "turns",
    metadata,
    Column("resource", String(255), primary_key=True),
    Column("request_key", String(800), primary_key=True),
    Column("ticket", BigInteger, nullable=False),
    Column("since", Float(53), nullable=False),
)
Index("turns_request_key", server_locks.c.request_key)

#: Each worker process, as it tells of itself every few seconds.
workers = Table(
    "workers",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", String(64), nullable=False),
    Column("region", String(255), nullable=False),
    Column("namespace", String(64), nullable=False),
    Column("started_at", Float(53), nullable=False),
    Column("seen_at", Float(53), nullable=False),
    # None while it runs, and for one that was killed.
    Column("ended_at", Float(53)),
    # JSON of a `WorkerReport`.
    Column("document", Text, nullable=False),
)

#: A kind is paused while any of its rows is in force: `until` is None or not over.
pauses = Table(
    "pauses",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("since", Float(53), nullable=False),
    Column("until", Float(53)),
    Column("reason", Text, nullable=False),
    Column("operator", String(255), nullable=False),
    Column("real_user", String(255), nullable=False),
)

#: What operators did. `operator` is the name that was given, `real_user` the operating system's
#: user or the token's.
audit = Table(
    "audit",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("at", Float(53), nullable=False),
    Column("action", String(32), nullable=False),
    Column("operator", String(255), nullable=False),
    Column("real_user", String(255), nullable=False),
    Column("origin", String(255), nullable=False),
    Column("reason", Text),
    Column("target", String(800)),
    Column("details", Text, nullable=False),
)
Index("audit_at", audit.c.at)
Index("audit_target", audit.c.target)

#: Orders that are to be cancelled when they come: no worker has begun them. `tenant` is empty where
#: the operator named none.
cancellations = Table(
    "cancellations",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("tenant", String(64), primary_key=True),
    Column("at", Float(53), nullable=False),
    Column("operator", String(255), nullable=False),
    Column("reason", Text),
)

#: The retries of a request, for its timeline. Those in a row for one reason are one row: a request
#: that waits for its turn is rescheduled every few seconds.
retries = Table(
    "retries",
    metadata,
    Column("request_key", String(800), primary_key=True),
    # Failed attempts by then, the one that this retry follows included.
    Column("attempts", Integer, primary_key=True),
    Column("reason", String(32), primary_key=True),
    Column("first_at", Float(53), nullable=False),
    Column("last_at", Float(53), nullable=False),
    # When the next attempt begins, after the last of them.
    Column("until", Float(53), nullable=False),
    Column("times", Integer, nullable=False),
    # What it waited for (`noted_wait`), the last time.
    Column("wait", Text, nullable=False),
)

#: Looks of operators into queues that nobody consumes: each counts as a failed delivery, and the
#: broker gives up on a message after some, so they are counted and made seldom.
looks = Table(
    "looks",
    metadata,
    Column("queue", String(255), primary_key=True),
    Column("looked_at", Float(53), nullable=False),
    # Messages in the queue then.
    Column("ready", Integer, nullable=False),
    # How often the message at its head had been given back, this look included.
    Column("returned", Integer, nullable=False),
    # When that message was published; None where it does not say.
    Column("head_at", Float(53)),
)

"""Tables of operators in the journal: workers, pauses, cancellations, the audit record.

`Operations` is for commands and the console: it blocks. The classes with `run_all` are what a
worker reads and writes of it, with its other writes.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Select, and_, or_, select, text
from sqlalchemy.exc import SQLAlchemyError

from messages.record import record
from workers.journal import schema
from workers.journal.database import journal_error, migrate, open_engine, reading_engine
from workers.journal.owners import is_alive
from workers.journal.records import Kind, State

#: Characters of a name that is kept.
_LONGEST = 255
#: Seconds for which the row of a worker that has ended is kept, and a cancellation of an order that
#: does not come.
WORKERS_KEPT, CANCELLATIONS_KEPT = 86400.0, 7 * 86400.0


class Pausable(StrEnum):
    """The kinds of requests that can be paused: each has a queue of its own."""

    READS = "reads"
    SERVERS = "servers"
    IMAGES = "images"
    ORDERS = "orders"


@record
class Actor:
    """An operator. `name` is what he calls himself, `real_user` what the operating system or a
    token says; `origin` is where he was: host and terminal, or the address of a browser.
    """

    name: str
    real_user: str
    origin: str


@record
class Pause:
    """A pause of one kind; times are Unix seconds, `until` is None where it has no end."""

    id: str
    kind: Pausable
    since: float
    until: float | None
    reason: str
    operator: str
    real_user: str

    def is_over(self, now: float) -> bool:
        """Return whether it has ended by itself."""
        return self.until is not None and self.until <= now


@record
class AuditEntry:
    """Something that an operator did. `target` is a request's key, a batch, a kind or a file."""

    id: str
    at: float
    action: str
    operator: str
    real_user: str
    origin: str
    reason: str | None
    target: str | None
    details: Mapping[str, Any]


@record
class AuditFilter:
    """Criteria by which the audit record is listed; `since` is in Unix seconds. `word`: a request's
    key, orderId, flowId or message_id, a batch's name, or a kind.
    """

    since: float | None = None
    action: str | None = None
    operator: str | None = None
    word: str | None = None
    limit: int | None = None


@record
class WorkerRow:
    """A worker as it told of itself last. `ended_at` is None while it runs, and for one that was
    killed; `document` is the JSON of a `WorkerReport`.
    """

    owner: str
    host: str
    pid: int
    version: str
    region: str
    namespace: str
    started_at: float
    seen_at: float
    ended_at: float | None
    document: str


@record
class Cancellation:
    """An order that is cancelled when it comes; `tenant` is None where any tenant's is meant."""

    name: str
    tenant: str | None
    at: float
    operator: str
    reason: str | None


class CancelOutcome(StrEnum):
    """Outcomes of a cancellation."""

    #: Nothing of it is begun any more; a worker answers it at its next delivery.
    CANCELLED = "cancelled"
    #: No worker has had it: it is cancelled when it comes.
    WAITING = "waiting"
    #: Something of it has begun: nothing was changed.
    BEGUN = "begun"
    #: It has its result already.
    ENDED = "ended"
    #: It is a command, which is answered in its time anyway.
    COMMAND = "command"
    #: Several requests have this name.
    AMBIGUOUS = "ambiguous"


@record
class Cancelled:
    """The outcome of a cancellation. `key` is the journal's, None where it does not know the order;
    `begun` names the effects that have begun; `code` is that of the result which it has; `keys` are
    those of the requests that have the name.
    """

    outcome: CancelOutcome
    key: str | None = None
    operation: str | None = None
    begun: tuple[str, ...] = ()
    code: str | None = None
    keys: tuple[str, ...] = ()


#: The result and the final updates of a cancelled order, as they are stored, made of its name, its
#: operation and its tenant.
Answer = Callable[[str, str, str], tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]


class Operations:
    """The journal as operators use it. Every method blocks, and raises `JournalError` where the
    database cannot be used. May be used by several threads.
    """

    def __init__(self, url: str, namespace: str) -> None:
        """`namespace`: `ECS_NAMESPACE` of the workers whose kinds are paused."""
        self.namespace = namespace
        self._engine = open_engine(url)
        self._readings = reading_engine(self._engine)

    def open(self) -> "Operations":
        """Bring the journal up to date, or create it."""
        with _told():
            migrate(self._engine)
        return self

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # Pauses.

    def pause(
        self, kinds: Sequence[Pausable], actor: Actor, reason: str, until: float | None
    ) -> list[Pause]:
        """Pause these kinds for all workers of the namespace, on record; return the new pauses.

        Pauses that are in force stay: a kind is paused until the last one has ended.
        """
        now = time.time()
        made = [
            Pause(str(uuid4()), kind, now, until, reason, actor.name, actor.real_user)
            for kind in kinds
        ]
        rows = [
            {
                "id": one.id,
                "namespace": self.namespace,
                "kind": one.kind.value,
                "since": one.since,
                "until": one.until,
                "reason": storable(one.reason, None),
                "operator": storable(one.operator),
                "real_user": storable(one.real_user),
            }
            for one in made
        ]
        columns = schema.pauses.c
        with self._writing() as connection:
            connection.execute(schema.pauses.delete().where(columns.until <= now))
            connection.execute(schema.pauses.insert(), rows)
            entries = [
                _entry_row("pause", actor, kind.value, reason, {"until": until}) for kind in kinds
            ]
            _record(connection, *entries)
        return made

    def resume(self, kinds: Sequence[Pausable], actor: Actor, reason: str | None) -> list[Pause]:
        """End all pauses of these kinds, on record; return those that were in force."""
        columns = schema.pauses.c
        meant = and_(
            columns.namespace == self.namespace, columns.kind.in_([one.value for one in kinds])
        )
        with self._writing() as connection:
            found = [one for one in pauses_in(connection, self.namespace) if one.kind in kinds]
            connection.execute(schema.pauses.delete().where(meant))
            for one in found:
                details = {"paused_by": one.operator, "since": one.since, "until": one.until}
                row = _entry_row("resume", actor, one.kind.value, reason, details)
                _record(connection, row)
        return found

    def pauses(self) -> list[Pause]:
        """Return the pauses that are in force, oldest first."""
        with self._reading() as connection:
            return pauses_in(connection, self.namespace)

    # The audit record.

    def record(
        self,
        action: str,
        actor: Actor,
        *,
        target: str | None = None,
        reason: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Record what an operator did. `details`: JSON without secrets."""
        with self._writing() as connection:
            _record(connection, _entry_row(action, actor, target, reason, details or {}))

    def audit(self, wanted: AuditFilter) -> list[AuditEntry]:
        """Return what operators did, newest first."""
        columns = schema.audit.c
        statement = select(schema.audit).order_by(columns.at.desc(), columns.id)
        if wanted.since is not None:
            statement = statement.where(columns.at >= wanted.since)
        if wanted.action is not None:
            statement = statement.where(columns.action == wanted.action)
        if wanted.operator is not None:
            given = wanted.operator
            statement = statement.where(or_(columns.operator == given, columns.real_user == given))
        if wanted.word is not None:
            # A whole key ends in the name that its sender knows.
            ending = wanted.word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            replays = schema.replays.c
            batches = select(replays.batch).where(
                or_(replays.name == wanted.word, replays.message_id == wanted.word)
            )
            statement = statement.where(
                or_(
                    columns.target == wanted.word,
                    columns.target.like(f"%:{ending}", escape="\\"),
                    columns.target.in_(batches),
                )
            )
        with self._reading() as connection:
            return [_entry(row) for row in connection.execute(statement.limit(wanted.limit))]

    # Workers.

    def workers(self) -> list[WorkerRow]:
        """Return the workers of the namespace that told of themselves within a day, by host."""
        columns = schema.workers.c
        statement = (
            select(schema.workers)
            .where(columns.namespace == self.namespace)
            .order_by(columns.host, columns.started_at)
        )
        with self._reading() as connection:
            return [WorkerRow(**row._mapping) for row in connection.execute(statement)]

    def is_alive(self, owner: str) -> bool:
        """Return whether a worker's process holds its lock in the journal."""
        with _told():
            return is_alive(self._readings, owner)

    # Cancellations.

    def cancellations(self) -> list[Cancellation]:
        """Return the cancellations of orders that have not come yet, oldest first."""
        statement = select(schema.cancellations).order_by(schema.cancellations.c.at)
        with self._reading() as connection:
            return [
                Cancellation(row.name, row.tenant or None, row.at, row.operator, row.reason)
                for row in connection.execute(statement)
            ]

    def cancel(
        self, word: str, tenant: str | None, actor: Actor, reason: str | None, answer: Answer
    ) -> Cancelled:
        """Cancel the order with this orderId, flowId or key, on record, unless anything of it has
        begun.

        `tenant`: a project's id, where several have an order of that name. `answer`: what a worker
        of the version before answers it with, which knows nothing of cancellations; others make the
        result of the order itself.
        """

        def entry(found: Cancelled) -> dict[str, Any]:
            details = {
                "outcome": found.outcome.value,
                "operation": found.operation,
                "tenant": tenant,
            }
            return _entry_row("cancel", actor, found.key or word, reason, details)

        found = self._cancel_known(word, tenant, answer, entry)
        if found is not None:
            return found
        name, named = _parts(word)
        row: dict[str, Any] = {
            "name": storable(name),
            "tenant": tenant or named or "",
            "at": time.time(),
            "operator": storable(actor.name),
            "reason": storable(reason, None) if reason is not None else None,
        }
        waiting = Cancelled(CancelOutcome.WAITING)
        # ORDER: the cancellation is committed before the journal is searched again. A worker that
        # begins the order in between either is found by that search, or its first intent comes
        # after the commit, and is refused (`_INTEND`).
        with self._writing() as connection:
            connection.execute(_ADD_CANCELLATION, row)
            _record(connection, entry(waiting))
        found = self._cancel_known(word, tenant, answer, entry, is_waiting=True)
        if found is not None and found.key is None:
            # Several have come in between, or a command: nothing of that name is to be cancelled.
            self._delete_cancellation(row["name"], row["tenant"])
        return found or waiting

    def withdraw(self, word: str, tenant: str | None, actor: Actor, reason: str | None) -> bool:
        """Withdraw the cancellation of an order that has not come, on record; False where there is
        none.
        """
        name, named = _parts(word)
        columns = schema.cancellations.c
        statement = schema.cancellations.delete().where(columns.name == name)
        if tenant or named:
            statement = statement.where(columns.tenant == (tenant or named))
        with self._writing() as connection:
            found = connection.execute(statement).rowcount > 0
            if found:
                details = {"outcome": "withdrawn", "tenant": tenant}
                _record(connection, _entry_row("cancel", actor, word, reason, details))
        return found

    def _delete_cancellation(self, name: str, tenant: str) -> None:
        columns = schema.cancellations.c
        meant = and_(columns.name == name, columns.tenant == tenant)
        with self._writing() as connection:
            connection.execute(schema.cancellations.delete().where(meant))

    def preview_cancel(self, word: str, tenant: str | None = None) -> Cancelled | None:
        """Return what `cancel` would do now; None where the journal knows nothing of that name."""
        with self._reading() as connection:
            rows = connection.execute(_named(word, tenant)).all()
            return _judged(connection, rows)

    def _cancel_known(
        self,
        word: str,
        tenant: str | None,
        answer: Answer,
        entry: Callable[[Cancelled], dict[str, Any]],
        *,
        is_waiting: bool = False,
    ) -> Cancelled | None:
        """Cancel an order that the journal knows; None where it knows none of that name.

        `entry`: what goes on record; with `is_waiting` also where it is not cancelled, because it
        stands there that the cancellation waits.
        """
        columns, now = schema.requests.c, time.time()
        with self._writing() as connection:
            # RACE: an intent locks the row, too (`_INTEND`). Whichever comes second sees what the
            # first has committed: this one the effect, or the intent the claim that is gone. SQLite
            # has one writer at a time.
            rows = connection.execute(_named(word, tenant).with_for_update()).all()
            found = _judged(connection, rows)
            is_cancelled = found is not None and found.outcome is CancelOutcome.CANCELLED
            if found is not None and (is_cancelled or is_waiting):
                _record(connection, entry(found))
            if found is None or found.key is None:
                return found
            row = next(one for one in rows if one.key == found.key)
            _forget_cancellation(connection, row.name, row.tenant)
            if not is_cancelled or row.cancelled_at is not None:
                return found
            result, updates = answer(row.name, row.operation, row.tenant)
            ended = {
                "state": State.DONE.value,
                "owner": None,
                "claim": f"cancelled.{uuid4().hex}",
                "waits_for": None,
                "updated_at": now,
                "cancelled_at": now,
                "result": json.dumps(result),
                "updates": json.dumps(updates),
            }
            connection.execute(schema.requests.update().where(columns.key == row.key).values(ended))
            locks = schema.server_locks
            connection.execute(locks.delete().where(locks.c.request_key == row.key))
            return found

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with _told(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _told(), self._readings.connect() as connection:
            yield connection


_ADD_CANCELLATION = text(
    "INSERT INTO cancellations (name, tenant, at, operator, reason)"
    " VALUES (:name, :tenant, :at, :operator, :reason)"
    " ON CONFLICT (name, tenant) DO UPDATE SET at = excluded.at, operator = excluded.operator,"
    " reason = excluded.reason"
)


def _parts(word: str) -> tuple[str, str | None]:
    """Return name and tenant of a key; of a name alone the tenant is None."""
    prefix, _, rest = word.partition(":")
    tenant, _, name = rest.partition(":")
    return (name, tenant) if prefix in ("order", "softdown") and tenant and name else (word, None)


def _named(word: str, tenant: str | None) -> Select[Any]:
    """Return the query for the requests with this name or key."""
    columns = schema.requests.c
    statement = select(schema.requests).where(or_(columns.key == word, columns.name == word))
    return statement if tenant is None else statement.where(columns.tenant == tenant)


def _judged(connection: Connection, rows: Sequence[Any]) -> Cancelled | None:
    """Return what can become of a cancellation of one of these requests; None of none."""
    orders = [row for row in rows if row.kind == Kind.ORDER]
    if len(orders) != 1:
        if not rows:
            return None
        outcome = CancelOutcome.AMBIGUOUS if orders else CancelOutcome.COMMAND
        return Cancelled(outcome, keys=tuple(row.key for row in orders or rows))
    (row,) = orders
    found = Cancelled(CancelOutcome.CANCELLED, row.key, row.operation)
    if row.cancelled_at is not None:
        return found
    if row.state != State.RUNNING:
        code = json.loads(row.result).get("code") if row.result else None
        code = str(code) if code is not None else None
        return replace(found, outcome=CancelOutcome.ENDED, code=code)
    begun = _begun_of(connection, row.key)
    return replace(found, outcome=CancelOutcome.BEGUN, begun=begun) if begun else found


def _begun_of(connection: Connection, key: str) -> tuple[str, ...]:
    """Return the effects of a request that may have been done to the cloud (`ledger.any_begun`)."""
    columns = schema.effects.c
    statement = select(columns.name, columns.outcome).where(columns.request_key == key)
    return tuple(
        row.name
        for row in connection.execute(statement.order_by(columns.intended_at, columns.name))
        if row.outcome is None or not json.loads(row.outcome).keys() & {"refused", "value"}
    )


def _forget_cancellation(connection: Connection, name: str, tenant: str) -> bool:
    """Delete the cancellation of an order that came; True where there was one."""
    columns = schema.cancellations.c
    meant = and_(columns.name == name, columns.tenant.in_(("", tenant)))
    return connection.execute(schema.cancellations.delete().where(meant)).rowcount > 0


def take_cancellation(connection: Connection, key: str, name: str, tenant: str) -> bool:
    """Return whether an order is cancelled that has just come, by a cancellation that waited for it.

    One of which something has begun is not: the cancellation came too late, and is forgotten.
    """
    if not _forget_cancellation(connection, name, tenant) or _begun_of(connection, key):
        return False
    requests = schema.requests
    marked = requests.update().where(requests.c.key == key).values(cancelled_at=time.time())
    connection.execute(marked)
    return True


def storable(text: str | None, longest: int | None = _LONGEST) -> str:
    """Return a text that every database takes, whatever was typed; `longest` characters at most."""
    clean = (text or "").replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    return clean[:longest]


def _entry_row(
    action: str,
    actor: Actor,
    target: str | None,
    reason: str | None,
    details: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "at": time.time(),
        "action": action,
        "operator": storable(actor.name),
        "real_user": storable(actor.real_user),
        "origin": storable(actor.origin),
        "reason": storable(reason, None) if reason is not None else None,
        "target": storable(target, 800) if target is not None else None,
        "details": storable(json.dumps(details, ensure_ascii=False), None),
    }


def _record(connection: Connection, *rows: dict[str, Any]) -> None:
    """Record what an operator did, in the transaction in which it is done: neither is there without
    the other, whenever the process dies.
    """
    if rows:
        connection.execute(schema.audit.insert(), list(rows))


def pauses_in(connection: Connection, namespace: str) -> list[Pause]:
    """Return the pauses of a namespace that are in force, oldest first."""
    columns = schema.pauses.c
    statement = (
        select(schema.pauses)
        .where(columns.namespace == namespace)
        .where(or_(columns.until.is_(None), columns.until > time.time()))
        .order_by(columns.since, columns.kind, columns.id)
    )
    # A kind of a later version is nothing that this one consumes.
    known = {one.value for one in Pausable}
    return [
        Pause(
            row.id,
            Pausable(row.kind),
            row.since,
            row.until,
            row.reason,
            row.operator,
            row.real_user,
        )
        for row in connection.execute(statement)
        if row.kind in known
    ]


def _entry(row: Any) -> AuditEntry:
    return AuditEntry(
        row.id,
        row.at,
        row.action,
        row.operator,
        row.real_user,
        row.origin,
        row.reason,
        row.target,
        json.loads(row.details),
    )


@contextmanager
def _told() -> Iterator[None]:
    """Raise `JournalError` for an error of the database."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        raise journal_error("the journal cannot be used", error) from None


# What workers read and write.


@record
class Controls:
    """Orders of operators to the workers, as they are now."""

    pauses: tuple[Pause, ...]
    #: Whether orders are to be cancelled that no worker has begun.
    has_cancellations: bool


@record
class ReadControls:
    """Reads what operators want."""

    namespace: str

    @staticmethod
    def run_all(connection: Connection, reads: list["ReadControls"]) -> list[Controls]:
        """Return it for each."""
        some = select(schema.cancellations.c.name).limit(1)
        has_any = connection.execute(some).first() is not None
        return [Controls(tuple(pauses_in(connection, one.namespace)), has_any) for one in reads]


@record
class Beat:
    """Writes what a worker tells of itself."""

    row: WorkerRow

    @staticmethod
    def run_all(connection: Connection, writes: list["Beat"]) -> list[None]:
        """Write all."""
        for one in writes:
            row = one.row
            values = {name: getattr(row, name) for name in schema.workers.c.keys()}  # noqa: SIM118
            mine = schema.workers.c.owner == row.owner
            if not connection.execute(schema.workers.update().where(mine).values(values)).rowcount:
                connection.execute(schema.workers.insert(), values)
        return [None] * len(writes)


def forget_old(connection: Connection, now: float) -> None:
    """Delete rows of workers that are gone, and cancellations of orders that did not come."""
    workers, cancellations = schema.workers, schema.cancellations
    connection.execute(workers.delete().where(workers.c.seen_at < now - WORKERS_KEPT))
    connection.execute(cancellations.delete().where(cancellations.c.at < now - CANCELLATIONS_KEPT))

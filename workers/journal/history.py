"""Reads of the journal for operators: they change nothing, and wait for no worker that writes."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Select, case, func, literal, or_, select, tuple_
from sqlalchemy.exc import SQLAlchemyError

from handlers.effects.waits import Wait
from messages.record import record
from messages.results import WaitReason
from workers.journal import schema
from workers.journal.database import (
    current_revision,
    head_revision,
    is_sqlite,
    journal_error,
    open_engine,
    reading_engine,
    url_without_password,
)
from workers.journal.dead_letters import (
    AT_ONCE,
    archived_of,
    batches_of,
    causes_of,
    in_parts,
    replay_of,
    replays_of,
)
from workers.journal.figures import Figures, figures_in
from workers.journal.owners import is_alive
from workers.journal.records import (
    Action,
    Archived,
    Batch,
    DeadLetterCause,
    JournalError,
    Kind,
    Replay,
    ReplayState,
    RequestRecord,
    Retry,
    State,
    UnfinishedRequest,
)
from workers.journal.server_locks import place_of, waiting_since
from workers.journal.writes import all_effects_of, effects_of


@record
class RequestFilter:
    """Criteria by which requests are listed; `since` is in Unix seconds."""

    state: State | None = None
    operation: str | None = None
    tenant: str | None = None
    since: float | None = None
    limit: int | None = None
    #: Unix seconds.
    before: float | None = None


class History:
    """Reads of the journal. They block, and raise `JournalError` where the database cannot be read."""

    def __init__(self, url: str, engine: Engine | None = None) -> None:
        self._url = url
        self._engine = reading_engine(engine or open_engine(url))

    def open(self) -> "History":
        """Check that there is a journal of this version's revision, or of a later one, which adds
        to it. Raises `JournalError`.
        """
        database = self._engine.url.database
        if is_sqlite(self._engine) and not Path(database or "").exists():
            raise JournalError(f"there is no journal at {url_without_password(self._url)} yet")
        found = current_revision(self._engine)
        if (found or "") < head_revision():
            raise JournalError(
                f"the journal is of revision {found or 'none'}, and this version reads {head_revision()}: "
                "a worker of this version brings it up to date at its start"
            )
        return self

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def requests(self, wanted: RequestFilter) -> list[RequestRecord]:
        """Return requests without their effects, newest first."""
        columns = schema.requests.c
        statement = _matching(wanted).order_by(columns.received_at.desc(), columns.key)
        with self._reading() as connection:
            return [request_of(row) for row in connection.execute(statement.limit(wanted.limit))]

    def export(
        self, wanted: RequestFilter
    ) -> Generator[tuple[RequestRecord, list[Replay]], None, None]:
        """Yield requests with their effects and the replays of their dead letters, oldest first, all
        as the journal was at one instant; few at a time are in memory. Writers do not wait.
        """
        columns, replays = schema.requests.c, schema.replays
        ordered = _matching(wanted).order_by(columns.received_at, columns.key).limit(AT_ONCE)
        place = tuple_(columns.received_at, columns.key)
        alive = cache(self.is_alive)
        with self._reading() as connection:
            if not is_sqlite(self._engine):
                from workers.journal.postgres import lift_limits  # noqa: PLC0415

                connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
                lift_limits(connection)
            rows = connection.execute(ordered).all()
            while rows:
                keys, names = [row.key for row in rows], [row.name for row in rows]
                effects = all_effects_of(connection, keys)
                replayed: defaultdict[str, list[Replay]] = defaultdict(list)
                meant = or_(replays.c.name.in_(names), replays.c.message_id.in_(names))
                for row in connection.execute(
                    select(replays)
                    .where(meant, replays.c.state != ReplayState.REPEATED)
                    .order_by(replays.c.pinned_at, replays.c.batch, replays.c.position)
                ):
                    for name in {row.name, row.message_id} - {None}:
                        replayed[name].append(replay_of(row))
                for row in rows:
                    one = request_of(row, effects.get(row.key, ()))
                    if one.state is State.RUNNING:
                        one = replace(one, wait=_wait_of(one, connection, alive))
                    yield one, replayed[row.name]
                last = rows[-1]
                after = place > tuple_(literal(last.received_at), literal(last.key))
                rows = connection.execute(ordered.where(after)).all()

    def unfinished_requests(self) -> list[UnfinishedRequest]:
        """Return the requests without a published result, the oldest first, with what each waits
        for now.
        """
        columns = schema.requests.c
        statement = (
            select(*(columns[name] for name in _OVERVIEW))
            .where(columns.state != State.SETTLED.value)
            .order_by(columns.received_at)
        )
        alive = cache(self.is_alive)
        with self._reading() as connection:
            behind = waiting_since(connection)
            return [_unfinished(row, behind, alive) for row in connection.execute(statement)]

    def find(self, word: str) -> list[RequestRecord]:
        """Return the requests with this key or name, newest first, with their effects."""
        columns = schema.requests.c
        matching = select(schema.requests).where(or_(columns.key == word, columns.name == word))
        with self._reading() as connection:
            rows = connection.execute(matching.order_by(columns.received_at.desc())).all()
            return [request_of(row, effects_of(connection, row.key).values()) for row in rows]

    def retries(self, key: str) -> list[Retry]:
        """Return the retries of a request in their order; none of before this was kept."""
        table = schema.retries
        with self._reading() as connection:
            rows = connection.execute(
                select(table).where(table.c.request_key == key).order_by(table.c.first_at)
            )
            stored = [(row, Wait.restored(json.loads(row.wait))) for row in rows]
        return [
            Retry(row.first_at, row.last_at, row.times, wait)
            for row, wait in stored
            if wait is not None
        ]

    def with_keys(self, keys: Sequence[str]) -> dict[str, RequestRecord]:
        """Return those of a few requests that there are, by their keys, with their effects."""
        columns, found = schema.requests.c, {}
        with self._reading() as connection:
            for row in connection.execute(select(schema.requests).where(columns.key.in_(keys))):
                found[row.key] = request_of(row, effects_of(connection, row.key).values())
        return {one.key: one for one in self.with_waits(found.values())}

    def with_waits(self, requests: Iterable[RequestRecord]) -> list[RequestRecord]:
        """Return the same requests with what each waits for now."""
        alive = cache(self.is_alive)
        with self._reading() as connection:
            return [
                replace(one, wait=_wait_of(one, connection, alive))
                if one.state is State.RUNNING
                else one
                for one in requests
            ]

    def by_key(self, names: Sequence[str]) -> dict[str, RequestRecord]:
        """Return the requests with these names by their keys; those that run, with their effects."""
        found: dict[str, RequestRecord] = {}
        with self._reading() as connection:
            for row in _named(connection, names):
                runs = row.state == State.RUNNING
                effects = effects_of(connection, row.key).values() if runs else ()
                found[row.key] = request_of(row, effects)
        return found

    def authenticated_tenant(
        self, kind: Kind, name: str, digest: str, resume_token_hash: str
    ) -> str | None:
        """Return the tenant of the request with this name and content that this resume token was
        issued for, or None.
        """
        columns = schema.requests.c
        statement = select(columns.tenant, columns.resume_token_hash).where(
            columns.name == name, columns.kind == kind.value, columns.digest == digest
        )
        with self._reading() as connection:
            for row in connection.execute(statement):
                if resume_token_hash in (row.resume_token_hash or "").split():
                    return str(row.tenant)
        return None

    def is_alive(self, owner: str) -> bool:
        """Return whether the worker that has a request is alive."""
        try:
            return is_alive(self._engine, owner)
        except (SQLAlchemyError, OSError) as error:
            raise JournalError(f"the journal cannot be read: {error}") from None

    def batches(self, limit: int | None = None) -> list[Batch]:
        """Return the batches of dead letters that operators replayed or discarded, newest first."""
        with self._reading() as connection:
            return batches_of(connection, limit=limit, stale=time.time() - RUNNER_STALE)

    def batch(self, name: str) -> Batch | None:
        """Return one batch with its counts by now, or None."""
        with self._reading() as connection:
            found = batches_of(connection, name=name, stale=time.time() - RUNNER_STALE)
        return found[0] if found else None

    def replays(
        self, *, batch: str | None = None, name: str | None = None, limit: int | None = None
    ) -> list[Replay]:
        """Return the messages of a batch, or those with a name, in the order of the batch."""
        with self._reading() as connection:
            return replays_of(connection, batch=batch, name=name, limit=limit)

    def dead_letter_causes(self, namespace: str) -> list[DeadLetterCause]:
        """Return the counts of the messages in a namespace's `ecs.dead` by cause, the largest first.

        Workers raise them, batches lower them, and each listing that saw the whole queue sets them
        right: in between they are an estimate.
        """
        with self._reading() as connection:
            return causes_of(connection, namespace)

    def figures(self, namespace: str) -> Figures:
        """Return counts for metrics."""
        with self._reading() as connection:
            return figures_in(connection, namespace)

    def archived(
        self,
        words: Sequence[str] = (),
        *,
        batch: str | None = None,
        since: float | None = None,
        limit: int | None = None,
    ) -> list[Archived]:
        """Return what was discarded or edited, newest first. `words` are ids of the archive,
        message_ids, orderIds or flowIds; `since` is in Unix seconds.
        """
        with self._reading() as connection:
            return archived_of(connection, words=words, batch=batch, since=since, limit=limit)

    def unfinished(self, selection: str, action: Action, operator: str) -> str | None:
        """Return the newest unfinished batch of this operator with this selection, or None."""
        columns = schema.replays.c
        statement = (
            select(columns.batch)
            .where(
                columns.selection == selection,
                columns.action == action.value,
                columns.operator == operator,
            )
            .where(columns.done_at.is_(None), columns.state != ReplayState.REPEATED.value)
            .order_by(columns.pinned_at.desc())
        )
        with self._reading() as connection:
            return connection.execute(statement.limit(1)).scalar()

    def done_before(self, identities: Sequence[str], action: Action) -> set[str]:
        """Return the identities whose messages are all done in some batch: they only need an ack."""
        columns, found = schema.replays.c, set[str]()
        with self._reading() as connection:
            for some in in_parts(columns.identity, identities):
                statement = (
                    select(columns.identity)
                    .where(some)
                    .where(
                        columns.action == action.value, columns.state != ReplayState.REPEATED.value
                    )
                    .group_by(columns.batch, columns.identity)
                    .having(func.count() == func.sum(case((columns.state.in_(_DONE), 1), else_=0)))
                )
                found |= set(connection.execute(statement).scalars())
        return found

    def named(self, names: Sequence[str]) -> dict[str, list[RequestRecord]]:
        """Return the requests with each of these names, without effects, the oldest first."""
        found: dict[str, list[RequestRecord]] = {}
        with self._reading() as connection:
            for row in _named(connection, names):
                found.setdefault(row.name, []).append(request_of(row))
        return found

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            raise journal_error("the journal cannot be read", error) from None


def _matching(wanted: RequestFilter) -> Select[Any]:
    """Return the query for the requests that a filter lets through."""
    columns = schema.requests.c
    statement = select(schema.requests)
    for column, value in (
        (columns.state, wanted.state),
        (columns.operation, wanted.operation),
        (columns.tenant, wanted.tenant),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if wanted.since is not None:
        statement = statement.where(columns.received_at >= wanted.since)
    if wanted.before is not None:
        statement = statement.where(columns.received_at < wanted.before)
    return statement


#: Seconds without a sign of the process that carries a batch out, after which another one may.
RUNNER_STALE = 15.0
_DONE = (ReplayState.SENT.value, ReplayState.DISCARDED.value)


def request_of(row: Any, effects: Iterable[Any] = ()) -> RequestRecord:
    """Return a row as a record."""
    return RequestRecord(
        key=row.key,
        name=row.name,
        kind=Kind(row.kind),
        operation=row.operation,
        tenant=row.tenant,
        digest=row.digest,
        state=State(row.state),
        attempts=row.attempts,
        deliveries=row.deliveries,
        received_at=row.received_at,
        updated_at=row.updated_at,
        owner=row.owner,
        result=json.loads(row.result) if row.result is not None else None,
        updates=tuple(json.loads(row.updates)) if row.updates is not None else (),
        effects=tuple(effects),
        wait=_noted(row),
        pruned_at=row.pruned_at,
    )


def _noted(row: Any) -> Wait | None:
    """Return what the worker that has a request, or had it last, has noted; None where another one
    has taken it over since.
    """
    stored = json.loads(row.waits_for) if row.waits_for is not None else None
    if stored is None or stored["claim"] != row.claim or row.state != State.RUNNING:
        return None
    return Wait.restored(stored)


#: Columns of an overview: without results and updates, which are large.
_OVERVIEW = (
    "key",
    "name",
    "kind",
    "operation",
    "tenant",
    "state",
    "owner",
    "claim",
    "received_at",
    "updated_at",
    "waits_for",
)


def _unfinished(
    row: Any, behind: Mapping[str, float], alive: Callable[[str], bool]
) -> UnfinishedRequest:
    wait = None
    if row.state == State.RUNNING:
        wait, is_left = _without_worker(row.owner, _noted(row), row.updated_at, alive)
        if not is_left and (since := behind.get(row.key)) is not None:
            wait = Wait(WaitReason.TURN, since, wait.until if wait is not None else None)
    return UnfinishedRequest(
        key=row.key,
        name=row.name,
        kind=Kind(row.kind),
        operation=row.operation,
        tenant=row.tenant,
        received_at=row.received_at,
        updated_at=row.updated_at,
        owner=row.owner,
        is_answered=row.state != State.RUNNING,
        wait=wait,
    )


def _without_worker(
    owner: str | None, noted: Wait | None, updated_at: float, alive: Callable[[str], bool]
) -> tuple[Wait | None, bool]:
    """Return what a running request waits for as far as its own row tells, and True where that is
    all: no worker has it, and it does not wait for a turn.
    """
    if owner is None or not alive(owner):
        # What its worker had noted while it had it has ended with the worker.
        if owner is not None or noted is None:
            return Wait(WaitReason.WORKER, updated_at), True
        if noted.reason is not WaitReason.TURN:
            return noted, True
    return noted, False


def _wait_of(
    request: RequestRecord, connection: Connection, alive: Callable[[str], bool]
) -> Wait | None:
    """Return what a running request waits for."""
    noted, is_left = _without_worker(request.owner, request.wait, request.updated_at, alive)
    if is_left:
        return noted
    place = place_of(connection, request.key)
    if place is None:
        return noted
    until = noted.until if noted is not None else None
    return Wait(WaitReason.TURN, place.since, until, behind=place.behind, others=place.others)


def _named(connection: Connection, names: Sequence[str]) -> Iterator[Any]:
    """Yield the rows of the requests with these names, the oldest of each name first."""
    columns = schema.requests.c
    for some in in_parts(columns.name, names):
        yield from connection.execute(
            select(schema.requests).where(some).order_by(columns.received_at)
        ).all()

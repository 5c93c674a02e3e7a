"""Writes about the dead letters that operators replay or discard, and their archive and counts."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, TextClause, bindparam, func, or_, select, text, update

from messages.record import record
from workers.journal import schema
from workers.journal.dead_letters import in_parts, replay_of
from workers.journal.operators import Actor
from workers.journal.owners import Owner
from workers.journal.records import Archived, Batch, Replay, ReplayOutcome, ReplayState

_COLUMNS = schema.replays.columns
# May be run again after a commit whose outcome is unknown.
_INSERT = text(
    f"INSERT INTO replays ({', '.join(one.name for one in _COLUMNS)})"  # noqa: S608
    f" VALUES ({', '.join(f':{one.key}' for one in _COLUMNS)}) ON CONFLICT (id) DO NOTHING"
)
_FIELDS = tuple(field.name for field in fields(Replay))
_ISSUE = text(
    "UPDATE replays SET state = 'issued', pass_hash = :token_hash, done_by = :by,"
    " done_user = :user WHERE id = :id"
)
_ARCHIVED = tuple(one.name for one in schema.dead_letter_archive.columns)
_ARCHIVE = text(
    f"INSERT INTO dead_letter_archive ({', '.join(_ARCHIVED)})"  # noqa: S608
    f" VALUES ({', '.join(f':{one}' for one in _ARCHIVED)}) ON CONFLICT (id) DO NOTHING"
)
_ADD_BATCH = text(
    "INSERT INTO replay_batches (name, action, operator, real_user, source, why, chosen_by,"
    " begun_at, total, hindered) VALUES (:name, :action, :operator, :real_user, :source, :why,"
    " :chosen_by, :begun_at, :total, :hindered) ON CONFLICT (name) DO NOTHING"
)
_COUNT = text(
    "INSERT INTO dead_letter_causes (namespace, code, reason, messages)"
    " VALUES (:namespace, :code, :reason, :more) ON CONFLICT (namespace, code, reason)"
    " DO UPDATE SET messages = dead_letter_causes.messages + excluded.messages"
)
_NOT_BELOW_ZERO = text("UPDATE dead_letter_causes SET messages = 0 WHERE messages < 0")
#: Rows that one pruning deletes at most: their bodies are large.
_PRUNED = 100
#: A namespace, a code and a reason.
_Cause = tuple[str, str, str]


@record
class AddBatch:
    """Records the messages of a batch before anything is done with them."""

    batch: Batch
    replays: Sequence[Replay]

    @staticmethod
    def run_all(connection: Connection, writes: list["AddBatch"]) -> list[None]:
        """Run all."""
        connection.execute(_ADD_BATCH, [_batch_row(write.batch) for write in writes])
        _insert(connection, [one for write in writes for one in write.replays])
        return [None] * len(writes)


@record
class ClaimBatch:
    """Makes a process the only one that carries a batch out.

    `runner` identifies the run: the id of `owner`, which is its process, a dot, and more.
    `runner_name` is its operator and process, for people. A runner whose process does not hold its
    lock, or that was not seen since `stale` (Unix seconds), is dead.
    """

    batch: Batch
    runner: str
    runner_name: str
    now: float
    stale: float
    owner: Owner

    @staticmethod
    def run_all(connection: Connection, writes: list["ClaimBatch"]) -> list[str | None]:
        """Return for each the name of the runner that has it already; None where it is ours now."""
        columns = schema.replay_batches.c
        outcomes: list[str | None] = []
        for write in writes:
            # Batches of earlier versions have no row yet.
            connection.execute(_ADD_BATCH, [_batch_row(write.batch)])
            held = connection.execute(
                select(columns.runner).where(columns.name == write.batch.name)
            ).scalar()
            process = (held or "").rpartition(".")[0]
            is_free = or_(
                columns.runner.is_(None),
                columns.runner == write.runner,
                columns.seen_at < write.stale,
            )
            if process and not write.owner.is_alive(process, connection):
                is_free = or_(is_free, columns.runner == held)
            connection.execute(
                update(schema.replay_batches)
                .where(columns.name == write.batch.name, is_free)
                .values(
                    runner=write.runner,
                    runner_name=write.runner_name,
                    seen_at=write.now,
                    stop_by=None,
                    stop_at=None,
                    trouble=None,
                )
            )
            row = connection.execute(
                select(columns.runner, columns.runner_name).where(columns.name == write.batch.name)
            ).one()
            outcomes.append(None if row.runner == write.runner else str(row.runner_name))
        return outcomes


@record
class KeepBatch:
    """Tells that a runner is alive, and asks whether it is to stop."""

    name: str
    runner: str
    now: float

    @staticmethod
    def run_all(connection: Connection, writes: list["KeepBatch"]) -> list[str | None]:
        """Return for each who asked for its end; None: nobody."""
        columns = schema.replay_batches.c
        outcomes: list[str | None] = []
        for write in writes:
            mine = (columns.name == write.name, columns.runner == write.runner)
            connection.execute(update(schema.replay_batches).where(*mine).values(seen_at=write.now))
            outcomes.append(
                connection.execute(
                    select(columns.stop_by).where(columns.name == write.name)
                ).scalar()
            )
        return outcomes


@record
class LeaveBatch:
    """Ends a run; `trouble` is why it ended early."""

    name: str
    runner: str
    trouble: str | None

    @staticmethod
    def run_all(connection: Connection, writes: list["LeaveBatch"]) -> list[None]:
        """Run all."""
        columns = schema.replay_batches.c
        for write in writes:
            mine = (columns.name == write.name, columns.runner == write.runner)
            ended = update(schema.replay_batches).where(*mine)
            connection.execute(ended.values(runner=None, seen_at=None, trouble=write.trouble))
        return [None] * len(writes)


@record
class StopBatch:
    """Asks the process that carries a batch out to stop."""

    name: str
    by: str
    now: float
    stale: float

    @staticmethod
    def run_all(connection: Connection, writes: list["StopBatch"]) -> list[bool]:
        """Return for each whether a process carries it out."""
        columns = schema.replay_batches.c
        outcomes = []
        for write in writes:
            runs = (
                columns.name == write.name,
                columns.runner.is_not(None),
                columns.seen_at >= write.stale,
            )
            asked = update(schema.replay_batches).where(*runs)
            stopped = connection.execute(asked.values(stop_by=write.by, stop_at=write.now))
            outcomes.append(stopped.rowcount > 0)
        return outcomes


@record
class IssueTokens:
    """Puts resume tokens into force: pairs of a replay's id and the token's SHA-256."""

    tokens: Sequence[tuple[str, str]]
    actor: Actor

    @staticmethod
    def run_all(connection: Connection, writes: list["IssueTokens"]) -> list[None]:
        """Run all."""
        rows = [
            {
                "id": one,
                "token_hash": token_hash,
                "by": write.actor.name,
                "user": write.actor.real_user,
            }
            for write in writes
            for one, token_hash in write.tokens
        ]
        _execute_many(connection, _ISSUE, rows)
        return [None] * len(writes)


@record
class RepeatReplays:
    """Records new replays for messages that may have been published before a crash.

    The former ones (by id) keep their tokens in force: their copies may still arrive.
    """

    former: Sequence[str]
    replays: Sequence[Replay]

    @staticmethod
    def run_all(connection: Connection, writes: list["RepeatReplays"]) -> list[None]:
        """Run all."""
        replays = schema.replays
        again = (
            update(replays)
            .where(replays.c.id == bindparam("former"))
            .values(state=ReplayState.REPEATED.value)
        )
        connection.execute(again, [{"former": one} for write in writes for one in write.former])
        _insert(connection, [one for write in writes for one in write.replays])
        return [None] * len(writes)


@record
class EndReplays:
    """Records what became of replays (by id), by whom, and what is kept of those that are
    discarded. A replay ends once.
    """

    ids: Sequence[str]
    state: ReplayState
    now: float
    actor: Actor
    namespace: str
    archived: Sequence[Archived] = ()

    @staticmethod
    def run_all(connection: Connection, writes: list["EndReplays"]) -> list[None]:
        """Run all; a replay that has ended already is left as it is."""
        archived = [one for write in writes for one in write.archived]
        if archived:
            _archive(connection, archived)
        # Counted before they are ended, in the same transaction: each is taken off once.
        taken = Counter[_Cause]()
        for write in writes:
            if write.state is not ReplayState.GONE:
                taken.update(_taken(connection, write))
            _end(connection, write)
        _count(connection, taken)
        return [None] * len(writes)


@record
class NoteDeadLetter:
    """Notes that a worker has put a message into `ecs.dead`, or has refused a replayed one.

    `code` is None where it was not dead-lettered. `replay`: the id of the replay by which it came.
    """

    namespace: str
    code: str | None
    reason: str
    replay: str | None
    text: str | None

    @staticmethod
    def run_all(connection: Connection, writes: list["NoteDeadLetter"]) -> list[None]:
        """Run all."""
        replays = schema.replays
        ended = update(replays).where(replays.c.id == bindparam("replay"))
        rows = [
            {
                "replay": one.replay,
                "outcome": (
                    ReplayOutcome.REFUSED if one.code is None else ReplayOutcome.PARKED
                ).value,
                "outcome_text": one.text,
            }
            for one in writes
            if one.replay is not None
        ]
        if rows:
            connection.execute(
                ended.values(outcome=bindparam("outcome"), outcome_text=bindparam("outcome_text")),
                rows,
            )
        _count(
            connection,
            Counter(
                (one.namespace, one.code, one.reason) for one in writes if one.code is not None
            ),
        )
        return [None] * len(writes)


@record
class SetCauses:
    """Sets the counts by cause to what a listing of the whole queue has seen."""

    namespace: str
    causes: Sequence[tuple[str, str, int]]

    @staticmethod
    def run_all(connection: Connection, writes: list["SetCauses"]) -> list[None]:
        """Run all."""
        table = schema.dead_letter_causes
        for write in writes:
            connection.execute(table.delete().where(table.c.namespace == write.namespace))
            found = {(write.namespace, code, reason): more for code, reason, more in write.causes}
            _count(connection, Counter(found))
        return [None] * len(writes)


@record
class Archive:
    """Keeps messages before they are changed."""

    archived: Sequence[Archived]

    @staticmethod
    def run_all(connection: Connection, writes: list["Archive"]) -> list[None]:
        """Run all."""
        _archive(connection, [one for write in writes for one in write.archived])
        return [None] * len(writes)


@record
class Restored:
    """Records that messages of the archive (ids) are in `ecs.dead` again."""

    ids: Sequence[str]
    now: float
    actor: Actor
    namespace: str

    @staticmethod
    def run_all(connection: Connection, writes: list["Restored"]) -> list[None]:
        """Run all."""
        columns, back = schema.dead_letter_archive.c, Counter[_Cause]()
        for write in writes:
            for part in in_parts(columns.id, write.ids):
                some = (part, columns.restored_at.is_(None))
                for row in connection.execute(select(columns.code, columns.reason).where(*some)):
                    back[write.namespace, row.code, row.reason or ""] += 1
                connection.execute(
                    update(schema.dead_letter_archive)
                    .where(*some)
                    .values(
                        restored_at=write.now,
                        restored_by=write.actor.name,
                        restored_user=write.actor.real_user,
                    )
                )
        _count(connection, back)
        return [None] * len(writes)


@record
class PruneArchive:
    """Deletes some discarded messages that were archived before a time. Originals of edited ones
    stay.
    """

    before: float

    @staticmethod
    def run_all(connection: Connection, writes: list["PruneArchive"]) -> list[int]:
        """Return how many were deleted."""
        columns, outcomes = schema.dead_letter_archive.c, []
        for write in writes:
            old = (
                select(columns.id)
                .where(columns.archived_at < write.before, columns.kind == "discarded")
                .limit(_PRUNED)
            )
            ids = list(connection.execute(old).scalars())
            if ids:
                connection.execute(schema.dead_letter_archive.delete().where(columns.id.in_(ids)))
            outcomes.append(len(ids))
        return outcomes


@record
class Redeem:
    """Looks a resume token up for the worker that received a message with it."""

    resume_token_hash: str
    digest: str
    now: float

    @staticmethod
    def run_all(connection: Connection, writes: list["Redeem"]) -> list[Replay | None]:
        """Return the replay of each token, None where the token was not issued for this content.

        The first arrival of each is recorded.
        """
        columns = schema.replays.c
        hashes = {one.resume_token_hash for one in writes}
        rows = connection.execute(
            select(schema.replays).where(columns.resume_token_hash.in_(hashes))
        )
        found: dict[str, Any] = {row.resume_token_hash: row for row in rows}
        rows_found = [found.get(one.resume_token_hash) for one in writes]
        replays = [
            replay_of(row) if row is not None and row.digest == write.digest else None
            for write, row in zip(writes, rows_found, strict=True)
        ]
        arrived = [
            {"one": replay.id, "now": write.now}
            for write, replay in zip(writes, replays, strict=True)
            if replay is not None and replay.arrived_at is None
        ]
        if arrived:
            met = update(schema.replays).where(
                columns.id == bindparam("one"), columns.arrived_at.is_(None)
            )
            connection.execute(met.values(arrived_at=bindparam("now")), arrived)
        return replays


def _insert(connection: Connection, replays: Sequence[Replay]) -> None:
    _execute_many(
        connection,
        _INSERT,
        # `asdict` would copy each value, which takes as long as the insert.
        [
            {name: getattr(one, name) for name in _FIELDS}
            | {"resume_token_hash": None, "state": one.state.value, "outcome": None}
            for one in replays
        ],
    )


def _execute_many(
    connection: Connection, statement: TextClause, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Execute a statement for each of many rows by the database's driver: SQLAlchemy's own work for
    a row takes as long as SQLite's.
    """
    compiled = statement.compile(dialect=connection.dialect)
    names: Sequence[str] | None = getattr(compiled, "positiontup", None)
    ordered: Any = itemgetter(*names) if names else dict
    connection.exec_driver_sql(str(compiled), [ordered(row) for row in rows])


def _end(connection: Connection, write: EndReplays) -> None:
    """One statement for many: each of its rows gets the same."""
    columns = schema.replays.c
    for some in in_parts(columns.id, write.ids):
        connection.execute(
            update(schema.replays)
            .where(some, columns.done_at.is_(None))
            .values(
                state=write.state.value,
                done_at=write.now,
                done_by=write.actor.name,
                done_user=write.actor.real_user,
            )
        )


def _taken(connection: Connection, write: EndReplays) -> Counter[_Cause]:
    """Return less than nothing of each cause whose messages leave `ecs.dead` with this write."""
    columns, taken = schema.replays.c, Counter[_Cause]()
    for some in in_parts(columns.id, write.ids):
        statement = select(columns.code, columns.reason, func.count()).where(
            some, columns.done_at.is_(None)
        )
        by_cause = statement.group_by(columns.code, columns.reason)
        for code, reason, number in connection.execute(by_cause):
            taken[write.namespace, code, reason or ""] -= number
    return taken


def _archive(connection: Connection, archived: Iterable[Archived]) -> None:
    connection.execute(
        _ARCHIVE, [{name: getattr(one, name) for name in _ARCHIVED} for one in archived]
    )


def _batch_row(batch: Batch) -> dict[str, Any]:
    return {
        "name": batch.name,
        "action": batch.action.value,
        "operator": batch.operator,
        "real_user": batch.real_user,
        "source": batch.source,
        "why": batch.why,
        "chosen_by": batch.chosen_by,
        "begun_at": batch.begun_at,
        "total": batch.messages,
        "hindered": batch.hindered,
    }


def _count(connection: Connection, causes: Counter[_Cause]) -> None:
    """Add to the counts. In order, or two workers could each wait for the other's row."""
    rows: list[dict[str, Any]] = [
        {"namespace": namespace, "code": code, "reason": reason, "more": more}
        for (namespace, code, reason), more in sorted(causes.items())
        if more
    ]
    if rows:
        connection.execute(_COUNT, rows)
    if any(row["more"] < 0 for row in rows):
        connection.execute(_NOT_BELOW_ZERO)

"""The writes about parked messages that an operator takes in hand."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select, text, update

from workers.journal import schema
from workers.journal.history import replay_of
from workers.journal.records import Replay, ReplayState

_COLUMNS = [column.name for column in schema.replays.columns]
# May be run again after a commit whose outcome is not known.
_PIN = text(
    f"INSERT INTO replays ({', '.join(_COLUMNS)}) VALUES ({', '.join(f':{name}' for name in _COLUMNS)})"  # noqa: S608
    " ON CONFLICT (id) DO NOTHING"
)
_ISSUE = text("UPDATE replays SET state = 'issued', pass_hash = :pass_hash WHERE id = :id")
_NOTE = text("UPDATE replays SET state = :state, done_at = :now WHERE id = :id AND done_at IS NULL")


@dataclass(frozen=True, slots=True)
class Pin:
    """These messages, and no others."""

    replays: Sequence[Replay]

    @staticmethod
    def run_all(connection: Connection, operations: list["Pin"]) -> list[None]:
        """Nothing."""
        _insert(connection, [one for operation in operations for one in operation.replays])
        return [None] * len(operations)


@dataclass(frozen=True, slots=True)
class Issue:
    """Words that are good for one replay each: pairs of a replay's id and the word's hash."""

    words: Sequence[tuple[str, str]]

    @staticmethod
    def run_all(connection: Connection, operations: list["Issue"]) -> list[None]:
        """Nothing."""
        rows = [
            {"id": one, "pass_hash": word}
            for operation in operations
            for one, word in operation.words
        ]
        connection.execute(_ISSUE, rows)
        return [None] * len(operations)


@dataclass(frozen=True, slots=True)
class PutInAgain:
    """What may have been published before a crash is published once more, by a word of its own."""

    former: Sequence[str]
    replays: Sequence[Replay]

    @staticmethod
    def run_all(connection: Connection, operations: list["PutInAgain"]) -> list[None]:
        """Nothing."""
        replays = schema.replays
        again = (
            update(replays)
            .where(replays.c.id == bindparam("former"))
            .values(state=ReplayState.AGAIN.value)
        )
        connection.execute(
            again, [{"former": one} for operation in operations for one in operation.former]
        )
        _insert(connection, [one for operation in operations for one in operation.replays])
        return [None] * len(operations)


@dataclass(frozen=True, slots=True)
class Note:
    """What became of them."""

    ids: Sequence[str]
    state: ReplayState
    now: float

    @staticmethod
    def run_all(connection: Connection, operations: list["Note"]) -> list[None]:
        """Nothing; what is noted stays."""
        rows = [
            {"id": one, "state": op.state.value, "now": op.now}
            for op in operations
            for one in op.ids
        ]
        connection.execute(_NOTE, rows)
        return [None] * len(operations)


@dataclass(frozen=True, slots=True)
class Redeem:
    """A worker meets a message with a word."""

    pass_hash: str
    digest: str
    now: float

    @staticmethod
    def run_all(connection: Connection, operations: list["Redeem"]) -> list[Replay | None]:
        """The replay, if the word is good for this content."""
        columns = schema.replays.c
        hashes = {one.pass_hash for one in operations}
        rows = connection.execute(select(schema.replays).where(columns.pass_hash.in_(hashes)))
        found: dict[str, Any] = {row.pass_hash: row for row in rows}
        replays = [_good(found.get(one.pass_hash), one.digest) for one in operations]
        arrived = [
            {"one": replay.id, "now": operation.now}
            for operation, replay in zip(operations, replays, strict=True)
            if replay is not None and replay.arrived_at is None
        ]
        if arrived:
            met = update(schema.replays).where(
                columns.id == bindparam("one"), columns.arrived_at.is_(None)
            )
            connection.execute(met.values(arrived_at=bindparam("now")), arrived)
        return replays


def _good(row: Any, digest: str) -> Replay | None:
    return replay_of(row) if row is not None and row.digest == digest else None


def _insert(connection: Connection, replays: Sequence[Replay]) -> None:
    connection.execute(
        _PIN, [asdict(one) | {"pass_hash": None, "state": one.state.value} for one in replays]
    )

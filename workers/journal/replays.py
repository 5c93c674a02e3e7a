"""Writes about the dead letters that operators replay or discard."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, bindparam, select, text, update

from messages.record import record
from workers.journal import schema
from workers.journal.history import replay_of
from workers.journal.records import Replay, ReplayState

_COLUMNS = schema.replays.columns
# May be run again after a commit whose outcome is unknown.
_INSERT = text(
    f"INSERT INTO replays ({', '.join(one.name for one in _COLUMNS)})"  # noqa: S608
    f" VALUES ({', '.join(f':{one.key}' for one in _COLUMNS)}) ON CONFLICT (id) DO NOTHING"
)
_FIELDS = tuple(field.name for field in fields(Replay))
_ISSUE = text("UPDATE replays SET state = 'issued', pass_hash = :token_hash WHERE id = :id")
_END = text("UPDATE replays SET state = :state, done_at = :now WHERE id = :id AND done_at IS NULL")


@record
class AddBatch:
    """Records the messages of a batch before anything is done with them."""

    replays: Sequence[Replay]

    @staticmethod
    def run_all(connection: Connection, writes: list["AddBatch"]) -> list[None]:
        """Run all."""
        _insert(connection, [one for write in writes for one in write.replays])
        return [None] * len(writes)


@record
class IssueTokens:
    """Puts resume tokens into force: pairs of a replay's id and the token's SHA-256."""

    tokens: Sequence[tuple[str, str]]

    @staticmethod
    def run_all(connection: Connection, writes: list["IssueTokens"]) -> list[None]:
        """Run all."""
        rows = [
            {"id": one, "token_hash": token_hash}
            for write in writes
            for one, token_hash in write.tokens
        ]
        connection.execute(_ISSUE, rows)
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
    """Records what became of replays (by id); a replay ends once."""

    ids: Sequence[str]
    state: ReplayState
    now: float

    @staticmethod
    def run_all(connection: Connection, writes: list["EndReplays"]) -> list[None]:
        """Run all; a replay that has ended already is left as it is."""
        rows = [
            {"id": one, "state": op.state.value, "now": op.now} for op in writes for one in op.ids
        ]
        connection.execute(_END, rows)
        return [None] * len(writes)


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
    connection.execute(
        _INSERT,
        # `asdict` would copy each value, which takes as long as the insert.
        [
            {name: getattr(one, name) for name in _FIELDS}
            | {"resume_token_hash": None, "state": one.state.value}
            for one in replays
        ],
    )

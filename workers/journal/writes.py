"""Writes about requests and effects, each kind with as few statements as possible for a group."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, select, text
from sqlalchemy.engine import CursorResult

from workers.journal import schema
from workers.journal.owners import Owner
from workers.journal.records import (
    Begun,
    Claim,
    ClaimLost,
    ContentConflict,
    EffectRecord,
    HeldElsewhere,
    Known,
    NewRequest,
    Outcome,
    Resumed,
    State,
)
from workers.journal.server_locks import sweep


def to_json(value: Any) -> str:
    """Return JSON text; integers may be of any size."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value, ensure_ascii=False)


_INSERT = text(
    "INSERT INTO requests (key, name, kind, operation, tenant, digest, state, owner, claim, attempts, deliveries,"
    " received_at, updated_at) VALUES (:key, :name, :kind, :operation, :tenant, :digest, 'running', :owner, :claim, 0,"
    " 1, :received_at, :received_at) ON CONFLICT (key) DO NOTHING"
)
_SEEN = text("UPDATE requests SET deliveries = deliveries + 1 WHERE key = :key")
_TAKE_OVER = text(
    "UPDATE requests SET owner = :owner, claim = :claim, updated_at = :now"
    " WHERE key = :key AND state = 'running' AND claim = :former"
)
_INTEND = (
    "INSERT INTO effects (request_key, name, intended_at, marker, outcome, request_id, recorded_at)"
    " SELECT key, :name, CAST(:now AS DOUBLE PRECISION), :marker, :outcome, NULL, CAST(:recorded AS DOUBLE PRECISION)"
    " FROM requests WHERE key = :key AND claim = :claim AND state = 'running'{lock}"
    " ON CONFLICT (request_key, name) DO UPDATE SET intended_at = excluded.intended_at, marker = excluded.marker,"
    " outcome = excluded.outcome, request_id = NULL, recorded_at = excluded.recorded_at"
)
_INTEND_SQLITE = text(_INTEND.format(lock=""))
#: The row is locked until the commit: no worker takes the request over between check and write.
_INTEND_POSTGRES = text(_INTEND.format(lock=" FOR SHARE"))
_RECORD = text(
    "UPDATE effects SET outcome = :outcome, request_id = :request_id, recorded_at = :now WHERE request_key = :key"
    " AND name = :name AND EXISTS (SELECT 1 FROM requests WHERE requests.key = :key AND requests.claim = :claim)"
)
_FINISH = text(
    "UPDATE requests SET state = 'done', result = :result, updates = :updates, updated_at = :now"
    " WHERE key = :key AND claim = :claim AND state = 'running'"
)
_SETTLE = text(
    "UPDATE requests SET state = 'settled', updated_at = :now WHERE key = :key AND state = 'done'"
)
_RELEASE = text(
    "UPDATE requests SET owner = NULL, attempts = attempts + :more, updated_at = :now"
    " WHERE key = :key AND claim = :claim AND state = 'running' AND owner IS NOT NULL"
)
#: The new hash is put first, and stands there once. Copies of a message may be under way with
#: several resume tokens; of more than eight (of 65 characters each) the oldest are dropped.
_ADD_RESUME_TOKEN = text(
    "UPDATE requests SET pass_hash = substr(:hashed || replace(coalesce(pass_hash, ''), :hashed, ''), 1, 520)"
    " WHERE key = :key"
)


def _count(connection: Connection, statement: Any, rows: Sequence[dict[str, Any]]) -> int:
    """Execute for all rows and return how many were written."""
    result: CursorResult[Any] = connection.execute(
        statement, rows, execution_options={"preserve_rowcount": True}
    )
    return result.rowcount


def _each(
    connection: Connection, statement: Any, rows: Sequence[dict[str, Any]]
) -> list[Exception | None]:
    """Execute for all rows and return None, or `ClaimLost` where it was not written, for each."""
    if _count(connection, statement, rows) == len(rows):
        return [None] * len(rows)
    # Rare: another worker has one of them. Executing each alone, a second time, tells which one.
    return [None if _count(connection, statement, [row]) else ClaimLost(row["key"]) for row in rows]


def _rows(writes: Sequence["Intend | Record | Finish | Release"]) -> list[dict[str, Any]]:
    """Return the fields of each write as parameters; the claim is its key and its token."""
    return [
        {field.name: getattr(one, field.name) for field in fields(one)}
        | {"key": one.claim.key, "claim": one.claim.token}
        for one in writes
    ]


@dataclass(frozen=True, slots=True)
class Begin:
    """Records a delivery of a request, and claims the request where that is possible."""

    request: NewRequest
    owner: Owner
    claim: str

    @staticmethod
    def run_all(connection: Connection, writes: list["Begin"]) -> list[Outcome]:
        """Return what is known of each request."""
        rows = [
            asdict(one.request)
            | {"kind": one.request.kind.value, "owner": one.owner.id, "claim": one.claim}
            for one in writes
        ]
        if _count(connection, _INSERT, rows) == len(rows):
            return [Begun(Claim(one.request.key, one.claim)) for one in writes]
        return [one._find(connection) for one in writes]

    def _find(self, connection: Connection) -> Outcome:
        key = self.request.key
        row = connection.execute(select(schema.requests).where(schema.requests.c.key == key)).one()
        if row.claim == self.claim and row.state == State.RUNNING:
            # This worker's, by this or by a commit whose outcome was unknown: begun or taken over.
            is_new = row.deliveries == 1
            return Begun(Claim(key, self.claim)) if is_new else self._resumed(connection, row)
        connection.execute(_SEEN, {"key": key})
        if row.digest != self.request.digest:
            return ContentConflict()
        if row.state != State.RUNNING:
            return Known(
                json.loads(row.result), json.loads(row.updates), row.state == State.SETTLED
            )
        if row.owner not in (None, self.owner.id) and self.owner.is_alive(row.owner, connection):
            return HeldElsewhere(row.owner)
        values = {"key": row.key, "owner": self.owner.id, "claim": self.claim, "former": row.claim}
        if not _count(connection, _TAKE_OVER, [values | {"now": time.time()}]):
            # Another worker was quicker.
            return HeldElsewhere("")
        return self._resumed(connection, row)

    def _resumed(self, connection: Connection, row: Any) -> Resumed:
        effects = effects_of(connection, row.key)
        claim = Claim(row.key, self.claim)
        return Resumed(
            claim,
            effects,
            row.attempts,
            row.received_at,
            has_resume_token=bool(row.resume_token_hash),
        )


@dataclass(frozen=True, slots=True)
class Intend:
    """Records the intent of an effect; with an outcome, a remembered value."""

    claim: Claim
    name: str
    marker: str
    now: float
    outcome: str | None = None

    @staticmethod
    def run_all(connection: Connection, writes: list["Intend"]) -> list[Any]:
        """Return None or `ClaimLost` for each."""
        statement = _INTEND_SQLITE if connection.dialect.name == "sqlite" else _INTEND_POSTGRES
        rows = _rows(writes)
        for row in rows:
            row["recorded"] = row["now"] if row["outcome"] is not None else None
        return _each(connection, statement, rows)


@dataclass(frozen=True, slots=True)
class Record:
    """Records the outcome of an effect."""

    claim: Claim
    name: str
    outcome: str
    request_id: str | None
    now: float

    @staticmethod
    def run_all(connection: Connection, writes: list["Record"]) -> list[Any]:
        """Return None or `ClaimLost` for each."""
        return _each(connection, _RECORD, _rows(writes))


@dataclass(frozen=True, slots=True)
class Finish:
    """Records the result and the final updates."""

    claim: Claim
    result: str
    updates: str
    now: float

    @staticmethod
    def run_all(connection: Connection, writes: list["Finish"]) -> list[Any]:
        """Return None or `ClaimLost` for each."""
        if _count(connection, _FINISH, _rows(writes)) == len(writes):
            return [None] * len(writes)
        return CheckClaim.run_all(connection, [CheckClaim(one.claim) for one in writes])


@dataclass(frozen=True, slots=True)
class CheckClaim:
    """Checks that a request has not been taken over."""

    claim: Claim

    @staticmethod
    def run_all(connection: Connection, writes: list["CheckClaim"]) -> list[Any]:
        """Return None or `ClaimLost` for each."""
        return [None if one._holds(connection) else ClaimLost(one.claim.key) for one in writes]

    def _holds(self, connection: Connection) -> bool:
        columns = schema.requests.c
        claim = connection.execute(
            select(columns.claim).where(columns.key == self.claim.key)
        ).scalar()
        return claim == self.claim.token


@dataclass(frozen=True, slots=True)
class Settle:
    """Records that the result was published."""

    key: str
    now: float

    @staticmethod
    def run_all(connection: Connection, writes: list["Settle"]) -> list[None]:
        """Settle all."""
        _count(connection, _SETTLE, [{"key": one.key, "now": one.now} for one in writes])
        return [None] * len(writes)


@dataclass(frozen=True, slots=True)
class Release:
    """Releases a request for any worker; counts `more` attempts, and adds a resume token."""

    claim: Claim
    more: int
    now: float
    resume_token_hash: str | None = None

    @staticmethod
    def run_all(connection: Connection, writes: list["Release"]) -> list[None]:
        """Release all but those that another worker has taken over."""
        _count(connection, _RELEASE, _rows(writes))
        hashes = [(one.claim.key, one.resume_token_hash) for one in writes]
        AddResumeToken.run_all(connection, [AddResumeToken(key, one) for key, one in hashes if one])
        return [None] * len(writes)


@dataclass(frozen=True, slots=True)
class AddResumeToken:
    """Adds a resume token, which a copy of the request's message carries from now on."""

    key: str
    resume_token_hash: str

    @staticmethod
    def run_all(connection: Connection, writes: list["AddResumeToken"]) -> list[None]:
        """Add all."""
        if writes:
            _count(
                connection,
                _ADD_RESUME_TOKEN,
                [{"key": one.key, "hashed": f"{one.resume_token_hash} "} for one in writes],
            )
        return [None] * len(writes)


@dataclass(frozen=True, slots=True)
class Prune:
    """Deletes settled commands that were not changed since."""

    before: float

    @staticmethod
    def run_all(connection: Connection, writes: list["Prune"]) -> list[int]:
        """Return how many were deleted, a thousand at most: more would hold up other writes."""
        columns = schema.requests.c
        old = select(columns.key).where(
            columns.kind == "command",
            columns.state == "settled",
            columns.updated_at < bindparam("before"),
        )
        counts = []
        for one in writes:
            sweep(connection, one.before)
            keys = list(connection.execute(old.limit(1000), {"before": one.before}).scalars())
            if keys:
                connection.execute(
                    schema.effects.delete().where(schema.effects.c.request_key.in_(keys))
                )
                connection.execute(schema.requests.delete().where(columns.key.in_(keys)))
            counts.append(len(keys))
        return counts


def effects_of(connection: Connection, key: str) -> dict[str, EffectRecord]:
    """Return the effects of a request by name, in the order of their intents."""
    columns = schema.effects.c
    rows = connection.execute(
        select(schema.effects)
        .where(columns.request_key == key)
        .order_by(columns.intended_at, columns.name)
    )
    return {
        row.name: EffectRecord(
            row.name,
            row.intended_at,
            json.loads(row.marker),
            json.loads(row.outcome) if row.outcome is not None else None,
            row.request_id,
        )
        for row in rows
    }

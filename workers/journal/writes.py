"""Writes about requests and effects, each kind with as few statements as possible for a group."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy import Connection, select, text

from handlers.effects.waits import Wait
from messages.record import record
from workers.journal import schema
from workers.journal.database import Row, execute_all
from workers.journal.operators import take_cancellation
from workers.journal.owners import Owner
from workers.journal.records import (
    Begun,
    Claim,
    ClaimLost,
    ContentConflict,
    EffectRecord,
    HeldElsewhere,
    Kind,
    Known,
    NewRequest,
    Outcome,
    Resumed,
    State,
)
from workers.journal.server_locks import AcquireLocks, release_locks


def to_json(value: Any) -> str:
    """Return JSON text; integers may be of any size."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value, ensure_ascii=False)


_INSERT = (
    "INSERT INTO requests (key, name, kind, operation, tenant, digest, state, owner, claim,"
    " attempts, deliveries, received_at, updated_at)"
    " VALUES (?, ?, ?, ?, ?, ?, 'running', ?, ?, 0, 1, ?, ?) ON CONFLICT (key) DO NOTHING"
)
_SEEN = "UPDATE requests SET deliveries = deliveries + 1 WHERE key = ?"
_TAKE_OVER = (
    "UPDATE requests SET owner = ?, claim = ?, updated_at = ?, lost_workers = lost_workers + ?"
    " WHERE key = ? AND state = 'running' AND claim = ?"
)
#: An order that an operator has cancelled: `Operations.cancel` has ended it with a result for
#: workers of the version before. This one makes the order's own; until then that result stays, or
#: one of the version before would carry the order out that it finds running.
_TAKE_OVER_CANCELLED = (
    "UPDATE requests SET owner = ?, claim = ?, updated_at = ?, lost_workers = lost_workers + ?"
    " WHERE key = ? AND state = 'done' AND claim = ? AND cancelled_at IS NOT NULL"
)
_INTEND = (
    "INSERT INTO effects (request_key, name, intended_at, marker, outcome, request_id, recorded_at)"
    " SELECT key, ?, CAST(? AS DOUBLE PRECISION), ?, ?, NULL, CAST(? AS DOUBLE PRECISION)"
    " FROM requests WHERE key = ? AND claim = ? AND state = 'running'"
    # An operator's cancellation that was written before the order came (`Operations.cancel`).
    " AND NOT EXISTS (SELECT 1 FROM cancellations WHERE cancellations.name = requests.name"
    " AND cancellations.tenant IN ('', requests.tenant) AND requests.kind = 'order'){lock}"
    " ON CONFLICT (request_key, name) DO UPDATE SET intended_at = excluded.intended_at,"
    " marker = excluded.marker, outcome = excluded.outcome, request_id = NULL,"
    " recorded_at = excluded.recorded_at"
)
_INTEND_SQLITE = _INTEND.format(lock="")
#: The row is locked until the commit: no worker takes the request over between check and write.
_INTEND_POSTGRES = _INTEND.format(lock=" FOR SHARE OF requests")
_RECORD = (
    "UPDATE effects SET outcome = ?, request_id = ?, recorded_at = ?"
    " WHERE request_key = ? AND name = ?"
    " AND EXISTS (SELECT 1 FROM requests WHERE requests.key = request_key AND requests.claim = ?)"
)
_FINISH = (
    "UPDATE requests SET state = 'done', result = ?, updates = ?, updated_at = ?"
    " WHERE key = ? AND claim = ?"
    " AND (state = 'running' OR state = 'done' AND cancelled_at IS NOT NULL)"
)
_SETTLE = "UPDATE requests SET state = 'settled', updated_at = ? WHERE key = ? AND state = 'done'"
_RELEASE = (
    "UPDATE requests SET owner = NULL, attempts = attempts + ?, updated_at = ?, waits_for = ?"
    " WHERE key = ? AND claim = ? AND state = 'running' AND owner IS NOT NULL"
)
#: What a worker leaves that ends in order: whoever has it next has not found it dead.
_LEAVE = (
    "UPDATE requests SET owner = NULL, waits_for = NULL"
    " WHERE owner = ? AND state = 'running' AND state <> 'settled'"
)
#: After `_RELEASE`: the attempts are those with this one.
_NOTE_RETRY = (
    "INSERT INTO retries (request_key, attempts, reason, first_at, last_at, until, times, wait)"
    " SELECT key, attempts, ?, CAST(? AS DOUBLE PRECISION), CAST(? AS DOUBLE PRECISION),"
    " CAST(? AS DOUBLE PRECISION), 1, ?"
    " FROM requests WHERE key = ? AND claim = ? AND state = 'running'"
    " ON CONFLICT (request_key, attempts, reason) DO UPDATE SET last_at = excluded.last_at,"
    " until = excluded.until, times = retries.times + 1, wait = excluded.wait"
)
#: A request that was released, in this group or before, has a note of its own.
_NOTE_WAIT = (
    "UPDATE requests SET waits_for = ?"
    " WHERE key = ? AND claim = ? AND state = 'running' AND owner IS NOT NULL"
)
#: The new hash is put first, and stands there once. Copies of a message may be under way with
#: several resume tokens; of more than eight (of 65 characters each) the oldest are dropped.
_ADD_RESUME_TOKEN = text(
    "UPDATE requests SET pass_hash = substr(:hashed || replace(coalesce(pass_hash, ''), :hashed, ''), 1, 520)"
    " WHERE key = :key"
)


def _each(
    connection: Connection, statement: str, claims: Sequence[Claim], rows: Sequence[Row]
) -> list[Exception | None]:
    """Execute for all rows and return None, or `ClaimLost` where it was not written, for each."""
    if execute_all(connection, statement, rows) == len(rows):
        return [None] * len(rows)
    # Rare: another worker has one of them. Executing each alone, a second time, tells which one.
    return [
        None if execute_all(connection, statement, [row]) else ClaimLost(claim.key)
        for claim, row in zip(claims, rows, strict=True)
    ]


@record
class Begin:
    """Records a delivery of a request, and claims the request where that is possible."""

    request: NewRequest
    owner: Owner
    claim: str
    #: Names of the server locks that it needs.
    locks: tuple[str, ...] = ()
    #: Whether orders are to be cancelled that had not come when it was last asked for. Without, the
    #: first intent tells.
    looks_for_cancellation: bool = False

    @staticmethod
    def run_all(connection: Connection, writes: list["Begin"]) -> list[Outcome]:
        """Return what is known of each request; a new one gets its locks, or its place."""
        if execute_all(connection, _INSERT, [one._row() for one in writes]) == len(writes):
            outcomes: list[Outcome] = [Begun(one._claimed()) for one in writes]
        else:
            outcomes = [one._find(connection) for one in writes]
        locking = {
            number: AcquireLocks(one.request.key, one.owner, one.locks)
            for number, (one, outcome) in enumerate(zip(writes, outcomes, strict=True))
            if one.locks and isinstance(outcome, Begun)
        }
        if locking:
            aheads = AcquireLocks.run_all(connection, list(locking.values()))
            for (number, lock), ahead in zip(locking.items(), aheads, strict=True):
                if ahead is not None:
                    outcomes[number] = Begun(Claim(lock.key, writes[number].claim), ahead)
        for number, one in enumerate(writes):
            outcome = outcomes[number]
            if one.looks_for_cancellation and isinstance(outcome, Begun):
                outcomes[number] = replace(outcome, cancelled=one._is_cancelled(connection))
        return outcomes

    def _row(self) -> Row:
        new = self.request
        kind, at = new.kind.value, new.received_at
        fixed = (new.key, new.name, kind, new.operation, new.tenant, new.digest)
        return (*fixed, self.owner.id, self.claim, at, at)

    def _claimed(self) -> Claim:
        return Claim(self.request.key, self.claim)

    def _find(self, connection: Connection) -> Outcome:
        key = self.request.key
        row = connection.execute(select(schema.requests).where(schema.requests.c.key == key)).one()
        is_cancelled = row.state == State.DONE and row.cancelled_at is not None
        if row.claim == self.claim and (row.state == State.RUNNING or is_cancelled):
            # This worker's, by this or by a commit whose outcome was unknown: begun or taken over.
            is_new = row.deliveries == 1
            return Begun(self._claimed()) if is_new else self._resumed(connection, row)
        execute_all(connection, _SEEN, [(key,)])
        if row.digest != self.request.digest:
            return ContentConflict()
        if row.state != State.RUNNING and not is_cancelled:
            return Known(
                json.loads(row.result), json.loads(row.updates), row.state == State.SETTLED
            )
        if row.owner not in (None, self.owner.id) and self.owner.is_alive(row.owner, connection):
            return HeldElsewhere(row.owner)
        was_lost = row.owner not in (None, self.owner.id)
        values = (self.owner.id, self.claim, time.time(), int(was_lost), row.key, row.claim)
        statement = _TAKE_OVER_CANCELLED if is_cancelled else _TAKE_OVER
        if not execute_all(connection, statement, [values]):
            # Another worker was quicker.
            return HeldElsewhere("")
        return self._resumed(connection, row, was_lost=was_lost)

    def _resumed(self, connection: Connection, row: Any, *, was_lost: bool = False) -> Resumed:
        return Resumed(
            self._claimed(),
            effects_of(connection, row.key),
            row.attempts,
            row.received_at,
            has_resume_token=bool(row.resume_token_hash),
            cancelled=row.cancelled_at is not None or self._is_cancelled(connection),
            lost_workers=row.lost_workers + was_lost,
            was_lost=was_lost,
        )

    def _is_cancelled(self, connection: Connection) -> bool:
        new = self.request
        return new.kind is Kind.ORDER and take_cancellation(
            connection, new.key, new.name, new.tenant
        )


@record
class Intend:
    """Records the intent of an effect; with an outcome, a remembered value."""

    claim: Claim
    name: str
    marker: str
    now: float
    outcome: str | None = None
    recorded_at: float | None = None

    @staticmethod
    def run_all(connection: Connection, writes: list["Intend"]) -> list[Any]:
        """Return None or `ClaimLost` for each."""
        statement = _INTEND_SQLITE if connection.dialect.name == "sqlite" else _INTEND_POSTGRES
        rows = [
            (one.name, one.now, one.marker, one.outcome, one.recorded_at, *one.claim)
            for one in writes
        ]
        if execute_all(connection, statement, rows) == len(rows):
            return [None] * len(rows)
        return [None if one._is_written(connection) else ClaimLost(one.claim.key) for one in writes]

    def _is_written(self, connection: Connection) -> bool:
        """Return whether this very intent is in the journal, and the claim still holds.

        Executed once more, it could be refused for a cancellation that was committed in between, and
        yet stand there.
        """
        requests, effects = schema.requests.c, schema.effects.c
        found = (
            select(effects.intended_at)
            .join(schema.requests, requests.key == effects.request_key)
            .where(
                effects.request_key == self.claim.key,
                effects.name == self.name,
                requests.claim == self.claim.token,
                requests.state == State.RUNNING.value,
            )
            .with_for_update(read=True, of=schema.requests)
        )
        return connection.execute(found).scalar() == self.now


@record
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
        rows = [
            (one.outcome, one.request_id, one.now, one.claim.key, one.name, one.claim.token)
            for one in writes
        ]
        return _each(connection, _RECORD, [one.claim for one in writes], rows)


@record
class Finish:
    """Records the result and the final updates, and releases the request's locks."""

    claim: Claim
    result: str
    updates: str
    now: float

    @staticmethod
    def run_all(connection: Connection, writes: list["Finish"]) -> list[Any]:
        """Return None or `ClaimLost` for each."""
        rows = [(one.result, one.updates, one.now, *one.claim) for one in writes]
        outcomes: list[Any] = [None] * len(writes)
        if execute_all(connection, _FINISH, rows) != len(writes):
            outcomes = CheckClaim.run_all(connection, [CheckClaim(one.claim) for one in writes])
        release_locks(connection, [one.claim for one in writes])
        return outcomes


@record
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


@record
class Settle:
    """Records that the result was published."""

    key: str
    now: float

    @staticmethod
    def run_all(connection: Connection, writes: list["Settle"]) -> list[None]:
        """Settle all."""
        execute_all(connection, _SETTLE, [(one.now, one.key) for one in writes])
        return [None] * len(writes)


@record
class Release:
    """Releases a request for any worker; counts `more` attempts, and adds a resume token."""

    claim: Claim
    more: int
    now: float
    resume_token_hash: str | None = None
    keeps_locks: bool = True
    wait: Wait | None = None

    @staticmethod
    def run_all(connection: Connection, writes: list["Release"]) -> list[None]:
        """Release all but those that another worker has taken over."""
        rows = [(one.more, one.now, noted_wait(one.claim, one.wait), *one.claim) for one in writes]
        execute_all(connection, _RELEASE, rows)
        retries = [
            (one.wait.reason.value, one.now, one.now, one.wait.until, note, *one.claim)
            for one, (_, _, note, *_) in zip(writes, rows, strict=True)
            if one.wait is not None and one.wait.until is not None
        ]
        if retries:
            execute_all(connection, _NOTE_RETRY, retries)
        # RACE: only now that these rows are ours until the commit, so that nobody takes a request
        # over whose locks are then deleted.
        release_locks(connection, [one.claim for one in writes if not one.keeps_locks])
        hashes = [(one.claim.key, one.resume_token_hash) for one in writes]
        AddResumeToken.run_all(connection, [AddResumeToken(key, one) for key, one in hashes if one])
        return [None] * len(writes)


def leave(connection: Connection, owner: str) -> None:
    """Release all requests that an owner has, for a worker that ends."""
    execute_all(connection, _LEAVE, [(owner,)])


@record
class NoteWait:
    """Notes what a request waits for, as `noted_wait` writes it, while a worker has it."""

    claim: Claim
    wait: str | None

    @staticmethod
    def run_all(connection: Connection, writes: list["NoteWait"]) -> list[None]:
        """Note all but those of requests that have been released or taken over."""
        execute_all(connection, _NOTE_WAIT, [(one.wait, *one.claim) for one in writes])
        return [None] * len(writes)


def noted_wait(claim: Claim, wait: Wait | None) -> str | None:
    """Return the journal's text for what a request waits for.

    It names the claim: a worker of the version before leaves the text as it is when it takes the
    request over, and then it does not hold any more.
    """
    return to_json({"claim": claim.token, **wait.stored()}) if wait is not None else None


@record
class AddResumeToken:
    """Adds a resume token, which a copy of the request's message carries from now on."""

    key: str
    resume_token_hash: str

    @staticmethod
    def run_all(connection: Connection, writes: list["AddResumeToken"]) -> list[None]:
        """Add all."""
        if writes:
            rows = [{"key": one.key, "hashed": f"{one.resume_token_hash} "} for one in writes]
            connection.execute(_ADD_RESUME_TOKEN, rows)
        return [None] * len(writes)


def effects_of(connection: Connection, key: str) -> dict[str, EffectRecord]:
    """Return the effects of a request by name, in the order of their intents."""
    return {one.name: one for one in all_effects_of(connection, [key]).get(key, ())}


def all_effects_of(connection: Connection, keys: Sequence[str]) -> dict[str, list[EffectRecord]]:
    """Return the effects of some requests by key, in the order of their intents."""
    columns = schema.effects.c
    rows = connection.execute(
        select(schema.effects)
        .where(columns.request_key.in_(keys))
        .order_by(columns.intended_at, columns.name)
    )
    found: dict[str, list[EffectRecord]] = {}
    for row in rows:
        found.setdefault(row.request_key, []).append(
            EffectRecord(
                row.name,
                row.intended_at,
                json.loads(row.marker),
                json.loads(row.outcome) if row.outcome is not None else None,
                row.request_id,
                row.recorded_at,
            )
        )
    return found

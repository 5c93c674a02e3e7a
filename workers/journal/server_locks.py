"""Who is next at a server: requests line up in the order in which they came, whichever worker has
them.

A place is kept until it is left, by the one who has it or, when he is gone for good, by whoever
waits behind him. It counts only while the request is running, so a place that a crash left behind
its result holds up nobody.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, text

from workers.journal.owners import Owner
from workers.journal.records import Ahead, Claim, HolderState

_HAVE_PLACES = text("SELECT DISTINCT request_key FROM turns WHERE request_key IN :keys").bindparams(
    bindparam("keys", expanding=True)
)
#: SQLite has one writer at a time: nobody else reads the same maximum.
_NEXT_SQLITE = text("SELECT coalesce(max(ticket), 0) + 1 FROM turns")
_NEXT_POSTGRES = text("SELECT nextval('turn_tickets') FROM generate_series(1, :number)")
#: Of these requests, those that share a resource with others.
_CONTESTED = text(
    "SELECT DISTINCT mine.request_key FROM turns AS mine"
    " JOIN turns AS theirs ON theirs.resource = mine.resource AND theirs.ticket < mine.ticket"
    " WHERE mine.request_key IN :keys"
).bindparams(bindparam("keys", expanding=True))
_PLACE = text(
    "INSERT INTO turns (resource, request_key, ticket, since) VALUES (:resource, :key, :ticket, :now)"
    " ON CONFLICT (resource, request_key) DO NOTHING"
)
_PREDECESSOR = text(
    "SELECT theirs.request_key, requests.owner, requests.claim, requests.updated_at, requests.attempts"
    " FROM turns AS mine"
    " JOIN turns AS theirs ON theirs.resource = mine.resource AND theirs.ticket < mine.ticket"
    " JOIN requests ON requests.key = theirs.request_key AND requests.state = 'running'"
    " WHERE mine.request_key = :key ORDER BY theirs.ticket DESC LIMIT 1"
)
_LEAVE = text("DELETE FROM turns WHERE request_key = :key")
_FORFEIT = text(
    "DELETE FROM turns WHERE request_key = :key"
    " AND EXISTS (SELECT 1 FROM requests WHERE requests.key = :key AND requests.claim = :claim)"
)
#: Places of what is not running any more; a crash left them.
_SWEEP = text(
    "DELETE FROM turns WHERE since < :before"
    " AND NOT EXISTS (SELECT 1 FROM requests WHERE requests.key = turns.request_key AND requests.state = 'running')"
)


@dataclass(frozen=True, slots=True)
class AcquireLocks:
    """Take a place at each of these, unless the request has its places already; with none, only
    look ahead.
    """

    key: str
    owner: Owner
    resources: tuple[str, ...] = ()

    @staticmethod
    def run_all(connection: Connection, operations: list["AcquireLocks"]) -> list[Ahead | None]:
        """The one right ahead of each; None whose turn it is."""
        # All places first: those of one group came in this order.
        _take_places(connection, [one for one in operations if one.resources])
        keys = list({one.key for one in operations})
        contested = set(connection.execute(_CONTESTED, {"keys": keys}).scalars())
        return [one._look_ahead(connection) if one.key in contested else None for one in operations]

    def _places(self, ticket: int) -> Sequence[dict[str, Any]]:
        now = time.time()
        return [
            {"resource": one, "key": self.key, "ticket": ticket, "now": now}
            for one in sorted(self.resources)
        ]

    def _look_ahead(self, connection: Connection) -> Ahead | None:
        row = connection.execute(_PREDECESSOR, {"key": self.key}).first()
        if row is None:
            return None
        claim = Claim(row.request_key, row.claim)
        if row.owner is None:
            return Ahead(claim, HolderState.GONE, row.updated_at, row.attempts)
        if row.owner == self.owner.id:
            return Ahead(claim, HolderState.OURS)
        return Ahead(
            claim,
            HolderState.ELSEWHERE
            if self.owner.is_alive(row.owner, connection)
            else HolderState.GONE,
        )


def _take_places(connection: Connection, operations: list[AcquireLocks]) -> None:
    if not operations:
        return
    placed = set(
        connection.execute(_HAVE_PLACES, {"keys": [one.key for one in operations]}).scalars()
    )
    wanted = {one.key: one for one in operations if one.key not in placed}
    if not wanted:
        return
    # One ticket for all of a request's places: two requests for the same servers can never wait for
    # each other.
    tickets = _tickets(connection, len(wanted))
    rows = [
        row
        for one, ticket in zip(wanted.values(), tickets, strict=True)
        for row in one._places(ticket)
    ]
    connection.execute(_PLACE, rows)


def _tickets(connection: Connection, number: int) -> Sequence[int]:
    if connection.dialect.name == "sqlite":
        first: int = connection.execute(_NEXT_SQLITE).scalar_one()
        return range(first, first + number)
    return sorted(connection.execute(_NEXT_POSTGRES, {"number": number}).scalars())


@dataclass(frozen=True, slots=True)
class ReleaseLocks:
    """Give the places of a request up."""

    key: str

    @staticmethod
    def run_all(connection: Connection, operations: list["ReleaseLocks"]) -> list[None]:
        """Nothing; who has none stays without."""
        connection.execute(_LEAVE, [{"key": one.key} for one in operations])
        return [None] * len(operations)


@dataclass(frozen=True, slots=True)
class ExpireLock:
    """Take the places away from a request that nobody is at, unless somebody has taken it up
    meanwhile.
    """

    claim: Claim

    @staticmethod
    def run_all(connection: Connection, operations: list["ExpireLock"]) -> list[None]:
        """Nothing."""
        connection.execute(
            _FORFEIT, [{"key": one.claim.key, "claim": one.claim.token} for one in operations]
        )
        return [None] * len(operations)


def sweep(connection: Connection, before: float) -> None:
    """Remove places of ended requests that were taken before this time (Unix seconds)."""
    connection.execute(_SWEEP, {"before": before})

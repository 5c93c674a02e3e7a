"""Who is next at a server: requests line up in the order in which they came, whichever worker has them.

A place is kept until it is left, by the one who has it or, when he is gone for good, by whoever waits behind him. It
counts only while the request is running, so a place that a crash left behind its result holds up nobody.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from workers.journal.owners import Owner
from workers.journal.records import Ahead, Claim, Standing

_HAS_PLACE = text("SELECT 1 FROM turns WHERE request_key = :key LIMIT 1")
#: SQLite has one writer at a time: nobody else reads the same maximum.
_NEXT_SQLITE = text("SELECT coalesce(max(ticket), 0) + 1 FROM turns")
_NEXT_POSTGRES = text("SELECT nextval('turn_tickets')")
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
class LineUp:
    """Take a place at each of these, unless the request has its places already; with none, only look ahead."""

    key: str
    owner: Owner
    resources: tuple[str, ...] = ()

    @staticmethod
    def run_all(connection: Connection, operations: list["LineUp"]) -> list[Ahead | None]:
        """The one right ahead of each; None whose turn it is."""
        # All places first: those of one group came in this order.
        for one in operations:
            one._take_places(connection)
        return [one._look_ahead(connection) for one in operations]

    def _take_places(self, connection: Connection) -> None:
        if not self.resources or connection.execute(_HAS_PLACE, {"key": self.key}).first():
            return
        is_sqlite = connection.dialect.name == "sqlite"
        # One ticket for all: two requests for the same servers can never wait for each other.
        ticket = connection.execute(_NEXT_SQLITE if is_sqlite else _NEXT_POSTGRES).scalar_one()
        connection.execute(_PLACE, self._places(ticket))

    def _places(self, ticket: int) -> Sequence[dict[str, Any]]:
        now = time.time()
        return [{"resource": one, "key": self.key, "ticket": ticket, "now": now} for one in sorted(self.resources)]

    def _look_ahead(self, connection: Connection) -> Ahead | None:
        row = connection.execute(_PREDECESSOR, {"key": self.key}).first()
        if row is None:
            return None
        claim = Claim(row.request_key, row.claim)
        if row.owner is None:
            return Ahead(claim, Standing.GONE, row.updated_at, row.attempts)
        if row.owner == self.owner.id:
            return Ahead(claim, Standing.OURS)
        return Ahead(claim, Standing.ELSEWHERE if self.owner.lives(row.owner, connection) else Standing.GONE)


@dataclass(frozen=True, slots=True)
class Leave:
    """Give the places of a request up."""

    key: str

    @staticmethod
    def run_all(connection: Connection, operations: list["Leave"]) -> list[None]:
        """Nothing; who has none stays without."""
        connection.execute(_LEAVE, [{"key": one.key} for one in operations])
        return [None] * len(operations)


@dataclass(frozen=True, slots=True)
class Forfeit:
    """Take the places away from a request that nobody is at, unless somebody has taken it up meanwhile."""

    claim: Claim

    @staticmethod
    def run_all(connection: Connection, operations: list["Forfeit"]) -> list[None]:
        """Nothing."""
        connection.execute(_FORFEIT, [{"key": one.claim.key, "claim": one.claim.token} for one in operations])
        return [None] * len(operations)


def sweep(connection: Connection, before: float) -> None:
    """Remove places of ended requests that were taken before this time (Unix seconds)."""
    connection.execute(_SWEEP, {"before": before})

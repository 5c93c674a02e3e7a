"""Locks of servers: requests for the same server get them in the order in which they came,
whichever worker has them.

A request keeps its locks until its result is written or it releases them or, when its worker is
dead, until a request that waits for it expires them. A lock counts only while its request is
running, so one that a crash left after the result blocks nobody. The stored name of the table is
`turns`.
"""

import time
import zlib
from collections.abc import Sequence

from sqlalchemy import Connection, text

from handlers.effects.waits import Behind
from messages.record import record
from workers.journal.database import execute_all, select_all
from workers.journal.owners import Owner
from workers.journal.records import Ahead, Claim, HolderState

_HAVE_LOCKS = "SELECT DISTINCT request_key FROM turns WHERE request_key IN ({keys})"
#: SQLite has one writer at a time: no other one reads the same maximum.
_NEXT_SQLITE = text("SELECT coalesce(max(ticket), 0) + 1 FROM turns")
_NEXT_POSTGRES = text("SELECT nextval('turn_tickets') FROM generate_series(1, :number)")
#: First key of PostgreSQL's advisory locks under which tickets are given out, and how many buckets
#: of servers there are.
_TICKETS, _BUCKETS = 0x6563_7302, 64
#: RACE: until the commit no other worker inserts locks of these servers. Neither would see the
#: other's ticket, and two requests would hold one lock. In order: two of them must not wait for each
#: other.
_ALONE_POSTGRES = text(
    "SELECT pg_advisory_xact_lock(:kind, bucket)"
    " FROM (SELECT unnest(CAST(:buckets AS integer[])) AS bucket ORDER BY 1) AS ordered"
)
#: Of these requests, those with an older request at one of their servers.
_CONTESTED = (
    "SELECT DISTINCT mine.request_key FROM turns AS mine"
    " JOIN turns AS theirs ON theirs.resource = mine.resource AND theirs.ticket < mine.ticket"
    " WHERE mine.request_key IN ({keys})"
)
_INSERT = (
    "INSERT INTO turns (resource, request_key, ticket, since) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (resource, request_key) DO NOTHING"
)
_AHEAD = (
    " FROM turns AS mine"
    " JOIN turns AS theirs ON theirs.resource = mine.resource AND theirs.ticket < mine.ticket"
    " JOIN requests ON requests.key = theirs.request_key AND requests.state = 'running'"
    " WHERE mine.request_key = :key"
)
_PREDECESSOR = text(
    "SELECT theirs.request_key, requests.owner, requests.claim, requests.updated_at, requests.attempts"
    f"{_AHEAD} ORDER BY theirs.ticket DESC LIMIT 1"
)
_RIGHT_AHEAD = text(
    "SELECT mine.since, requests.key, requests.name, requests.operation, requests.tenant"
    f"{_AHEAD} ORDER BY theirs.ticket DESC LIMIT 1"
)
_COUNT_AHEAD = text(f"SELECT count(DISTINCT theirs.request_key){_AHEAD}")
_RELEASE = (
    "DELETE FROM turns WHERE request_key = ?"
    " AND EXISTS (SELECT 1 FROM requests WHERE requests.key = request_key AND requests.claim = ?)"
)
#: Locks that a crash left behind the result of their request.
_SWEEP = text(
    "DELETE FROM turns WHERE since < :before"
    " AND NOT EXISTS (SELECT 1 FROM requests WHERE requests.key = turns.request_key AND requests.state = 'running')"
)


@record
class AcquireLocks:
    """Acquires the locks of these servers, unless the request has its locks already; without any,
    only looks at who is ahead.
    """

    key: str
    owner: Owner
    resources: tuple[str, ...] = ()

    @staticmethod
    def run_all(connection: Connection, writes: list["AcquireLocks"]) -> list[Ahead | None]:
        """Return the request that each one waits for; None where it has all of its locks."""
        # All locks first: the requests of one group came in this order.
        _insert(connection, [one for one in writes if one.resources])
        contested = _select(connection, _CONTESTED, [one.key for one in writes])
        return [one._find_ahead(connection) if one.key in contested else None for one in writes]

    def _find_ahead(self, connection: Connection) -> Ahead | None:
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


def _insert(connection: Connection, writes: list[AcquireLocks]) -> None:
    if not writes:
        return
    if connection.dialect.name != "sqlite":
        names = {name for one in writes for name in one.resources}
        buckets = sorted({zlib.crc32(name.encode()) % _BUCKETS for name in names})
        connection.execute(_ALONE_POSTGRES, {"kind": _TICKETS, "buckets": buckets})
    known = _select(connection, _HAVE_LOCKS, [one.key for one in writes])
    wanted = {one.key: one for one in writes if one.key not in known}
    if not wanted:
        return
    # One ticket for all locks of a request: two requests for the same servers can never wait for
    # each other.
    if connection.dialect.name == "sqlite":
        first: int = connection.execute(_NEXT_SQLITE).scalar_one()
        tickets: Sequence[int] = range(first, first + len(wanted))
    else:
        tickets = sorted(connection.execute(_NEXT_POSTGRES, {"number": len(wanted)}).scalars())
    now = time.time()
    rows = [
        (resource, one.key, ticket, now)
        for one, ticket in zip(wanted.values(), tickets, strict=True)
        for resource in sorted(one.resources)
    ]
    execute_all(connection, _INSERT, rows)


def _select(connection: Connection, statement: str, keys: Sequence[str]) -> set[str]:
    places = ", ".join("?" * len(keys))
    return set(select_all(connection, statement.format(keys=places), tuple(keys)).scalars())


def release_locks(connection: Connection, claims: Sequence[Claim]) -> None:
    """Release the locks of requests, but of those that another worker has taken over."""
    if claims:
        execute_all(connection, _RELEASE, claims)


@record
class ExpireLock:
    """Releases the locks of a request that no worker has, unless one has resumed it meanwhile."""

    claim: Claim

    @staticmethod
    def run_all(connection: Connection, writes: list["ExpireLock"]) -> list[None]:
        """Expire all."""
        release_locks(connection, [one.claim for one in writes])
        return [None] * len(writes)


@record
class Place:
    """A request's place behind others, since a time (Unix seconds); `others` are ahead, too."""

    since: float
    behind: Behind
    others: int


def place_of(connection: Connection, key: str) -> Place | None:
    """Return the place of a request that waits for a lock; None where it waits for none."""
    row = connection.execute(_RIGHT_AHEAD, {"key": key}).first()
    if row is None:
        return None
    ahead = connection.execute(_COUNT_AHEAD, {"key": key}).scalar_one()
    return Place(row.since, Behind(*row[1:]), ahead - 1)


_TICKETS_OF_RUNNING = (
    "SELECT turns.resource, turns.request_key, turns.ticket, turns.since FROM turns"
    " JOIN requests ON requests.key = turns.request_key AND requests.state = 'running'"
    " ORDER BY turns.ticket"
)


def waiting_since(connection: Connection) -> dict[str, float]:
    """Return the keys of all requests that wait for a lock, each with since when."""
    holders, found = set[str](), dict[str, float]()
    for row in select_all(connection, _TICKETS_OF_RUNNING, ()):
        if row.resource in holders:
            found[row.request_key] = row.since
        holders.add(row.resource)
    return found


def sweep(connection: Connection, before: float) -> None:
    """Remove locks of ended requests that were acquired before this time (Unix seconds)."""
    connection.execute(_SWEEP, {"before": before})

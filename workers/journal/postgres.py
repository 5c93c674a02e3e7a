"""Connections to PostgreSQL with a limit for every wait.

A server that is stopped (SIGSTOP), or a network that drops every packet, reports no error: without
limits a write would hang as long as TCP does, and a lost session would keep its locks for hours.
"""

import math
import os
import re
import time
from collections.abc import Generator
from typing import Any

import psycopg
from sqlalchemy import Connection, text

from workers.journal.records import JournalTimes, SharedSessions

#: Settings of each session by which the server notices a client that is gone, and releases its
#: locks; milliseconds or a unit.
_SESSION = {
    "tcp_keepalives_idle": "10s",
    "tcp_keepalives_interval": "5s",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25s",
}
#: The same on the client's side.
_SOCKET = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}

#: A commit is a promise: whatever the database, its role or the URL says, it waits for the disk,
#: and for a synchronous standby's. `remote_apply` waits for more.
_SYNCHRONOUS = (
    "SELECT set_config('synchronous_commit', 'on', false)"
    " WHERE current_setting('synchronous_commit') <> 'remote_apply'"
)
#: A line of psycopg's about one of several hosts.
_FAILURE = re.compile(r"^- host: .*?, hostaddr: (?:None|'[^']*'): (.*)$", re.MULTILINE)
#: First of the two keys of the advisory locks by which a pooler is found out.
_PROBES = 0x6563_7303
#: Seconds after which a pooler is tried again: it may be set up anew while a gateway runs.
_TRIED = 60.0
#: A pooler that uses its sessions in turn must come to the one with the lock within so many tries.
_TRIES = 25


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that ends when a statement is not answered in time."""

    #: Seconds for a statement and its answer; None: no limit.
    answer_limit: float | None = JournalTimes().answer

    def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        """Wait like psycopg; past the limit close the connection and raise `OperationalError`."""
        limit = self.answer_limit
        return super().wait(
            gen if limit is None else self._within(gen, limit), *arguments, **options
        )

    def _within(self, gen: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
        """Limit a generator, which psycopg wakes several times a second even when nothing arrives."""
        limit = time.monotonic() + seconds
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > limit:
                    self.pgconn.finish()  # a later answer must not be taken for the next one's
                    raise psycopg.OperationalError(
                        f"the database did not answer in {seconds:.0f} s"
                    )
                wanted = gen.send(ready)
        except StopIteration as ended:
            return ended.value


class Connector:
    """Makes the connections of one engine, and finds out whether their sessions are their own;
    `SharedSessions` is raised where they are not.
    """

    def __init__(self, times: JournalTimes) -> None:
        self._times = times
        #: When a pooler was tried last, in monotonic time, by host and port: of several hosts one
        #: alone may have a pooler.
        self._tried_at: dict[tuple[str, int], float] = {}

    def connect(self, **arguments: Any) -> psycopg.Connection[Any]:
        """Connect with every limit; those of the socket may be given in the URL."""
        connection = self._connect(arguments)
        try:
            # ORDER: checked before anything is set. A pooler in transaction mode would hand the
            # session with our settings to another program.
            self._check(connection, arguments)
            connection.execute("; ".join(_settings(self._times)))
        except BaseException:
            connection.close()
            raise
        connection.autocommit = False
        connection.answer_limit = self._times.answer
        return connection

    def _connect(self, arguments: dict[str, Any]) -> BoundedConnection:
        socket = {**_SOCKET, "connect_timeout": math.ceil(self._times.connect)}
        # Autocommit, or the settings would end with the first transaction that fails.
        try:
            return BoundedConnection.connect(
                **{**socket, **arguments, "client_encoding": "UTF8"}, autocommit=True
            )
        except psycopg.OperationalError as error:
            # Its first line tells of one host alone, and only that line is shown.
            if of_hosts := _FAILURE.findall(str(error)):
                raise psycopg.OperationalError("; ".join(of_hosts)) from None
            raise

    def _check(self, connection: BoundedConnection, arguments: dict[str, Any]) -> None:
        """Hold a lock with the connection, and ask for it with another one: it must be refused, and
        the first must still have the same session.
        """
        session = _session_of(connection)
        if session == connection.info.backend_pid:
            return  # a pooler makes up the process id that it tells a client
        place, now = (connection.info.host, connection.info.port), time.monotonic()
        if now - self._tried_at.get(place, -_TRIED) < _TRIED:
            return
        lock = {"kind": _PROBES, "number": int.from_bytes(os.urandom(4), signed=True)}
        connection.execute("SELECT pg_advisory_lock(%(kind)s, %(number)s)", lock)
        with self._connect(arguments) as other:
            refused = [
                other.execute(
                    "SELECT NOT pg_try_advisory_xact_lock(%(kind)s, %(number)s)",
                    lock,
                    prepare=False,
                ).fetchone()
                for _ in range(_TRIES)
            ]
        if refused != [(True,)] * _TRIES or _session_of(connection) != session:
            raise SharedSessions
        connection.execute("SELECT pg_advisory_unlock(%(kind)s, %(number)s)", lock)
        self._tried_at[place] = now


def _session_of(connection: psycopg.Connection[Any]) -> Any:
    """Return the process id of the session that answers now."""
    (found,) = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone() or (None,)
    return found


def _settings(times: JournalTimes) -> list[str]:
    session = _SESSION | {
        "statement_timeout": f"{times.answer * 1000:.0f}ms",
        "lock_timeout": f"{times.row_lock * 1000:.0f}ms",
        "idle_in_transaction_session_timeout": f"{times.stands_still * 1000:.0f}ms",
    }
    return [*(f"SET {name} = '{value}'" for name, value in session.items()), _SYNCHRONOUS]


def lift_limits(connection: Connection, *, for_session: bool = False) -> None:
    """Remove the limits for this transaction, or for all of the session: a migration, an export, a
    vacuum may take long.
    """
    driver = connection.connection.driver_connection
    assert isinstance(driver, BoundedConnection)
    driver.answer_limit = None
    scope = "SESSION" if for_session else "LOCAL"
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(text(f"SET {scope} {name} = 0"))
    if for_session:
        connection.commit()

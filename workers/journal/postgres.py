"""Connections to PostgreSQL with a limit for every wait.

A server that is stopped (SIGSTOP), or a network that drops every packet, reports no error: without
limits a write would hang as long as TCP does, and a lost session would keep its locks for hours.
"""

import math
import time
from collections.abc import Generator
from typing import Any

import psycopg
from sqlalchemy import Connection, text

from workers.journal.records import JournalTimes

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


def connect(times: JournalTimes, **arguments: Any) -> psycopg.Connection[Any]:
    """Connect with every limit; those of the socket may be given in the URL."""
    socket = {**_SOCKET, "connect_timeout": math.ceil(times.connect)}
    connection = BoundedConnection.connect(**{**socket, **arguments, "client_encoding": "UTF8"})
    session = _SESSION | {
        "statement_timeout": f"{times.answer * 1000:.0f}ms",
        "lock_timeout": f"{times.row_lock * 1000:.0f}ms",
        "idle_in_transaction_session_timeout": f"{times.stands_still * 1000:.0f}ms",
    }
    connection.autocommit = True  # or the settings would end with the first transaction that fails
    connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in session.items()))
    connection.autocommit = False
    connection.answer_limit = times.answer
    return connection


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

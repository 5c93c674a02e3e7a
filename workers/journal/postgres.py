"""A connection to PostgreSQL on which nothing waits for ever.

A server that is stopped, or a network that swallows everything, tells nothing: without limits of
our own a write would hang as long as TCP does, and a session that we lost would keep its locks for
hours.
"""

import time
from collections.abc import Generator
from typing import Any

import psycopg
from sqlalchemy import Connection, text

#: Seconds for a statement and its answer, and for another's lock on a row.
ANSWER, LOCK = 30.0, 10
#: What the server keeps to on our sessions: it ends what waits, and lets go of our locks when we
#: are gone unnoticed.
_SESSION = {
    "statement_timeout": f"{ANSWER:.0f}s",
    "lock_timeout": f"{LOCK}s",
    "idle_in_transaction_session_timeout": f"{ANSWER:.0f}s",
    "tcp_keepalives_idle": "10s",
    "tcp_keepalives_interval": "5s",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25s",
}
#: The same from our side.
_SOCKET = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that ends when a statement is not answered in time."""

    #: Whether it may take as long as it takes.
    is_unbounded = False

    def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        """As psycopg's, but `OperationalError` once the time is up, the connection closed."""
        return super().wait(
            gen if self.is_unbounded else self._within(gen, ANSWER), *arguments, **options
        )

    def _within(self, gen: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
        """The same generator; psycopg wakes it several times a second even when nothing comes."""
        limit = time.monotonic() + seconds
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > limit:
                    self.pgconn.finish()  # what comes later is nobody's answer
                    raise psycopg.OperationalError(
                        f"the database did not answer in {seconds:.0f} s"
                    )
                wanted = gen.send(ready)
        except StopIteration as ended:
            return ended.value


def connect(**arguments: Any) -> psycopg.Connection[Any]:
    """Connect with every limit; those for the socket that the URL gives win."""
    connection = BoundedConnection.connect(**{**_SOCKET, **arguments, "client_encoding": "UTF8"})
    connection.autocommit = True  # or the settings would go with the first transaction that fails
    connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in _SESSION.items()))
    connection.autocommit = False
    return connection


def wait_as_long_as_it_takes(connection: Connection) -> None:
    """Lift the limits for this transaction, whose work has no measure."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, BoundedConnection)
    driver.is_unbounded = True
    for name in ("statement_timeout", "lock_timeout"):
        connection.execute(text(f"SET LOCAL {name} = 0"))

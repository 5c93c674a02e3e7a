"""Owners of requests: each worker process holds a lock that ends with the process, so that others
know whether it is alive without looking at a clock.
"""

import contextlib
import fcntl
import os
import zlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import IO, Protocol
from uuid import uuid4

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from messages.record import record
from workers.journal.database import is_sqlite, journal_error, tells_shared_sessions
from workers.journal.records import SharedSessions

#: First of the two keys of PostgreSQL's advisory locks; the second is made of the owner's id.
_LOCKS = 0x6563_7301
#: Tries of another session to acquire the lock, each time that it is checked. A pooler that uses two
#: sessions in turn would answer every other one with the same session.
_TRIES = 3

#: Returns a connection other than the owner's own.
Other = Callable[[], Connection]


class Owner(Protocol):
    """A worker process as an owner of requests."""

    id: str

    def is_alive(self, owner: str, connection: Connection) -> bool:
        """Return whether another owner holds its lock."""

    def keep(self, other: Other) -> None:
        """Acquire the lock again if it was lost; called every few seconds. Raises `SharedSessions`
        where the lock keeps nobody out.
        """

    def close(self) -> None:
        """Release the lock."""


def new_owner(engine: Engine) -> Owner:
    """Return an owner for this kind of database that holds its lock."""
    if is_sqlite(engine):
        assert engine.url.database is not None
        return FileOwner(Path(f"{engine.url.database}.owners"))
    return SessionOwner(engine)


def check_owner(engine: Engine) -> None:
    """Raise `SharedSessions` where an owner's lock keeps nobody out, `JournalError` where the
    database cannot be used. Makes no file.
    """
    if is_sqlite(engine):
        return
    try:
        new_owner(engine).close()
    except (SQLAlchemyError, OSError) as error:
        raise journal_error("the journal cannot be opened", error) from None


def is_alive(engine: Engine, owner: str) -> bool:
    """Return whether an owner holds its lock; for processes that own nothing."""
    if is_sqlite(engine):
        try:
            with (Path(f"{engine.url.database}.owners") / owner).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False
    with engine.connect() as connection:
        return _holds_lock(owner, connection)


class FileOwner:
    """A locked file beside the database; the kernel unlocks it however the process ends."""

    def __init__(self, folder: Path) -> None:
        self.id = uuid4().hex
        self._folder = folder
        self._file = self._take()

    def _take(self) -> IO[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True)
        file = (self._folder / self.id).open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def is_alive(self, owner: str, _connection: Connection) -> bool:
        path = self._folder / owner
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def keep(self, _other: Other) -> None:
        if not (self._folder / self.id).exists():
            self._file.close()
            self._file = self._take()

    def close(self) -> None:
        # Removed before it is unlocked: nobody may find it unlocked and remove another's.
        (self._folder / self.id).unlink(missing_ok=True)
        self._file.close()


class SessionOwner:
    """An advisory lock of PostgreSQL, held by a session of its own.

    If that session is lost, others may take this worker's requests over; each take-over changes the
    claim, which every write checks. So acquiring the lock again is all that is needed.
    """

    def __init__(self, engine: Engine) -> None:
        self.id = f"{os.getpid()}-{uuid4().hex}"
        self._engine = engine
        self._session: Connection | None = None
        #: The server and the process id of that session.
        self._process: _Process | None = None
        self._holds = False
        with engine.connect() as other:
            self.keep(lambda: other)
            self.keep(lambda: other)  # checks that it keeps others out

    def is_alive(self, owner: str, connection: Connection) -> bool:
        return _holds_lock(owner, connection)

    def keep(self, other: Other) -> None:
        is_refused = not self._holds or all(self._keeps_out(other()) for _ in range(_TRIES))
        # ORDER: asked after the others. If the session was lost meanwhile, the lock was free.
        found = self._asked()
        if found is None:
            self._drop()
        elif not is_refused or found != self._process:
            # After a failover this session may be left with the old primary, where the lock keeps
            # nobody out of the new one.
            if found.server == _process_of(other()).server:
                raise SharedSessions
            self._drop()
        if self._session is None:
            self._session, self._holds = self._engine.connect(), False
            self._process = self._asked()
        if not self._holds:
            # Without waiting: the holder is this worker's own lost session, until the server has
            # noticed that it is lost.
            self._holds = self._take(self._session)

    def _keeps_out(self, other: Connection) -> bool:
        with other.begin():
            return _holds_lock(self.id, other)

    def _asked(self) -> "_Process | None":
        """Return the process that answers in the session, None where it is lost."""
        if self._session is None:
            return None
        try:
            return _process_of(self._session)
        except SQLAlchemyError as error:
            if tells_shared_sessions(error):
                raise SharedSessions from None
            return None

    def _take(self, session: Connection) -> bool:
        taken = session.execute(
            text("SELECT pg_try_advisory_lock(:kind, :owner)"),
            {"kind": _LOCKS, "owner": _number(self.id)},
        ).scalar()
        session.commit()
        return bool(taken)

    def close(self) -> None:
        # A session that is only dropped holds its lock until the server has noticed.
        with contextlib.suppress(SQLAlchemyError):
            if self._session is not None:
                self._session.execute(
                    text("SELECT pg_advisory_unlock(:kind, :owner)"),
                    {"kind": _LOCKS, "owner": _number(self.id)},
                )
        self._drop()

    def _drop(self) -> None:
        if self._session is not None:
            self._session.invalidate()
            self._session.close()
            self._session = None


@record
class _Process:
    """A process of PostgreSQL; two servers have not started in the same microsecond."""

    server: datetime
    id: int


def _process_of(connection: Connection) -> _Process:
    with connection.begin():
        row = connection.execute(text("SELECT pg_postmaster_start_time(), pg_backend_pid()")).one()
    return _Process(*row)


def _holds_lock(owner: str, connection: Connection) -> bool:
    taken = connection.execute(
        text("SELECT pg_try_advisory_xact_lock(:kind, :owner)"),
        {"kind": _LOCKS, "owner": _number(owner)},
    ).scalar()
    return not taken


def _number(owner: str) -> int:
    """Return a signed 32-bit number, as advisory locks need it."""
    return zlib.crc32(owner.encode()) - 2**31

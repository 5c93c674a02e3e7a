"""Connections to an SQLite file: in WAL mode, every commit synced, and always to the same file."""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

#: Seconds that SQLite waits for a lock before the group of writes is tried again.
_PATIENCE = 5.0
#: Execution option of an engine that only reads.
READS = "ecs_reads"


def sqlite_engine(url: URL) -> Engine:
    """Return an engine for the URL's file, which is created where it is missing, but only once."""
    engine = create_engine(
        url, poolclass=NullPool, connect_args={"timeout": _PATIENCE, "check_same_thread": False}
    )
    file = _File(Path(url.database or ""))

    def connected(connection: Any, _: Any) -> None:
        # Transactions are begun explicitly: the driver would begin them late, and two writers
        # deadlock.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        file.note()

    def begins(connection: Connection) -> None:
        file.check()
        # A reader takes no lock: in WAL mode it sees the last commit, and waits for nobody.
        reads = connection.get_execution_options().get(READS)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    event.listen(engine, "do_connect", lambda *_: file.prepare())
    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begins)
    return engine


class _File:
    """The file that was opened first, identified by its inode.

    SQLite would go on with a deleted file, which is lost with the process, and would create an
    empty one at the next connection.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_uri = str(path).startswith("file:")
        self._known: tuple[int, int] | None = None

    def note(self) -> None:
        """Note the file's identity at the first connection. A URI is not checked."""
        if self._known is None and self._path.exists():
            self._known = self._identity()

    def prepare(self) -> None:
        """Check the file before a connection, or create one that nobody else can read: of mode 0600
        whatever the umask is, in a folder of mode 0700.

        SQLite would make it as readable as the umask allows, and gives -wal and -shm the mode of
        the file.
        """
        self.check()
        if self._known is not None or self._is_uri or self._path.exists():
            return
        folder = self._path.parent
        if not folder.exists():
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                folder.chmod(0o700)
        with suppress(FileExistsError):  # another process was quicker
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            os.fchmod(descriptor, 0o600)
            os.close(descriptor)

    def check(self) -> None:
        """Raise `OSError` unless it is still the same file."""
        if self._known is not None and self._identity() != self._known:
            raise OSError(
                "another file is where the journal was: stop the worker, or put the journal back"
            )

    def _identity(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            raise OSError("the journal's file is gone: put it back") from None
        return found.st_dev, found.st_ino


def exposed_files(path: Path) -> list[str]:
    """Return a line for each of the journal's files, and its folder, that others may use."""
    found = []
    for one in (path.absolute().parent, path, *(Path(f"{path}{end}") for end in ("-wal", "-shm"))):
        try:
            mode = one.stat().st_mode
        except OSError:
            continue
        if mode & 0o077:
            found.append(f"{one} has the mode {stat.filemode(mode)}: others may use it")
    return found

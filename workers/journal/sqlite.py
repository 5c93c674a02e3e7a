"""Connections to an SQLite file: in WAL mode, every commit on the disk, and always to the same
file.
"""

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
#: Attempt option of an engine that reads.
READS = "ecs_reads"


def sqlite_engine(url: URL) -> Engine:
    """An engine for the file that the URL names, which is made where it is missing, but only once."""
    engine = create_engine(
        url, poolclass=NullPool, connect_args={"timeout": _PATIENCE, "check_same_thread": False}
    )
    file = _File(Path(url.database or ""))

    def connected(connection: Any, _: Any) -> None:
        _prepare(connection)
        file.note()

    def begins(connection: Connection) -> None:
        file.check()
        _begin(connection)

    event.listen(engine, "do_connect", lambda *_: file.prepare())
    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begins)
    return engine


class _File:
    """The file that was opened first, known by its inode.

    SQLite would go on with one that was deleted, whose memory ends with the process, and would make
    a new one, which remembers nothing, when it opens it again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_uri = str(path).startswith("file:")
        self._known: tuple[int, int] | None = None

    def note(self) -> None:
        """From now on it is this one. A name that is no path (a URI) is not looked after."""
        if self._known is None and self._path.exists():
            self._known = self._identity()

    def prepare(self) -> None:
        """Before a connection: the one that is known, or, at first, a file that nobody else can
        read.

        SQLite would make it readable for all whom the umask allows, and gives -wal and -shm the
        mode of the file.
        """
        self.check()
        if self._known is None and not self._is_uri and not self._path.exists():
            _make_private(self._path)

    def check(self) -> None:
        """`OSError` unless it is the one."""
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


def _make_private(path: Path) -> None:
    """An empty file of mode 0600 whatever the umask is, and its folder, unless it is there, of mode
    0700.
    """
    if not path.parent.exists():
        with suppress(FileExistsError):
            path.parent.mkdir(mode=0o700)
            path.parent.chmod(0o700)
    with suppress(FileExistsError):  # another process was quicker
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)


def exposed_files(path: Path) -> list[str]:
    """The journal's files and its folder that others than their owner may read, change or enter; a
    line each.
    """
    found = []
    for one in (path.absolute().parent, path, *(Path(f"{path}{end}") for end in ("-wal", "-shm"))):
        try:
            mode = one.stat().st_mode
        except OSError:
            continue
        if mode & 0o077:
            found.append(f"{one} has the mode {stat.filemode(mode)}: others may use it")
    return found


def _prepare(connection: Any) -> None:
    # Transactions are begun by us: the driver would begin them late, and deadlock two writers.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # Whoever only reads takes no lock: in WAL mode he sees the last commit, and waits for nobody.
    connection.exec_driver_sql(
        "BEGIN" if connection.get_execution_options().get(READS) else "BEGIN IMMEDIATE"
    )

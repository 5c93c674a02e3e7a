"""The writing thread: all writes that wait go into one transaction, with one commit and one sync."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError, StatementError

from handlers.effects.backoff import delays
from workers.journal.database import tells_shared_sessions, tls_advice
from workers.journal.records import JournalError, JournalTimes, JournalUnfit, SharedSessions

log = structlog.get_logger()

#: Writes of one transaction.
MAX_GROUP = 500


class Write(Protocol):
    """A kind of write. All writes of a kind in a transaction are executed together."""

    @staticmethod
    def run_all(connection: Connection, writes: list[Any]) -> list[Any]:
        """Return the outcomes in order; an exception as an outcome fails that write alone.

        May be run again after a commit whose outcome is unknown.
        """


@dataclass(slots=True)
class _Job:
    operation: Write
    future: "asyncio.Future[Any]"
    outcome: Any = field(default=None)


class Writer:
    """Executes writes in groups, in their order, until it is closed. Futures wait while the database
    cannot be written. `keep` is called every few seconds, with what returns the connection;
    `on_unfit` once, in the loop, where it finds the database unfit.
    """

    def __init__(
        self,
        engine: Engine,
        keep: Callable[[Callable[[], Connection]], None],
        times: JournalTimes,
        on_unfit: Callable[[JournalUnfit], None] = lambda _: None,
    ) -> None:
        self._times = times
        self._engine = engine
        self._keep = keep
        self._on_unfit = on_unfit
        self._is_unfit = False
        self._jobs: deque[_Job] = deque()
        self._wake = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._closing = threading.Event()
        #: Why the last transaction failed; None where it succeeded.
        self.trouble: str | None = None
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def submit(self, operation: Write, *, is_urgent: bool = True) -> "asyncio.Future[Any]":
        """Return the write's outcome, once it is committed. One that is not urgent is written with
        the next group, or after a moment.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._jobs.append(_Job(operation, future))
        if is_urgent:
            if not self._wake.is_set():
                self._wake.set()
        elif self._timer is None:
            # In no request's context: others' writes wait for it, too.
            self._timer = self._loop.call_later(
                self._times.gather, self._write_rest, context=Context()
            )
        return future

    def _write_rest(self) -> None:
        self._timer = None
        self._wake.set()

    async def close(self) -> bool:
        """End after what was submitted; what cannot be written now is given up. Returns False where
        the database hangs.
        """
        self._closing.set()
        self._wake.set()
        await asyncio.to_thread(self._thread.join, self._times.last_writes)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while self._jobs or not self._closing.is_set():
            self._wake.wait(self._times.keep_owner)
            # ORDER: cleared before the jobs are taken, or one that comes in between would wait.
            self._wake.clear()
            jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), MAX_GROUP))]
            if self._jobs:
                self._wake.set()
            if jobs:
                self._write(jobs)
            self._keep_owner()
        self._disconnect()

    def _keep_owner(self) -> None:
        if time.monotonic() >= self._keep_at and not self._is_unfit:
            self._keep_at = time.monotonic() + self._times.keep_owner
            try:
                self._keep(self._connected)
            except (SQLAlchemyError, OSError, JournalUnfit) as error:
                self._disconnect()
                self._failed(error)
            else:
                # All writes before have succeeded: it was the owner's lock that failed.
                self._recovered()

    _keep_at = 0.0

    def _write(self, jobs: list[_Job]) -> None:
        for delay in delays(self._times.first_delay, self._times.longest_delay):
            try:
                self._transaction(jobs)
            except Exception as error:
                self._disconnect()
                if not _is_transient(error):
                    self._single_out(jobs, error)
                    return
                self._failed(error)
                if self._closing.is_set():
                    return
                time.sleep(delay)
            else:
                self._recovered()
                break
        self._loop.call_soon_threadsafe(_resolve, jobs)

    def _single_out(self, jobs: list[_Job], error: Exception) -> None:
        """Write each alone: one can never be written, and must not keep the others from the disk."""
        if len(jobs) > 1:
            for job in jobs:
                self._write([job])
            return
        log.error(
            "journal.unwritable", operation=type(jobs[0].operation).__name__, why=_reason(error)
        )
        jobs[0].outcome = JournalError(f"it cannot be written: {_reason(error)}")
        self._loop.call_soon_threadsafe(_resolve, jobs)

    def _transaction(self, jobs: list[_Job]) -> None:
        connection = self._connected()
        kinds: dict[type, list[_Job]] = {}
        for job in jobs:
            kinds.setdefault(type(job.operation), []).append(job)
        with connection.begin():
            for kind, members in kinds.items():
                operations = [job.operation for job in members]
                outcomes = kind.run_all(connection, operations)  # type: ignore[attr-defined]
                for job, outcome in zip(members, outcomes, strict=True):
                    job.outcome = outcome

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except (SQLAlchemyError, OSError):
                connection.invalidate()

    def _recovered(self) -> None:
        if self.trouble is not None:
            log.info("journal.recovered")
            self.trouble = None

    def _failed(self, error: Exception) -> None:
        if tells_shared_sessions(error):
            error = SharedSessions()
        if isinstance(error, JournalUnfit) and not self._is_unfit:
            # What was submitted is written nevertheless: each write checks its claim.
            self._is_unfit = True
            self._loop.call_soon_threadsafe(self._on_unfit, error)
        reason = _reason(error)
        if reason != self.trouble:
            log.error("journal.write_failed", why=reason)
        self.trouble = reason


def _is_transient(error: Exception) -> bool:
    """Return whether a retry may succeed: the database is away, full or locked, and the values are
    not at fault.
    """
    if isinstance(error, DBAPIError):
        return not isinstance(error, (DataError, IntegrityError))
    return isinstance(error, (SQLAlchemyError, OSError)) and not isinstance(error, StatementError)


def _reason(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    lines = str(cause).strip().splitlines() or [type(error).__name__]
    # SQLite's text says little: an I/O error may be a full disk.
    name = getattr(cause, "sqlite_errorname", None)
    said = f"{lines[0][:300]} ({name})" if name else lines[0][:300]
    return "; ".join(filter(None, (said, tls_advice(error))))


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if isinstance(job.outcome, Exception):
            job.future.set_exception(job.outcome)
        else:
            job.future.set_result(job.outcome)

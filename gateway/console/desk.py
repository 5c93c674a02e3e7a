"""What the console reads and does: the functions that the command line uses, off the event loop.

Reads of journal and broker block. They have threads of their own, so that a database that does not
answer keeps no request of the API waiting.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gateway.console.visit import Problem
from messages.texts import without_urls
from workers.admin.audit import operations
from workers.admin.pauses import current
from workers.admin.status import Sources, Status, StatusReader
from workers.journal import History, JournalError, Operations, Pause, RequestFilter, RequestRecord
from workers.settings import Settings

T = TypeVar("T")

#: Reads at once; seconds for which a status is shown to all who ask.
_THREADS, _FRESH = 6, 1.5


class Desk:
    """The journal and the broker as the console uses them. `settings` are the workers'."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="console")
        self._reader = StatusReader(Sources.of(settings))
        self._reading = asyncio.Lock()
        self._status: Status | None = None
        self._history: History | None = None
        self._operations: Operations | None = None

    async def close(self) -> None:
        """Close all connections; what is being read is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._reader.close)
        if self._history is not None:
            await asyncio.to_thread(self._history.close)
        if self._operations is not None:
            await asyncio.to_thread(self._operations.close)

    async def status(self) -> Status:
        """Return the status, read once for all who ask at the same time."""
        async with self._reading:
            known = self._status
            if known is None or time.time() - known.at > _FRESH:
                known = self._status = await self._reader.read()
            return known

    async def requests(self, wanted: RequestFilter) -> list[RequestRecord]:
        """Return requests, newest first, with what each waits for."""

        def read() -> list[RequestRecord]:
            history = self._opened()
            return history.with_waits(history.requests(wanted))

        return await self.blocking(read)

    async def waiting(self, most: int) -> tuple[list[RequestRecord], int]:
        """Return the oldest requests that have no result, with what each waits for, and the number
        of the others.
        """

        def read() -> tuple[list[RequestRecord], int]:
            history = self._opened()
            unfinished = sorted(history.unfinished_requests(), key=lambda one: one.received_at)
            keys = [one.key for one in unfinished[:most]]
            found = history.with_keys(keys)
            return [found[key] for key in keys if key in found], len(unfinished) - len(keys)

        return await self.blocking(read)

    async def pauses(self) -> list[Pause]:
        """Return the pauses that are in force, oldest first."""
        return await self.operate(current)

    async def operate(self, act: Callable[[Operations], T]) -> T:
        """Run what operators do with the journal. Raises `Problem` where it cannot be used."""

        def run() -> T:
            if self._operations is None:
                self._operations = operations(self.settings)
            return act(self._operations)

        return await self.blocking(run)

    async def blocking(self, read: Callable[[], T]) -> T:
        """Run what blocks. Raises `Problem` where the journal cannot be used."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, read)
        except JournalError as error:
            raise Problem(
                503, "The journal cannot be used now.", without_urls(str(error))
            ) from None

    def _opened(self) -> History:
        if self._history is None:
            self._history = History(self.settings.journal_url.get_secret_value()).open()
        return self._history

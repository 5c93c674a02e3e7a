"""Reads and actions of the console: the functions that the command line uses, off the event loop.

Reads of journal and broker block. They have threads of their own, so that a database that does not
answer keeps no request of the API waiting.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from gateway.console.pages import Problem
from messages.texts import without_urls
from workers.admin.audit import operations
from workers.admin.find import Finder, Found
from workers.admin.pauses import current
from workers.admin.status import Sources, Status, StatusReader
from workers.amqp.topology import NotDeclared
from workers.dead_letters import engine
from workers.dead_letters.reader import Unreachable
from workers.journal import (
    History,
    Journal,
    JournalError,
    Operations,
    Pause,
    RequestFilter,
    RequestRecord,
)
from workers.settings import ConfigurationError, Settings

T = TypeVar("T")

#: Reads at once; seconds for which a status is shown to all who ask.
_THREADS, _FRESH = 6, 1.5


class Backend:
    """The journal and the broker as the console uses them. `settings` are the workers'."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="console")
        self._reader = StatusReader(Sources.of(settings))
        self._reading = asyncio.Lock()
        self._finder = Finder(Sources.of(settings))
        self._finding = asyncio.Lock()
        self._status: Status | None = None
        self._history: History | None = None
        self._operations: Operations | None = None

    async def close(self) -> None:
        """Close all connections; what is being read is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._reader.close)
        await asyncio.to_thread(self._finder.close)
        if self._history is not None:
            await asyncio.to_thread(self._history.close)
        if self._operations is not None:
            await asyncio.to_thread(self._operations.close)

    async def status(self) -> Status:
        """Return the status, read once for all who ask at the same time."""
        async with self._reading:
            known = self._status
            if known is None or time.time() - known.at > _FRESH:
                # In a thread: up to a thousand dead letters are parsed for it.
                known = self._status = await self.reading(self._reader.read)
            return known

    async def find(self, word: str) -> Found:
        """Return all that is known by a word, wherever it is."""
        async with self._finding:  # those who wait take no thread
            return await self.reading(lambda: self._finder.find(word))

    async def requests(self, wanted: RequestFilter) -> list[RequestRecord]:
        """Return requests, newest first, with what each waits for."""
        return await self.history(lambda journal: journal.with_waits(journal.requests(wanted)))

    async def waiting(self, most: int) -> tuple[list[RequestRecord], int]:
        """Return the oldest requests that have no result, with what each waits for, and the number
        of the others.
        """

        def read(history: History) -> tuple[list[RequestRecord], int]:
            unfinished = sorted(history.unfinished_requests(), key=lambda one: one.received_at)
            keys = [one.key for one in unfinished[:most]]
            found = history.with_keys(keys)
            return [found[key] for key in keys if key in found], len(unfinished) - len(keys)

        return await self.history(read)

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

    async def history(self, read: Callable[[History], T]) -> T:
        """Read the journal. Raises `Problem` where it cannot be read."""
        return await self.blocking(lambda: read(self._opened()))

    async def reading(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run what reads messages, in a loop of its own: thousands are parsed there. Raises
        `Problem`.
        """
        return await self.blocking(lambda: asyncio.run(work()))

    async def working(self, work: Callable[[History], Coroutine[Any, Any, T]]) -> T:
        """Run what reads messages and the journal. Raises `Problem`."""
        return await self.blocking(lambda: asyncio.run(work(self._opened())))

    async def accessing(self, work: Callable[[engine.Access], Coroutine[Any, Any, T]]) -> T:
        """Run what changes something about dead letters. Raises `Problem`."""

        async def run() -> T:
            async with engine_access(self.settings) as access:
                return await work(access)

        return await self.reading(run)

    async def blocking(self, read: Callable[[], T]) -> T:
        """Run what blocks. Raises `Problem` where the journal cannot be used."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, read)
        except JournalError as error:
            raise Problem(
                503, "The journal cannot be used now.", without_urls(str(error))
            ) from None
        except (Unreachable, NotDeclared) as error:
            raise Problem(503, "The broker cannot be used now.", without_urls(str(error))) from None
        except engine.BatchRefused as error:
            raise Problem(409, "It was refused.", str(error)) from None
        except ConfigurationError as error:
            raise Problem(503, "The configuration is wrong.", str(error)) from None

    def _opened(self) -> History:
        if self._history is None:
            self._history = History(self.settings.journal_url.get_secret_value()).open()
        return self._history


@asynccontextmanager
async def engine_access(settings: Settings) -> AsyncIterator[engine.Access]:
    """Open the journal for the engine of dead letters, in the loop that runs."""
    url = settings.journal_url.get_secret_value()
    journal = Journal(url)
    await journal.open()
    try:
        history = History(url).open()
        try:
            yield engine.Access(settings, journal, history)
        finally:
            history.close()
    finally:
        await journal.close()

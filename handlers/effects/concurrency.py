"""Concurrent work: waiting for all of several, sharing one answer, threads that may hang."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from cachetools import TLRUCache

from handlers.openstack.errors import CloudRefusal
from messages.errors import OutcomeUnknown, Refused, Transient

T = TypeVar("T")

#: Errors that a later try cannot mend.
_FINAL = (Refused, CloudRefusal, OutcomeUnknown)


async def wait_for_all(
    awaitables: Iterable[Awaitable[T]], *, passing_first: bool = False
) -> list[T]:
    """Run all at once, each to its end, and return their results in order, or raise the first
    error.

    The error is raised as it is: a group would hide its kind, which decides what is done about it.
    None is cancelled for another's sake: each may have sent a call, and knows best what became of
    it. `passing_first`: an error that a later try may mend is raised before a final one, because a
    request that ends finally follows none of the others to their ends.
    """
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    errors = [one for one in results if isinstance(one, BaseException)]
    if errors:
        raise min(errors, key=lambda error: passing_first and isinstance(error, _FINAL))
    return [one for one in results if not isinstance(one, BaseException)]


def failed(future: "asyncio.Future[Any]") -> bool:
    """True for a future that ended without a result. Marks its exception as seen, of which asyncio
    complains where nobody waits any more.
    """
    return future.done() and (future.cancelled() or future.exception() is not None)


def _succeeded(future: "asyncio.Future[Any]") -> bool:
    return future.done() and not failed(future)


@dataclass(slots=True)
class _Answer:
    future: "asyncio.Future[Any]"
    ttl: float
    #: How many wait for it.
    waiting: int = 0


class SingleFlightCache:
    """Answers by key, each asked for once at a time: whoever asks while an answer is on its way
    waits for that one.

    An answer counts for `ttl` seconds from the question; an error is not kept. Past `maxsize`
    answers, the one used longest ago is forgotten. Who asks first goes on first: requests of one
    server keep their order while a log-in that all of them need is under way.
    """

    def __init__(self, ttl: float, maxsize: int = 4096) -> None:
        self._ttl = ttl
        self._answers: TLRUCache[Hashable, _Answer] = TLRUCache(
            maxsize, ttu=lambda _key, answer, now: now + answer.ttl, timer=time.monotonic
        )

    async def get(
        self, key: Hashable, ask: Callable[[], Awaitable[T]], ttl: float | None = None
    ) -> T:
        """Return the answer, asked for where none is fresh. Raises what `ask` raises."""
        try:
            answer = self._answers[key]  # `get` would look it up twice
        except KeyError:
            answer = None
        if answer is not None and not answer.waiting and _succeeded(answer.future):
            known: T = answer.future.result()
            return known
        if answer is None or failed(answer.future):
            future = asyncio.ensure_future(ask())
            future.add_done_callback(failed)
            answer = _Answer(future, self._ttl if ttl is None else ttl)
            self._answers[key] = answer
        # RACE: those who have waited go on one turn of the loop after the answer is there.
        while answer.future.done() and answer.waiting:  # noqa: ASYNC110 - one turn
            await asyncio.sleep(0)
        answer.waiting += 1
        try:
            # The question goes on for the others when one who waits is cancelled.
            result: T = await asyncio.shield(answer.future)
        finally:
            answer.waiting -= 1
        return result

    def forget(self, key: Hashable, value: object) -> None:
        """Forget an answer, unless it is another one by now."""
        answer = self._answers.get(key)
        if answer is not None and _succeeded(answer.future) and answer.future.result() is value:
            del self._answers[key]

    def clear(self) -> None:
        """Forget every answer."""
        self._answers.clear()


class ThreadPool:
    """A bounded number of places for calls: of those that block, in threads, and of those on the
    loop.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        #: A thread for each place.
        self.threads = ThreadPoolExecutor(size, thread_name_prefix=name)
        self._free = asyncio.Semaphore(size)
        self._is_closed = False

    async def acquire(self) -> None:
        """Take a place, in the order of asking; raises `Transient` where no call is begun any
        more.
        """
        await self._free.acquire()
        if self._is_closed:
            self._free.release()
            raise Transient("not_sent", detail="no call is begun any more")

    def release(self) -> None:
        """Give the place back."""
        self._free.release()

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function in a thread.

        A caller that is cancelled waits no longer; its place is free when the function has ended.
        """
        await self.acquire()
        try:
            running = self.threads.submit(function)
        except BaseException:
            self.release()
            raise
        loop = asyncio.get_running_loop()

        def release(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self.release)

        running.add_done_callback(release)
        return await asyncio.wrap_future(running)

    async def close(self) -> None:
        """Wait for the calls that are under way; none is begun any more."""
        self._is_closed = True
        # All of its places are free when the last call has ended.
        for _ in range(self._size):
            await self._free.acquire()
        self.threads.shutdown(wait=False)
        for _ in range(self._size):
            self._free.release()


async def in_daemon_thread(function: Callable[[], T], name: str) -> T:
    """Run a function that may hang in a thread of its own; return or raise what it does.

    Unlike `asyncio.to_thread`, a thread that hangs does not keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not future.done():  # else nobody waits any more
            outcome()

    def run() -> None:
        try:
            outcome = partial(future.set_result, function())
        except Exception as error:
            outcome = partial(future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future

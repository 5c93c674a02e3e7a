"""Large bodies: a bound on their bytes in memory, and a thread of their own to work on them.

A message for which there is no room is held without its body, and requeued when there is: it comes
again with it. So neither is memory unbounded, nor does anything behind it wait, as it would if
nothing more were consumed.

Parsing or masking 1 MiB takes up to seconds. It is done in one thread: several would compete with
the loop for the interpreter. With a short switch interval (`SWITCH_INTERVAL`) the loop has the
interpreter back within a millisecond, unless a single C call takes longer; what is read in slices
for that reason says so.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from typing import TypeVar

T = TypeVar("T")

#: Bytes from which on a body is large. Most messages have a few thousand.
LARGE = 16 * 1024
#: Bytes from which on the bodies in memory have a bound: thousands may wait for their turn.
BOUNDED = 4 * 1024
#: Bytes up to which a body stays read while it waits for its turn. To read a larger one again costs
#: little beside what it asks for; read, the servers of a batch take 14 times its bytes.
LIGHT = 2 * 1024
#: Bytes of bounded bodies in memory. What they are decoded to may be 15 times as much.
MOST = 32 * 1024 * 1024
#: Bytes of them in the queue of reads: a read never waits for the room of changes.
MOST_READS = 8 * 1024 * 1024
#: Seconds for which room is kept for a message that was requeued.
KEPT_FOR = 5.0
#: Seconds after which a thread gives the interpreter to another that waits for it.
SWITCH_INTERVAL = 0.001


async def in_thread_if_large(size: int, work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise what it raises; `size` is in bytes.

    The work on a small body is done at once: a thread would cost more than the work.
    """
    if size <= LARGE:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_thread(), copy_context().run, work)


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="large-bodies")


class MemoryBudget:
    """Room for so many bytes; waiters get it in the order in which they came.

    Who has waited is requeued, and needs the room when the message is back: so long it is kept for
    it. Otherwise what goes on meanwhile would wake others for the same room, and each would come in
    vain: a broker gives up on a message that is requeued too often.
    """

    def __init__(self, most: int = MOST, kept_for: float = KEPT_FOR) -> None:
        self._free = most
        self._kept_for = kept_for
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        #: The bytes that are kept for messages on their way back, the first one first.
        self._kept: deque[tuple[asyncio.TimerHandle, int]] = deque()
        self._room = most  # what is free and kept for nobody
        self._is_closed = False

    def close(self) -> None:
        """Have nobody wait any more."""
        self._is_closed = True
        for _, waiter in self._waiting:
            waiter.cancel()

    def take(self, size: int, *, again: bool) -> bool:
        """Take room for so many bytes; False where there is none.

        `again`: the message has waited for it. Others take none as long as one waits.
        """
        if again and self._kept:
            timer, kept = self._kept.popleft()
            timer.cancel()
            self._room += kept
        if size > self._free or (not again and (self._waiting or size > self._room)):
            return False
        self._free -= size
        self._room -= size
        return True

    def give(self, size: int) -> None:
        """Give room back, and wake the waiters that it is enough for."""
        self._free += size
        self._room += size
        self._wake()

    async def wait(self, size: int, seconds: float) -> None:
        """Wait until there is room for so many bytes, at most so many seconds."""
        if self._is_closed:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, waiter))
        await asyncio.wait((waiter,), timeout=seconds)
        waiter.cancel()

    def _wake(self) -> None:
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._room):
            wanted, waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                # It may go to another worker.
                timer = asyncio.get_running_loop().call_later(self._kept_for, self._lapse)
                self._kept.append((timer, wanted))
                self._room -= wanted

    def _lapse(self) -> None:
        self._room += self._kept.popleft()[1]
        self._wake()

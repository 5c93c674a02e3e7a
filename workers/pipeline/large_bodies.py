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
    """Room for so many bytes; waiters get it in the order in which they came."""

    def __init__(self, most: int = MOST) -> None:
        self._free = most
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
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
        if size > self._free or (self._waiting and not again):
            return False
        self._free -= size
        return True

    def give(self, size: int) -> None:
        """Give room back, and wake the waiters that it is enough for."""
        self._free += size
        room = self._free
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= room):
            wanted, waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                room -= wanted

    async def wait(self, size: int, seconds: float) -> None:
        """Wait until there is room for so many bytes, at most so many seconds."""
        if self._is_closed:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, waiter))
        await asyncio.wait((waiter,), timeout=seconds)
        waiter.cancel()

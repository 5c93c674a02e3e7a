"""A bound on the bytes of large bodies that a process holds at once.

A message for which there is no room is held without its body, and given back to its queue when
there is: it comes again with it. So neither is memory unbounded, nor does anything behind it wait,
as it would if nothing more were consumed.
"""

import asyncio
from collections import deque

#: Bytes of large bodies. What they are decoded to may be 15 times as much.
MOST = 32 * 1024 * 1024


class Budget:
    """Room for bytes; those that wait for it have it in the order in which they came."""

    def __init__(self, most: int = MOST) -> None:
        self._free = most
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, size: int, *, again: bool) -> bool:
        """Take room for so many bytes; False where there is none.

        `again`: the message has waited for it. Others take none as long as somebody waits.
        """
        if size > self._free or (self._waiting and not again):
            return False
        self._free -= size
        return True

    def give(self, size: int) -> None:
        """Give room back, and tell those who wait for it."""
        self._free += size
        room = self._free
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= room):
            wanted, told = self._waiting.popleft()
            if not told.done():
                told.set_result(None)
                room -= wanted

    async def wait(self, size: int, seconds: float) -> None:
        """Wait until there is room, or so many seconds."""
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, told))
        await asyncio.wait((told,), timeout=seconds)
        told.cancel()

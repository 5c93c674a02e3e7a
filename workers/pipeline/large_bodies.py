"""Work on large bodies, in a thread of its own: parsing or masking 1 MiB takes up to seconds.

It is one thread: several would compete with the loop for the interpreter. With a short switch
interval (`SWITCH_INTERVAL`) the loop has the interpreter back within a millisecond, unless a single
C call takes longer; what is read in slices for that reason says so.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from typing import TypeVar

T = TypeVar("T")

#: Bytes of a body from which on it is large. Most messages have a few thousand.
LARGE = 16 * 1024
#: Seconds after which a thread gives the interpreter to another that waits for it.
SWITCH_INTERVAL = 0.001


async def aside(size: int, work: Callable[[], T]) -> T:
    """What `work` returns or raises: at once for a body of few bytes, else in the thread."""
    if size <= LARGE:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_thread(), copy_context().run, work)


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="aside")

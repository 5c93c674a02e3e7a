"""Several things at once."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def all_ended(running: Iterable[Awaitable[T]]) -> list[T]:
    """Run all at once to their ends; return their results, or raise the first error as it is.

    A group of errors would say nothing to whoever decides by their kind. None is cancelled for
    another's sake: each may have sent a call, and knows best what became of it.
    """
    ended = await asyncio.gather(*running, return_exceptions=True)
    for one in ended:
        if isinstance(one, BaseException):
            raise one
    return [one for one in ended if not isinstance(one, BaseException)]

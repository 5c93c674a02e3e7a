"""Several things at once."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any


async def all_ended(courses: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Let them all run to their end, and then raise the first error as it is, if there was one.

    A group of errors would say nothing to whoever decides by their kind. Nobody is cut off for
    another's sake: each may have sent a call, and knows best what became of it.
    """
    ended = await asyncio.gather(*courses, return_exceptions=True)
    for one in ended:
        if isinstance(one, BaseException):
            raise one

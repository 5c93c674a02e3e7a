"""Several things at once."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any


async def all_of(courses: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Let them all run to their end. Where one fails, the others are cancelled, and its error is raised as it is.

    A group of errors would say nothing to whoever decides by their kind; and what went on running would tell of a
    request that has been put off.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for course in courses:
                group.create_task(course)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None

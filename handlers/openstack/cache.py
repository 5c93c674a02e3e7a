"""What was looked up a moment ago: many pages are asked for at once, and subnets seldom change."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds for which an answer is good.
LIFE = 10.0


@dataclass(slots=True)
class _Answer:
    value: "asyncio.Future[Any]"
    asked_at: float


class Cache:
    """Answers by name, of which there are only a few. Whoever asks while an answer is on its way
    waits for that one.
    """

    def __init__(self, life: float = LIFE) -> None:
        self._life = life
        self._answers: dict[str, _Answer] = {}

    async def get(self, name: str, ask: Callable[[], Awaitable[T]], life: float | None = None) -> T:
        """The answer of that name, asked for where it is not recent (`life` in seconds). An error
        is not kept.
        """
        known = self._answers.get(name)
        life = self._life if life is None else life
        if known is None or time.monotonic() - known.asked_at > life or _failed(known.value):
            known = self._answers[name] = _Answer(asyncio.ensure_future(ask()), time.monotonic())
        value: T = await asyncio.shield(known.value)
        return value


def _failed(value: "asyncio.Future[Any]") -> bool:
    return value.done() and (value.cancelled() or value.exception() is not None)

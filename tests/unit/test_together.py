"""Several things at once: an error keeps its kind, and nothing is cut off or left running."""

import asyncio

import pytest

from handlers.effects.concurrency import all_ended
from messages.errors import Postponed


async def test_all_run_at_once_to_their_end() -> None:
    ended: list[int] = []

    async def one(number: int) -> None:
        await asyncio.sleep(0.05 / number)
        ended.append(number)

    await all_ended(one(number) for number in (1, 2, 3))
    assert ended == [3, 2, 1]


async def test_one_that_is_put_off_lets_the_others_end_and_is_told_by_its_kind() -> None:
    told: list[str] = []

    async def follows() -> None:
        await asyncio.sleep(0.05)
        told.append("ended")

    async def waits_too_long() -> None:
        await asyncio.sleep(0.01)
        raise Postponed("os-start")

    with pytest.raises(Postponed):
        await all_ended((follows(), waits_too_long(), waits_too_long()))
    assert told == ["ended"]

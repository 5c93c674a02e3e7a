"""Concurrency: an error keeps its kind, nothing is cancelled or left running, one question at a
time.
"""

import asyncio

import pytest

from handlers.effects.concurrency import SingleFlightCache, wait_for_all
from messages.codes import Code
from messages.errors import EcsError, Postponed, Refused, Transient


async def test_all_run_at_once_to_their_end() -> None:
    ended: list[int] = []

    async def one(number: int) -> None:
        await asyncio.sleep(0.05 / number)
        ended.append(number)

    await wait_for_all(one(number) for number in (1, 2, 3))
    assert ended == [3, 2, 1]


async def test_one_that_is_postponed_lets_the_others_end_and_is_raised_by_its_kind() -> None:
    told: list[str] = []

    async def follows() -> None:
        await asyncio.sleep(0.05)
        told.append("ended")

    async def waits_too_long() -> None:
        await asyncio.sleep(0.01)
        raise Postponed("os-start")

    with pytest.raises(Postponed):
        await wait_for_all((follows(), waits_too_long(), waits_too_long()))
    assert told == ["ended"]


@pytest.mark.parametrize("later", [Transient("http_503"), Postponed("os-start")])
async def test_an_error_that_a_later_try_may_mend_comes_before_a_final_one(later: EcsError) -> None:
    async def fails(error: Exception) -> None:
        raise error

    with pytest.raises(type(later)):
        await wait_for_all((fails(Refused(Code.FAILED)), fails(later)), passing_first=True)


async def test_an_answer_is_asked_for_once_at_a_time_and_again_when_it_is_old() -> None:
    asked = 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        return asked

    cache = SingleFlightCache(ttl=0.1)
    assert await asyncio.gather(*(cache.get("a", ask) for _ in range(3))) == [1, 1, 1]
    assert await cache.get("b", ask) == 2
    assert await cache.get("a", ask) == 1
    await asyncio.sleep(0.1)
    assert await cache.get("a", ask) == 3


async def test_an_error_is_raised_to_all_who_wait_and_not_kept() -> None:
    answers: list[Exception | str] = [Transient("http_503"), "well"]

    async def ask() -> str:
        await asyncio.sleep(0)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    cache = SingleFlightCache(ttl=10.0)
    first = await asyncio.gather(*(cache.get("a", ask) for _ in range(2)), return_exceptions=True)
    assert [type(one) for one in first] == [Transient, Transient]
    assert await cache.get("a", ask) == "well"


async def test_who_has_waited_for_an_answer_goes_on_before_who_comes_when_it_is_there() -> None:
    cache, order, tasks = SingleFlightCache(60.0), list[int](), list[asyncio.Task[None]]()

    async def goes_on(number: int) -> None:
        await cache.get("log-in", log_in)
        order.append(number)

    async def log_in() -> str:
        await asyncio.sleep(0.01)
        # Begins in the turn of the loop in which the answer is there.
        asyncio.get_running_loop().call_soon(lambda: tasks.append(asyncio.create_task(goes_on(3))))
        return "token"

    await asyncio.gather(goes_on(1), goes_on(2))
    await asyncio.gather(*tasks)
    assert order == [1, 2, 3]

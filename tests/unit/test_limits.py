"""Limits of what is awaited: many of them, watched by one timer."""

import asyncio
import sys
import time

import pytest

from handlers.effects.backoff import Deadline, within


async def test_what_takes_longer_than_its_limit_ends_in_a_timeout() -> None:
    began = time.monotonic()
    limit = within(Deadline.after(0.1))
    with pytest.raises(TimeoutError), limit:
        await asyncio.sleep(30)
    assert limit.expired
    assert time.monotonic() - began >= 0.1
    await asyncio.sleep(0)  # the task is not left cancelled


async def test_the_earlier_of_two_limits_ends_its_own_block_whichever_is_inside() -> None:
    for outer, inner in ((0.05, 30.0), (30.0, 0.05)):
        outside, inside = within(Deadline.after(outer)), within(Deadline.after(inner))
        with pytest.raises(TimeoutError), outside, inside:
            await asyncio.sleep(20)
        assert (outside.expired, inside.expired) == (outer < inner, inner < outer)


async def test_limits_end_in_the_order_of_their_deadlines_whatever_the_order_of_their_beginning() -> (
    None
):
    ended: list[float] = []

    async def wait(seconds: float) -> None:
        with pytest.raises(TimeoutError), within(Deadline.after(seconds)):
            await asyncio.sleep(30)
        ended.append(seconds)

    wanted = [0.9, 0.1, 0.5, 0.3, 0.7]
    await asyncio.gather(*map(wait, wanted))
    assert ended == sorted(wanted)


async def test_a_limit_that_has_passed_ends_the_first_wait_and_one_that_is_left_nothing() -> None:
    with pytest.raises(TimeoutError), within(Deadline(0.0)):
        await asyncio.sleep(30)
    with within(Deadline.after(0.05)):
        await asyncio.sleep(0)
    await asyncio.sleep(0.2)
    with within(None):
        await asyncio.sleep(0.01)


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def work() -> None:
        with within(Deadline.after(30)):
            await asyncio.sleep(20)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_of_what_is_awaited_is_not_taken_for_the_limit() -> None:
    limit = within(Deadline.after(30))
    with pytest.raises(TimeoutError), limit:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(20)
    assert not limit.expired


def test_each_loop_has_its_own_limits() -> None:
    async def late() -> bool:
        with pytest.raises(TimeoutError), within(Deadline.after(0.05)):
            await asyncio.sleep(30)
        return True

    assert [asyncio.run(late()) for _ in range(2)] == [True, True]


async def test_a_limit_is_gone_with_its_last_reference() -> None:
    limit = within(Deadline.after(30.0))
    with limit:
        pass
    # Nothing but this name and the argument: no cycle that keeps it, and its task, for the garbage
    # collector.
    assert sys.getrefcount(limit) == 2

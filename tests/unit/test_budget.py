"""The bound on large bodies: never more than there is room for, and everybody has his turn."""

import asyncio

from workers.pipeline.large_bodies import MemoryBudget


async def test_who_waits_has_room_in_the_order_in_which_he_came() -> None:
    budget, order = MemoryBudget(10), list[str]()

    async def wait(name: str, size: int) -> None:
        await budget.wait(size, 5.0)
        order.append(name)

    assert budget.take(8, again=False)
    assert not budget.take(3, again=False)
    waiting = [
        asyncio.create_task(wait(name, size)) for name, size in (("a", 6), ("b", 2), ("c", 9))
    ]
    await asyncio.sleep(0)
    # There is room for it, but others came before; what has waited takes it.
    assert not budget.take(1, again=False)
    assert budget.take(1, again=True)
    budget.give(8)
    await asyncio.sleep(0.05)
    assert order == ["a", "b"]
    for size in (6, 2):
        assert budget.take(size, again=True)
        budget.give(size)
    budget.give(1)
    await asyncio.gather(*waiting)
    assert order == ["a", "b", "c"]
    assert budget.take(9, again=True)


async def test_room_is_kept_for_who_was_woken_and_is_on_his_way_back_but_not_for_ever() -> None:
    budget, woken = MemoryBudget(10, kept_for=0.2), list[int]()

    async def wait(number: int) -> None:
        await budget.wait(5, 5.0)
        woken.append(number)

    assert budget.take(5, again=False)
    assert budget.take(5, again=False)
    waiting = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    budget.give(5)
    await asyncio.sleep(0.01)
    assert woken == [0]
    budget.give(5)
    await asyncio.sleep(0.01)
    assert woken == [0, 1], "the room of the first one is not free"
    assert budget.take(5, again=True)
    budget.give(5)
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert woken == [0, 1, 2]
    # The others have gone to another worker.
    await asyncio.sleep(0.25)
    assert budget.take(10, again=False)


async def test_nobody_waits_longer_than_he_may_or_is_waited_for_after_that() -> None:
    budget = MemoryBudget(10)
    assert budget.take(10, again=False)
    await budget.wait(5, 0.05)
    budget.give(10)
    assert budget.take(10, again=False)

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
    budget.give(1)
    await asyncio.gather(*waiting)
    assert order == ["a", "b", "c"]
    assert budget.take(10, again=False)


async def test_nobody_waits_longer_than_he_may_or_is_waited_for_after_that() -> None:
    budget = MemoryBudget(10)
    assert budget.take(10, again=False)
    await budget.wait(5, 0.05)
    budget.give(10)
    assert budget.take(10, again=False)

"""Tests what is noted of the waits of a running request: little, and what has lasted."""

import asyncio
from dataclasses import dataclass

from handlers.effects.waits import ResourceState, Wait, Waits

BUILD, ACTIVE = ResourceState("server", "1", "BUILD"), ResourceState("server", "1", "ACTIVE")


@dataclass(eq=False)
class Waiting:
    seen: ResourceState | None = None


async def test_a_wait_that_is_over_soon_is_not_noted() -> None:
    noted: list[Wait | None] = []
    waits = Waits(noted.append, noted_after=0.05)
    for _ in range(3):
        with waits.on(Waiting(BUILD)):
            await asyncio.sleep(0)
    await asyncio.sleep(0.15)
    assert noted == []
    assert waits.last == BUILD


async def test_a_wait_is_noted_once_and_its_end() -> None:
    noted: list[Wait | None] = []
    waits = Waits(noted.append, noted_after=0.05)
    with waits.on(Waiting(BUILD)), waits.on(Waiting(ACTIVE)):
        await asyncio.sleep(0.2)
    (wait,) = noted
    assert wait is not None
    assert (wait.resource, wait.others) == (BUILD, 1)
    # Another look at the same state is the same wait.
    waiting = Waiting(BUILD)
    with waits.on(waiting), waits.on(Waiting(ACTIVE)):
        await asyncio.sleep(0.15)
        assert noted == [wait]
    await asyncio.sleep(0.15)
    assert noted == [wait, None]


async def test_a_resource_that_was_not_seen_yet_is_noted_when_it_is() -> None:
    noted: list[Wait | None] = []
    waits, waiting = Waits(noted.append, noted_after=0.05), Waiting()
    with waits.on(waiting):
        await asyncio.sleep(0.15)
        assert noted == []
        waiting.seen = BUILD
        await asyncio.sleep(0.15)
    assert [one.resource for one in noted if one is not None] == [BUILD]


async def test_nothing_is_noted_once_the_attempt_has_ended() -> None:
    noted: list[Wait | None] = []
    waits = Waits(noted.append, noted_after=0.05)
    with waits.on(Waiting(BUILD)):
        waits.close()
        await asyncio.sleep(0.15)
    await asyncio.sleep(0.15)
    assert noted == []

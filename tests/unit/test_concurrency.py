"""Concurrency: an error keeps its kind, nothing is cancelled or left running, one question at a
time, places in turn by tenant.
"""

import asyncio

import pytest

from handlers.effects.concurrency import (
    SingleFlightCache,
    Tenant,
    ThreadPool,
    Turns,
    changing,
    wait_for_all,
)
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


class _Asking:
    """Asks for places, and notes by whom they were got."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.got: list[Tenant] = []
        self.waiting: list[asyncio.Task[None]] = []

    async def ask(self, *names: str) -> None:
        """Ask for these tenants, one after the other; places that are free are there afterwards."""
        for name in names:
            self.waiting.append(asyncio.create_task(self._take(name)))
            await asyncio.sleep(0)

    async def _take(self, name: str) -> None:
        self.got.append(await self._turns.take(name, name))

    async def give_back(self, number: int) -> list[str]:
        """Give back one place after the other, so many; return who got them, in order."""
        found = []
        for _ in range(number):
            self._turns.release(self.got.pop(0))
            before = len(self.got)
            await asyncio.sleep(0)
            found += [one.name for one in self.got[before:]]
        return found


async def test_places_are_given_in_turn_by_tenant_and_within_one_in_the_order_of_asking() -> None:
    asking = _Asking(Turns(2))
    await asking.ask(*"AAAAAAA", *"BB", "C")
    assert [one.name for one in asking.got] == ["A", "A"]
    assert await asking.give_back(8) == list("ABCABAAA")


async def test_the_requests_of_one_tenant_keep_their_order() -> None:
    turns, order = Turns(1), list[int]()

    async def one(number: int) -> None:
        place = await turns.take("A")
        order.append(number)
        await asyncio.sleep(0)
        turns.release(place)

    await asyncio.gather(*(one(number) for number in range(50)))
    assert order == list(range(50))


async def test_a_tenant_alone_leaves_places_to_the_next_one_who_comes() -> None:
    asking = _Asking(Turns(32))
    await asking.ask(*"A" * 100)
    assert len(asking.got) == 29
    await asking.ask(*"BBB")
    assert [one.name for one in asking.got[29:]] == ["B", "B", "B"]
    # What A gives back, A gets again, as long as it leaves some.
    assert set(await asking.give_back(20)) <= {"A"}


async def test_few_places_are_all_used_by_a_tenant_alone() -> None:
    for size in range(1, 9):
        asking = _Asking(Turns(size))
        await asking.ask(*"A" * 20)
        assert len(asking.got) == size


async def test_a_place_is_not_lost_with_whoever_is_cancelled_while_it_waits_or_gets_it() -> None:
    turns = Turns(1)
    asking = _Asking(turns)
    await asking.ask("A", "B", "C", "D")
    asking.waiting[1].cancel()  # it waits
    await asyncio.sleep(0)
    turns.release(asking.got.pop())
    asking.waiting[2].cancel()  # it has got the place in this turn of the loop
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [one.name for one in asking.got] == ["D"]
    turns.release(asking.got.pop())
    await asyncio.wait_for(turns.unused(), 1)


async def test_no_place_is_given_while_it_is_paused_and_then_all_go_on() -> None:
    turns = Turns(4)
    asking = _Asking(turns)
    turns.pause(is_paused=True)
    await asking.ask("A", "B", "A")
    assert asking.got == []
    turns.pause(is_paused=False)
    await asyncio.sleep(0)
    assert [one.name for one in asking.got] == ["A", "B", "A"]


async def test_those_who_are_refused_get_the_error_and_the_others_their_places() -> None:
    turns = Turns(1)
    asking = _Asking(turns)
    await asking.ask("A", "B", "C", "B")
    turns.refuse(lambda: Postponed("turn"), lambda tag: tag == "B")
    await asyncio.sleep(0)
    assert [type(one.exception()) for one in asking.waiting[1::2]] == [Postponed, Postponed]
    assert await asking.give_back(1) == ["C"]


async def test_who_comes_takes_no_place_before_one_who_has_yet_to_go_on_with_his() -> None:
    turns, order = Turns(2), list[int]()
    places = [await turns.take("A") for _ in range(2)]

    async def one(number: int) -> None:
        await turns.take("A")
        order.append(number)

    waiting = asyncio.create_task(one(1))
    await asyncio.sleep(0)
    for place in places:  # in one turn of the loop, in which another comes, too
        turns.release(place)
    assert turns.take_free("A") is None
    await asyncio.wait_for(asyncio.gather(waiting, one(2)), 5)
    assert order == [1, 2]


@pytest.mark.parametrize("way", ["gets its place", "is cancelled", "is refused"])
async def test_a_tenant_has_no_place_while_it_waits_in_the_line_before(way: str) -> None:
    before = Turns(1)
    after = Turns(1, before)
    place = await before.take("A")
    first, second = _Asking(before), _Asking(after)
    await first.ask("A")
    await second.ask("A")
    assert second.got == []
    await second.ask("B")
    assert [one.name for one in second.got] == ["B"]
    assert await second.give_back(1) == []
    if way == "gets its place":
        before.release(place)
    elif way == "is cancelled":
        first.waiting[0].cancel()
    else:
        before.refuse(lambda: Transient("lost"))
    await asyncio.wait_for(second.waiting[0], 5)
    assert [one.name for one in second.got] == ["A"]
    await asyncio.gather(*first.waiting, return_exceptions=True)


async def test_calls_that_read_have_places_of_their_own() -> None:
    pool = ThreadPool(1, "test")

    async def change() -> Tenant:
        changing.set(True)
        return await pool.acquire("A")

    first = await asyncio.create_task(change())
    second = asyncio.create_task(change())
    await asyncio.sleep(0)
    assert not second.done(), "all places of changes are taken"
    assert await pool.run(lambda: "read", "A") == "read"
    pool.release(first)
    pool.release(await second)
    await pool.close()


async def test_whoever_waits_for_a_call_at_the_end_is_told_that_none_is_begun() -> None:
    pool = ThreadPool(1, "test")
    place = await pool.acquire("A")
    waiting = asyncio.create_task(pool.run(lambda: None, "A"))
    await asyncio.sleep(0)
    closing = asyncio.create_task(pool.close())
    with pytest.raises(Transient, match="no call is begun"):
        await waiting
    assert not closing.done(), "a call is under way"
    pool.release(place)
    await asyncio.wait_for(closing, 1)
    with pytest.raises(Transient, match="no call is begun"):
        await pool.run(lambda: None)

"""Watches: one poll for all waiters, states in order, and nobody waits in vain."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from handlers.effects.backoff import Deadline
from handlers.openstack.errors import CloudRefusal, NotFound
from handlers.openstack.watch import Pace, Poller, Watch, WatchTiming


@dataclass(frozen=True)
class Thing:
    id: str
    status: str
    updated: str = "2026-11-23T10:00:00Z"


@dataclass
class Service:
    """Holds what the cloud knows; `forgets`: its list of changes is empty."""

    things: dict[str, Thing] = field(default_factory=dict)
    forgets: bool = False
    asked: list[str] = field(default_factory=list)

    async def changed(self, since: str) -> AsyncIterator[list[Thing]]:
        self.asked.append(since)
        yield [] if self.forgets else list(self.things.values())

    async def everything(self) -> AsyncIterator[list[Thing]]:
        self.asked.append("everything")
        yield list(self.things.values())

    async def get(self, name: str) -> Thing:
        self.asked.append(name)
        if name not in self.things:
            raise NotFound(404, "gone", None)
        return self.things[name]

    def watch(self, pace: Pace | None = None) -> Watch[Thing]:
        return Watch(self.changed, self.everything, self.get, pace or Pace(QUICK))


QUICK = WatchTiming(poll=0.02, longest_poll=0.02, silence=0.1, longest_silence=0.2)
SOON = 2.0


async def test_states_come_in_order_and_each_once() -> None:
    service = Service({"a": Thing("a", "BUILD")})
    with service.watch().follow("a") as poller:
        assert (await poller.next(Deadline.after(SOON))).status == "BUILD"
        await asyncio.sleep(0.1)
        service.things["a"] = Thing("a", "ACTIVE")
        assert (await poller.next(Deadline.after(SOON))).status == "ACTIVE"
        with pytest.raises(TimeoutError):
            await poller.next(Deadline.after(0.1))


async def test_a_hundred_waiters_share_one_call_a_poll() -> None:
    service = Service({str(one): Thing(str(one), "ACTIVE") for one in range(100)})
    watch = service.watch()

    async def wait(name: str) -> Thing:
        with watch.follow(name) as poller:
            return await poller.next(Deadline.after(SOON))

    found = await asyncio.gather(*(wait(str(one)) for one in range(100)))
    assert len(found) == 100
    assert len(service.asked) <= 2
    assert watch.idle


async def test_a_service_that_forgets_changes_is_asked_singly() -> None:
    service = Service({"a": Thing("a", "ACTIVE")}, forgets=True)
    with service.watch().follow("a") as poller:
        assert (await poller.next(Deadline.after(SOON))).status == "ACTIVE"
    assert "a" in service.asked


async def test_many_silent_resources_are_asked_for_by_one_list() -> None:
    names = [str(one) for one in range(20)]
    service = Service({one: Thing(one, "ACTIVE") for one in names[:-1]}, forgets=True)
    watch = service.watch()

    async def wait(name: str) -> str:
        with watch.follow(name) as poller:
            try:
                return (await poller.next(Deadline.after(SOON))).status
            except NotFound:
                return "gone"

    assert await asyncio.gather(*(wait(one) for one in names)) == ["ACTIVE"] * 19 + ["gone"]
    assert service.asked.count("everything") == 1
    assert [one for one in service.asked if one in names] == ["19"]


async def test_a_resource_that_is_gone_is_not_found() -> None:
    with Service().watch().follow("a") as poller, pytest.raises(NotFound):
        await poller.next(Deadline.after(SOON))


async def test_nothing_is_polled_while_nobody_waits() -> None:
    service = Service({"a": Thing("a", "ACTIVE")})
    watch = service.watch()
    with watch.follow("a") as poller:
        await poller.next(Deadline.after(SOON))
    await asyncio.sleep(0.1)
    asked = len(service.asked)
    await asyncio.sleep(0.1)
    assert len(service.asked) == asked


async def test_an_unforeseen_error_is_raised_to_all_waiters_and_the_next_waiter_polls_afresh() -> (
    None
):
    service = Service()
    broken = True

    async def changed(since: str) -> AsyncIterator[list[Thing]]:
        if broken:
            raise KeyError("servers")
        async for page in service.changed(since):
            yield page

    watch = Watch(changed, service.everything, service.get, Pace())
    with watch.follow("a") as first, watch.follow("b") as second:
        for poller in (first, second):
            with pytest.raises(KeyError):
                await poller.next(Deadline.after(SOON))
    broken = False
    service.things["a"] = Thing("a", "ACTIVE")
    with watch.follow("a") as poller:
        assert (await poller.next(Deadline.after(SOON))).status == "ACTIVE"


async def test_all_projects_together_are_polled_at_one_rate() -> None:
    pace = Pace(WatchTiming(poll=0.01, longest_poll=0.01, silence=60.0, polls=50.0))
    services = [Service(forgets=True) for _ in range(50)]
    pollers = [service.watch(pace).follow("a") for service in services]
    await asyncio.sleep(1.0)
    for poller in pollers:
        poller.__exit__(None, None, None)
    # 5,000 a second without it; the first ones begin before the others are known.
    assert sum(len(service.asked) for service in services) < 150


async def test_everything_is_not_listed_again_before_its_size_allows_it() -> None:
    names = [str(one) for one in range(20)]
    service = Service({one: Thing(one, "BUILD") for one in names}, forgets=True)
    slow = WatchTiming(poll=0.01, longest_poll=0.01, silence=0.02, longest_silence=0.02, listed=1.0)
    watch = service.watch(Pace(slow))
    pollers = [watch.follow(one) for one in names]
    await pollers[0].next(Deadline.after(SOON))
    await asyncio.sleep(0.3)
    for poller in pollers:
        poller.__exit__(None, None, None)
    assert service.asked.count("everything") == 1
    assert not any(one in names for one in service.asked)


async def test_what_is_silent_again_is_listed_page_by_page_with_one_page_a_poll() -> None:
    names = [str(one) for one in range(24)]
    service = Service({one: Thing(one, "BUILD") for one in names}, forgets=True)

    async def pages() -> AsyncIterator[list[Thing]]:
        for one in names:
            service.asked.append("page")
            yield [service.things[one]] if one in service.things else []

    # A page in a quarter of a second, and a whole list in six seconds.
    slow = WatchTiming(poll=0.01, longest_poll=0.01, silence=0.02, longest_silence=0.02, listed=4.0)
    watch = Watch(service.changed, pages, service.get, Pace(slow))
    pollers = [watch.follow(one) for one in names]
    for poller in pollers:
        assert (await poller.next(Deadline.after(60.0))).status == "BUILD"
    assert service.asked.count("page") == len(names)  # at first all of them at once
    service.asked.clear()
    service.things["23"] = Thing("23", "ACTIVE")
    del service.things["20"]
    assert (await pollers[23].next(Deadline.after(60.0))).status == "ACTIVE"
    with pytest.raises(NotFound):
        await pollers[20].next(Deadline.after(60.0))
    for poller in pollers:
        poller.__exit__(None, None, None)
    assert service.asked.count("page") >= len(names)
    assert not any(pair == ("page", "page") for pair in pairwise(service.asked))
    assert [one for one in service.asked if one in names] == ["20"]


async def test_a_list_that_fails_between_its_pages_begins_anew() -> None:
    names = [str(one) for one in range(20)]
    service = Service({one: Thing(one, "BUILD") for one in names}, forgets=True)
    lists = 0

    async def pages() -> AsyncIterator[list[Thing]]:
        nonlocal lists
        lists += 1
        for one in names:
            if lists == 2 and one == "3":  # the last one that was shown is gone meanwhile
                raise CloudRefusal(400, "marker not found", None)
            yield [service.things[one]]

    slow = WatchTiming(
        poll=0.01, longest_poll=0.01, silence=0.02, longest_silence=0.02, listed=20.0
    )
    watch = Watch(service.changed, pages, service.get, Pace(slow))
    pollers = [watch.follow(one) for one in names]
    for poller in pollers:
        assert (await poller.next(Deadline.after(60.0))).status == "BUILD"
    service.things["19"] = Thing("19", "ACTIVE")
    assert (await pollers[19].next(Deadline.after(60.0))).status == "ACTIVE"
    for poller in pollers:
        poller.__exit__(None, None, None)
    assert lists >= 3
    assert not any(one in names for one in service.asked)


async def test_who_begins_to_wait_during_a_question_is_told_by_the_next_one() -> None:
    service = Service({"a": Thing("a", "OLD")})
    later: list[Poller[Thing]] = []

    async def changed(since: str) -> AsyncIterator[list[Thing]]:
        found = list(service.things.values())
        if not later:
            later.append(watch.follow("a"))
            service.things["a"] = Thing("a", "NEW")
        yield found

    watch = Watch(changed, service.everything, service.get, Pace(QUICK))
    with watch.follow("a") as first:
        assert (await first.next(Deadline.after(SOON))).status == "OLD"
        with later[0] as second:
            assert (await second.next(Deadline.after(SOON))).status == "NEW"

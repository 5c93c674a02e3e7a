"""Publications that wait: in order, and behind one that its queue refuses."""

import asyncio

import pytest

from workers import backlog
from workers.backlog import Backlog, delay_after
from workers.publication import Entry, Publication, Published


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "FIRST_DELAY", 0.01)


def entry(number: int, queue: str = "full") -> Entry:
    return Entry(Publication("", queue, b""), number, asyncio.get_running_loop().create_future())


def taken(found: Backlog) -> list[int]:
    numbers = []
    while (one := found.take()) is not None:
        numbers.append(one.number)
    return numbers


async def test_what_was_sent_goes_before_what_was_not() -> None:
    found = Backlog(lambda: None)
    for number in (3, 4):
        found.add(entry(number))
    found.put_back([entry(1), entry(2)])
    assert len(found) == 4
    assert taken(found) == [1, 2, 3, 4]
    assert len(found) == 0


async def test_behind_one_that_is_refused_its_line_waits_in_order_and_no_other() -> None:
    tried = asyncio.Event()
    found = Backlog(tried.set)
    refused = [entry(number) for number in (2, 1, 3)]
    for one in refused:
        found.refused(one)
    found.add(entry(4))
    found.add(entry(5, "another"))
    assert taken(found) == [5]
    assert len(found) == 4
    await asyncio.wait_for(tried.wait(), 5)
    (trial,) = [found.take()]
    assert trial is not None
    assert trial.number == 1
    assert taken(found) == []
    found.ended(trial)
    assert taken(found) == [2, 3, 4]


async def test_one_that_is_refused_again_is_tried_again_later() -> None:
    tried = asyncio.Event()
    found = Backlog(tried.set)
    found.refused(entry(1))
    began = asyncio.get_running_loop().time()
    for _ in range(4):
        await asyncio.wait_for(tried.wait(), 5)
        tried.clear()
        trial = found.take()
        assert trial is not None
        found.refused(trial)
    assert asyncio.get_running_loop().time() - began >= 0.01 + 0.02 + 0.04 + 0.08 - 0.01
    assert delay_after(1000) == backlog.LONGEST_DELAY


async def test_one_that_nobody_waits_for_any_more_holds_up_nobody() -> None:
    tried = asyncio.Event()
    found = Backlog(tried.set)
    given_up = entry(1)
    found.refused(given_up)
    found.add(entry(2))
    assert taken(found) == []
    given_up.future.cancel()
    await asyncio.wait_for(tried.wait(), 5)
    assert taken(found) == [2]
    done = entry(3)
    done.future.set_result(Published.CONFIRMED)
    found.add(done)
    assert taken(found) == []
    assert len(found) == 0

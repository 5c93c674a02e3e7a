"""Publications that wait: in order, and behind one that its queue refuses."""

import asyncio

import pytest

from handlers.effects.backoff import delay_after
from workers.amqp import send_queue
from workers.amqp.envelope import Publication, Published
from workers.amqp.send_queue import Entry, SendQueue


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_queue, "FIRST_DELAY", 0.01)


def entry(number: int, queue: str = "full") -> Entry:
    return Entry(Publication("", queue, b""), number, asyncio.get_running_loop().create_future())


def taken(found: SendQueue) -> list[int]:
    numbers = []
    while (one := found.take()) is not None:
        numbers.append(one.number)
    return numbers


async def test_what_was_sent_goes_before_what_was_not() -> None:
    found = SendQueue(lambda: None)
    for number in (3, 4):
        found.add(entry(number))
    found.put_back([entry(1), entry(2)])
    assert len(found) == 4
    assert taken(found) == [1, 2, 3, 4]
    assert len(found) == 0


async def test_behind_one_that_is_refused_its_line_waits_in_order_and_no_other() -> None:
    tried = asyncio.Event()
    found = SendQueue(tried.set)
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
    found = SendQueue(tried.set)
    found.refused(entry(1))
    began = asyncio.get_running_loop().time()
    for _ in range(4):
        await asyncio.wait_for(tried.wait(), 5)
        tried.clear()
        trial = found.take()
        assert trial is not None
        found.refused(trial)
    assert asyncio.get_running_loop().time() - began >= 0.01 + 0.02 + 0.04 + 0.08 - 0.01
    assert delay_after(1000, 0.2, 10.0) == 10.0


async def test_one_that_nobody_waits_for_any_more_holds_up_nobody() -> None:
    tried = asyncio.Event()
    found = SendQueue(tried.set)
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


async def test_what_came_later_overtakes_nothing_when_its_queue_takes_again() -> None:
    tried = asyncio.Event()
    found = SendQueue(tried.set)
    for number in (1, 2, 3):
        found.refused(entry(number))
    await asyncio.wait_for(tried.wait(), 5)
    trial = found.take()
    assert trial is not None
    for number, queue in (
        (4, "full"),
        (5, "another"),
        (6, "full"),
    ):  # not taken yet: the window was full
        found.add(entry(number, queue))
    found.taken(trial)
    numbers = taken(found)
    assert sorted(numbers) == [2, 3, 4, 5, 6]
    assert [one for one in numbers if one != 5] == [2, 3, 4, 6]


async def test_what_has_waited_long_enough_is_given_up_unless_it_is_being_tried() -> None:
    tried = asyncio.Event()
    found = SendQueue(tried.set)
    impatient = [impatient_entry(number) for number in (1, 2, 3)]
    patient = entry(4)
    for one in [*impatient, patient]:
        found.refused(one)
    await asyncio.wait_for(tried.wait(), 5)
    trial = found.take()
    assert trial is not None
    assert trial.number == 1
    found.give_up()
    assert not trial.future.done()
    assert [one.future.result() for one in impatient[1:]] == [Published.REFUSED] * 2
    assert not patient.future.done()
    found.refused(trial)
    found.give_up()
    assert trial.future.result() is Published.REFUSED
    assert len(found) == 1


async def test_one_trial_at_a_time_though_all_that_waited_for_it_was_given_up() -> None:
    trials: list[None] = []
    found = SendQueue(lambda: trials.append(None))
    found.refused(impatient_entry(1))
    found.give_up()
    for number in (2, 3):  # were under way when the first was given up
        found.refused(entry(number))
    await asyncio.sleep(0.05)
    assert len(trials) == 1
    trial = found.take()
    assert trial is not None
    assert trial.number == 2
    found.taken(trial)
    assert taken(found) == [3]
    found.refused(impatient_entry(4))
    found.give_up()
    await asyncio.sleep(0.05)
    assert len(found) == 0
    assert len(trials) == 1


def impatient_entry(number: int) -> Entry:
    publication = Publication("", "full", b"", patience=0.0)
    return Entry(publication, number, asyncio.get_running_loop().create_future())

"""Publications that wait: in order, and behind one that its queue does not take."""

import asyncio
from time import monotonic

import pytest

from handlers.effects.backoff import delay_after
from workers.amqp import send_queue
from workers.amqp.envelope import Publication, Published
from workers.amqp.send_queue import Entry, SendQueue


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_queue, "FIRST_DELAY", 0.01)


class Tried:
    """A queue with what it has had tried, in order."""

    def __init__(self) -> None:
        self.trials: list[Entry] = []
        self.queue = SendQueue(self._try)
        self._came = asyncio.Event()

    async def next(self) -> Entry:
        """Wait for one trial more."""
        self._came.clear()
        await asyncio.wait_for(self._came.wait(), 5)
        return self.trials[-1]

    def _try(self, entry: Entry) -> None:
        self.trials.append(entry)
        self._came.set()


def entry(number: int, queue: str = "full", patience: float | None = None) -> Entry:
    publication = Publication("", queue, b"", patience=patience)
    future = asyncio.get_running_loop().create_future()
    return Entry(publication, number, future, monotonic())


def sent(queue: SendQueue) -> list[int]:
    numbers = []
    while (one := queue.take()) is not None:
        numbers.append(one.number)
    return numbers


async def test_what_was_sent_goes_before_what_was_not() -> None:
    queue = Tried().queue
    for number in (3, 4):
        queue.add(entry(number))
    queue.put_back([entry(1), entry(2)])
    assert len(queue) == 4
    assert sent(queue) == [1, 2, 3, 4]
    assert len(queue) == 0


async def test_behind_one_that_is_refused_its_route_waits_in_order_and_no_other() -> None:
    tried = Tried()
    for number in (2, 1, 3):
        tried.queue.refused(entry(number))
    tried.queue.add(entry(4))
    tried.queue.add(entry(5, "another"))
    assert sent(tried.queue) == [5]
    assert len(tried.queue) == 4
    trial = await tried.next()
    assert trial.number == 1
    assert sent(tried.queue) == []
    tried.queue.taken(trial)
    assert sent(tried.queue) == [2, 3, 4]
    assert tried.trials == [trial]


async def test_one_that_is_refused_again_is_tried_again_later() -> None:
    tried = Tried()
    tried.queue.refused(entry(1))
    began = asyncio.get_running_loop().time()
    for _ in range(4):
        tried.queue.refused(await tried.next())
    assert asyncio.get_running_loop().time() - began >= 0.01 + 0.02 + 0.04 + 0.08 - 0.01
    assert delay_after(1000, 0.2, 10.0) == 10.0


async def test_one_that_nobody_waits_for_any_more_holds_up_nobody() -> None:
    tried = Tried()
    cancelled = entry(1)
    tried.queue.refused(cancelled)
    tried.queue.add(entry(2))
    assert sent(tried.queue) == []
    cancelled.future.cancel()
    trial = await tried.next()
    assert trial.number == 2
    tried.queue.taken(trial)
    done = entry(3)
    done.future.set_result(Published.CONFIRMED)
    tried.queue.add(done)
    assert sent(tried.queue) == []
    assert len(tried.queue) == 0


async def test_what_came_later_overtakes_nothing_when_its_queue_takes_again() -> None:
    tried = Tried()
    for number in (1, 2, 3):
        tried.queue.refused(entry(number))
    trial = await tried.next()
    # Not sent yet: the window was full.
    for number, queue in ((4, "full"), (5, "another"), (6, "full")):
        tried.queue.add(entry(number, queue))
    tried.queue.taken(trial)
    numbers = sent(tried.queue)
    assert sorted(numbers) == [2, 3, 4, 5, 6]
    assert [one for one in numbers if one != 5] == [2, 3, 4, 6]


async def test_what_has_waited_for_as_long_as_it_may_is_refused_the_trial_too() -> None:
    tried = Tried()
    impatient = [entry(number, patience=0.0) for number in (1, 2, 3)]
    patient = entry(4)
    for one in (*impatient, patient):
        tried.queue.refused(one)
    trial = await tried.next()
    assert trial is impatient[0]
    tried.queue.give_up()
    assert [one.future.result() for one in impatient] == [Published.REFUSED] * 3
    assert not patient.future.done()
    # The broker refuses the trial after all: whoever is left is tried.
    tried.queue.refused(trial)
    assert (await tried.next()) is patient
    tried.queue.taken(patient)
    assert len(tried.queue) == 0


async def test_one_trial_at_a_time_though_all_that_waited_for_it_was_given_up() -> None:
    tried = Tried()
    tried.queue.refused(entry(1, patience=0.0))
    tried.queue.give_up()
    for number in (2, 3):  # were under way when the first was given up
        tried.queue.refused(entry(number))
    await asyncio.sleep(0.05)
    assert [one.number for one in tried.trials] == [2]
    tried.queue.taken(tried.trials[0])
    assert sent(tried.queue) == [3]
    tried.queue.refused(entry(4, patience=0.0))
    tried.queue.give_up()
    await asyncio.sleep(0.05)
    assert len(tried.queue) == 0
    assert len(tried.trials) == 1


async def test_what_was_cancelled_does_not_pile_up_behind_a_route_that_takes_nothing() -> None:
    """A request is held for minutes, then requeued, and publishes its result once more."""
    tried = Tried()
    queue = tried.queue
    first = entry(0)
    queue.unanswered(first)  # its queue has lost its leader
    waiting = [entry(number) for number in range(1, 101)]
    for one in waiting:
        queue.add(one)
    assert queue.take() is None
    queue.add(entry(101, "good"))
    queue.add(entry(102, "good"))
    *cancelled, last = waiting
    for one in (first, *cancelled):
        one.future.cancel()
    queue.forget_cancelled()
    assert [one.number for one in queue.entries()] == [101, 102, 100, 0]
    # Its queue takes it after all.
    queue.taken(first)
    assert [one.number for one in queue.entries()] == [101, 102, 100]
    assert (queue.take(), queue.take(), queue.take()) != (None, None, None)
    assert not last.future.done()
    assert tried.trials == []

"""Publications that wait for a queue which takes nothing."""

import asyncio
from time import monotonic

from workers.amqp.envelope import Publication
from workers.amqp.send_queue import Entry, SendQueue


def entry(number: int, queue: str = "stuck") -> Entry:
    future = asyncio.get_running_loop().create_future()
    return Entry(Publication("", queue, b"{}"), number, future, monotonic())


async def test_what_was_cancelled_does_not_pile_up_behind_a_route_that_takes_nothing() -> None:
    """A request is held for minutes, then requeued, and publishes its result once more."""
    tried: list[Entry] = []
    queue = SendQueue(tried.append)
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
    assert tried == []

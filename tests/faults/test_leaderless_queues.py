"""Fault 74: a quorum queue that has no leader holds up nobody else.

On one node the queue's process is suspended: the broker then does what three nodes were seen to do.
A channel that has not published to the queue before answers nothing for 65 seconds, and one that
has holds back what comes after some dozens of messages. Either way the connection stands still
after some hundred messages more.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kombu import Connection, Queue

from sandbox.broker import PrivateBroker
from workers.amqp.envelope import Publication, Published
from workers.amqp.names import Names
from workers.amqp.publisher import Publisher

pytestmark = pytest.mark.slow

#: Seconds without a confirm after which publications are tried apart.
DEADLINE = 5.0


@contextmanager
def without_leader(broker: PrivateBroker, vhost: str, queue: str) -> Iterator[None]:
    """Have a quorum queue answer nobody."""
    name = vhost.rpartition("/")[2]
    found = (
        f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{name}">>, queue, <<"{queue}">>)),'
        " {Process, _} = amqqueue:get_pid(Q),"
    )
    broker.evaluate(f"{found} sys:suspend(Process)")
    try:
        yield
    finally:
        broker.evaluate(f"{found} sys:resume(Process)")


def declare(url: str, *names: str) -> None:
    with Connection(url) as connection:
        for name in names:
            connection.channel().queue_declare(
                name, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"}
            )


def fetch_all(url: str, name: str) -> list[str]:
    with Connection(url) as connection:
        queue, found = Queue(name, no_declare=True)(connection.channel()), []
        while (message := queue.get(no_ack=True)) is not None:
            found.append(message.properties["message_id"])
        return found


def to(queue: str, number: int, patience: float | None = None) -> Publication:
    return Publication("", queue, b"{}", message_id=str(number), patience=patience)


@pytest.mark.parametrize("is_known", [False, True], ids=["new", "known"])
async def test_74_a_queue_without_a_leader_holds_up_nobody_else(
    broker: PrivateBroker, vhost: str, is_known: bool
) -> None:
    declare(vhost, "stuck", "good", "ecs.orders")
    publisher = Publisher(vhost, Names(), deadline=DEADLINE)
    publisher.open()
    if is_known:
        assert await publisher.publish(to("stuck", 0)) is Published.CONFIRMED
    with without_leader(broker, vhost, "stuck"):
        stuck = [publisher.publish(to("stuck", one)) for one in range(1, 41)]
        impatient = publisher.publish(to("stuck", 41, patience=3.0))
        replies = [publisher.publish(to("good", one)) for one in range(600)]
        own = [publisher.publish(to("ecs.orders", one)) for one in range(600)]
        # What goes to the worker's own queues is not even late.
        assert set(await asyncio.wait_for(asyncio.gather(*own), DEADLINE)) == {Published.CONFIRMED}
        assert set(await asyncio.wait_for(asyncio.gather(*replies), 30)) == {Published.CONFIRMED}
        assert await asyncio.wait_for(impatient, 30) is Published.REFUSED
        # Nor does it hold up what comes later, be it for itself.
        later = [publisher.publish(to("good", one)) for one in range(600, 1200)]
        assert set(await asyncio.wait_for(asyncio.gather(*later), 30)) == {Published.CONFIRMED}
        again = publisher.publish(to("stuck", 42, patience=3.0))
        assert await asyncio.wait_for(again, 30) is Published.REFUSED
        assert not any(one.done() for one in stuck)
        (overdue,) = publisher.overdue(1.0)
        assert overdue.route == ("", "stuck")
        assert overdue.messages >= len(stuck)
    assert set(await asyncio.wait_for(asyncio.gather(*stuck), 60)) == {Published.CONFIRMED}
    await publisher.drain()
    await publisher.close()
    there = fetch_all(vhost, "stuck")
    assert {str(one) for one in range(1, 41)} <= set(there)
    # Some came twice, and none of them for the first time before one that was published earlier.
    first = list(dict.fromkeys(int(one) for one in there if int(one) <= 40))
    assert first == sorted(first)
    assert list(dict.fromkeys(fetch_all(vhost, "good"))) == [str(one) for one in range(1200)]


async def test_74_queues_that_lose_their_leaders_one_after_another_cost_the_others_no_time(
    broker: PrivateBroker, vhost: str
) -> None:
    declare(vhost, "stuck-1", "stuck-2", "good")
    publisher = Publisher(vhost, Names(), deadline=DEADLINE)
    publisher.open()
    with without_leader(broker, vhost, "stuck-1"), without_leader(broker, vhost, "stuck-2"):
        stuck = [publisher.publish(to("stuck-1", 1))]
        good = publisher.publish(to("good", 1))
        assert await asyncio.wait_for(good, 20) is Published.CONFIRMED
        stuck.append(publisher.publish(to("stuck-2", 2)))
        good = publisher.publish(to("good", 2))
        assert await asyncio.wait_for(good, DEADLINE * 0.9) is Published.CONFIRMED
        # Told again once the connection that was left has been made anew.
        async with asyncio.timeout(30):
            while {one.route[1] for one in publisher.overdue(0.0)} != {  # noqa: ASYNC110
                "stuck-1",
                "stuck-2",
            }:
                await asyncio.sleep(0.1)
    assert set(await asyncio.wait_for(asyncio.gather(*stuck), 60)) == {Published.CONFIRMED}
    await publisher.close()

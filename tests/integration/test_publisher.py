"""Publishing to a real broker: confirmed, returned, and through a broker that goes away."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from kombu import Connection, Queue

from sandbox.broker import PrivateBroker
from workers.amqp.connection import CoalescingConnection
from workers.amqp.envelope import Publication, Published
from workers.amqp.publisher import Publisher

pytestmark = pytest.mark.slow


def declare(url: str, name: str) -> None:
    with Connection(url) as connection:
        connection.channel().queue_declare(
            name, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"}
        )


def fetch_all(url: str, name: str) -> list[str]:
    with Connection(url) as connection:
        queue, found = Queue(name, no_declare=True)(connection.channel()), []
        while (message := queue.get(no_ack=True)) is not None:
            found.append(message.properties["message_id"])
        return found


@pytest.fixture
async def publisher(vhost: str) -> AsyncIterator[Publisher]:
    found = Publisher(vhost)
    found.open()
    yield found
    await found.close()


async def test_many_at_once_are_all_confirmed_and_there(publisher: Publisher, vhost: str) -> None:
    declare(vhost, "taker")
    futures = [
        publisher.publish(Publication("", "taker", b"{}", message_id=str(one)))
        for one in range(3000)
    ]
    assert set(await asyncio.gather(*futures)) == {Published.CONFIRMED}
    assert fetch_all(vhost, "taker") == [str(one) for one in range(3000)]


async def test_what_nobody_takes_is_returned_and_what_stands_beside_it_is_not(
    publisher: Publisher, vhost: str
) -> None:
    declare(vhost, "taker")
    futures = [
        publisher.publish(
            Publication(
                "", "taker" if one % 3 else "nobody", b"{}", message_id=str(one), mandatory=True
            )
        )
        for one in range(300)
    ]
    outcomes = await asyncio.gather(*futures)
    assert [one is Published.RETURNED for one in outcomes] == [one % 3 == 0 for one in range(300)]


async def test_an_exchange_that_is_missing_is_asked_for_and_waited_for(vhost: str) -> None:
    declare(vhost, "taker")
    asked = asyncio.Event()
    publisher = Publisher(vhost, on_missing=asked.set)
    publisher.open()
    future = publisher.publish(Publication("late", "taker", b"{}", message_id="1"))
    await asyncio.wait_for(asked.wait(), 10)
    with Connection(vhost) as connection:
        channel = connection.channel()
        channel.exchange_declare("late", "direct", durable=True, auto_delete=False)
        channel.queue_bind("taker", "late", "taker")
    assert await asyncio.wait_for(future, 20) is Published.CONFIRMED
    await publisher.close()


async def test_one_that_the_broker_closes_the_channel_for_does_not_hold_up_the_others(
    publisher: Publisher, vhost: str
) -> None:
    declare(vhost, "taker")
    futures = [
        publisher.publish(
            Publication("nowhere" if one == 250 else "", "taker", b"{}", message_id=str(one))
        )
        for one in range(500)
    ]
    culprit = futures.pop(250)
    assert set(await asyncio.wait_for(asyncio.gather(*futures), 60)) == {Published.CONFIRMED}
    assert not culprit.done()
    with Connection(vhost) as connection:
        channel = connection.channel()
        channel.exchange_declare("nowhere", "direct", durable=True, auto_delete=False)
        channel.queue_bind("taker", "nowhere", "taker")
    assert await asyncio.wait_for(culprit, 30) is Published.CONFIRMED
    assert set(fetch_all(vhost, "taker")) == {str(one) for one in range(500)}


async def test_a_queue_that_is_full_holds_up_no_other_and_keeps_its_order(
    publisher: Publisher, vhost: str
) -> None:
    with Connection(vhost) as connection:
        limited = {"x-max-length": 5, "x-overflow": "reject-publish"}
        connection.channel().queue_declare(
            "full", durable=True, auto_delete=False, arguments=limited
        )
    declare(vhost, "taker")
    full = [
        publisher.publish(Publication("", "full", b"{}", message_id=str(one))) for one in range(20)
    ]
    others = [
        publisher.publish(Publication("", "taker", b"{}", message_id=str(one))) for one in range(20)
    ]
    assert set(await asyncio.wait_for(asyncio.gather(*others), 10)) == {Published.CONFIRMED}
    await asyncio.wait_for(asyncio.gather(*full[:5]), 10)
    await asyncio.sleep(1)
    assert not any(one.done() for one in full[5:])
    assert publisher.unconfirmed == 15
    drained, found = asyncio.create_task(publisher.drain()), []
    while not drained.done():
        found += await asyncio.to_thread(fetch_all, vhost, "full")
        await asyncio.sleep(0.05)
    found += fetch_all(vhost, "full")
    assert found == [str(one) for one in range(20)]


async def test_what_may_wait_only_so_long_for_a_full_queue_is_given_up(
    publisher: Publisher, vhost: str
) -> None:
    with Connection(vhost) as connection:
        limited = {"x-max-length": 1, "x-overflow": "reject-publish"}
        connection.channel().queue_declare(
            "full", durable=True, auto_delete=False, arguments=limited
        )

    def publish(patience: float | None) -> "asyncio.Future[Published]":
        return publisher.publish(
            Publication("", "full", b"{}", message_id="one", patience=patience)
        )

    assert await asyncio.wait_for(publish(1.0), 10) is Published.CONFIRMED
    patient, some = publish(None), [publish(1.0) for _ in range(20)]
    assert set(await asyncio.wait_for(asyncio.gather(*some), 10)) == {Published.REFUSED}
    # What comes later does not have to find out anew.
    assert await asyncio.wait_for(publish(1.0), 3) is Published.REFUSED
    assert not patient.done()
    assert len(fetch_all(vhost, "full")) == 1
    assert await asyncio.wait_for(patient, 20) is Published.CONFIRMED
    assert len(fetch_all(vhost, "full")) == 1
    assert await asyncio.wait_for(publish(1.0), 10) is Published.CONFIRMED


@pytest.fixture(scope="module")
def own_broker() -> Iterator[PrivateBroker]:
    """A node that may be killed."""
    with PrivateBroker() as node:
        yield node


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_nothing_is_lost_when_the_broker_goes_away_in_the_middle(
    own_broker: PrivateBroker, how: str
) -> None:
    name = f"taker-{uuid.uuid4().hex[:6]}"
    declare(own_broker.url, name)
    # RabbitMQ 3.10 does not bring back a quorum queue that was declared a moment before the node
    # was killed.
    await asyncio.sleep(6)
    publisher = Publisher(own_broker.url)
    publisher.open()
    futures = []
    for number in range(6000):
        futures.append(publisher.publish(Publication("", name, b"x" * 200, message_id=str(number))))
        if number == 3000:
            await asyncio.sleep(0.1)
            if how == "kill":
                await asyncio.to_thread(own_broker.kill)
            restarted = asyncio.create_task(asyncio.to_thread(own_broker.restart))
        if number % 100 == 0:
            await asyncio.sleep(0)
    await restarted
    assert set(await asyncio.wait_for(asyncio.gather(*futures), 60)) == {Published.CONFIRMED}
    await publisher.close()
    # Some may be there twice: what was not confirmed was sent again.
    assert set(fetch_all(own_broker.url, name)) == {str(one) for one in range(6000)}


async def test_a_channel_that_the_broker_never_opens_holds_up_what_is_tried_for_no_longer(
    vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(vhost, "taker")
    open_channel, silent = CoalescingConnection.channel, []

    def channel(connection: CoalescingConnection, *given: Any, **named: Any) -> Any:
        if connection.params.client_properties["connection_name"].endswith("apart"):
            silent.append(connection)
            if connection is silent[0]:
                return None
        return open_channel(connection, *given, **named)

    monkeypatch.setattr(CoalescingConnection, "channel", channel)
    publisher = Publisher(vhost, deadline=0.3)
    publisher.open()
    publisher.publish(Publication("nowhere", "taker", b"{}", message_id="culprit"))
    other = publisher.publish(Publication("", "taker", b"{}", message_id="other"))
    assert await asyncio.wait_for(other, 30) is Published.CONFIRMED
    assert silent[-1] is not silent[0]
    await publisher.close()

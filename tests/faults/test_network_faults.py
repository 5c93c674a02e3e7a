"""Network faults 28 to 34, between the worker and its broker."""

import asyncio
import random
import re
import time
from collections.abc import Callable, Iterator

import pytest
from kombu import Connection, Queue

from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from sandbox.worker import WorkerProcess
from tests.support.load import Load, memory_flat
from tests.support.proxy import ACK, DELIVER, PUBLISH, Drip, Proxy, Reset, Way
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.envelope import Publication, Published
from workers.amqp.publisher import Publisher
from workers.amqp.topology import declare as declare_topology
from workers.amqp.topology import topology

pytestmark = pytest.mark.slow

#: Seconds; pika by itself would need eight to sixteen to notice.
HEARTBEAT = 3
#: Of a loaded machine.
SLACK = 2.0


@pytest.fixture(scope="module")
def proxy(broker: PrivateBroker) -> Iterator[Proxy]:
    """The network between the worker and its broker."""
    with Proxy(broker.port) as found:
        yield found


@pytest.fixture(scope="module")
def shop(
    broker: PrivateBroker,
    proxy: Proxy,
    simulated: SimulatedOpenStack,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Workshop]:
    """A workshop whose one worker reaches the broker through the proxy; every test leaves it well."""
    folder = tmp_path_factory.mktemp("network")
    url = broker.add_vhost(folder.name)
    declare_topology(url, topology())
    with Workshop(url, simulated, folder) as found:
        options = f"heartbeat={HEARTBEAT}&stack_timeout=2"
        found.settings |= {
            "ECS_BROKER_URL": f"{proxy.url_of(url)}?{options}",
            "ECS_COMMAND_TIMEOUT": "120",
        }
        found.worker()
        yield found


@pytest.fixture
def load(shop: Workshop, proxy: Proxy, simulated: SimulatedOpenStack) -> Iterator[Load]:
    with Load(shop.broker_url, simulated, shop.tenant()) as found, memory_flat(shop.running):
        yield found
        proxy.clear()
        shop.running.wait_ready()


def seconds_until(holds: Callable[[], bool], limit: float = 30.0) -> float:
    began = time.monotonic()
    eventually(holds, limit)
    return time.monotonic() - began


def has_noticed(worker: WorkerProcess) -> bool:
    """Tell whether it says that both its connections are gone."""
    problems = " ".join(worker.problems())
    return "not consuming" in problems and "not publishing" in problems


@pytest.mark.parametrize("when", ["before", "after"])
def test_28_a_reset_beside_an_ack_costs_nothing(proxy: Proxy, load: Load, when: str) -> None:
    cut = []

    async def cut_at_ack(way: Way, data: bytes) -> bytes:
        found = ACK.search(data)
        if way is Way.UP and found is not None and len(cut) < 3:
            cut.append(found)
            raise Reset(data[: found.start() if when == "before" else found.end()])
        return data

    proxy.tamper = cut_at_ack
    load.send(*load.mix())
    load.account()
    assert len(cut) == 3
    load.recovered()


@pytest.mark.parametrize("ways", [(Way.UP, Way.DOWN), (Way.DOWN,)], ids=["29", "30"])
def test_29_30_a_network_that_swallows_is_noticed_within_two_heartbeats(
    shop: Workshop, proxy: Proxy, load: Load, ways: tuple[Way, ...]
) -> None:
    worker = shop.running
    load.send(*load.mix())
    eventually(load.has_begun)
    proxy.blackhole(*ways)
    assert seconds_until(lambda: has_noticed(worker)) < 2 * HEARTBEAT + SLACK
    proxy.clear()
    load.recovered()
    load.account()


async def test_31_a_late_confirm_is_never_credited_to_another_message(
    vhost: str, broker: PrivateBroker
) -> None:
    declare(vhost, "taker")
    swallowed: list[bytes] = []
    is_late, is_deaf = True, False

    async def tamper(way: Way, data: bytes) -> bytes:
        if way is Way.DOWN and is_late and ACK.search(data):
            await asyncio.sleep(2.5)
        if way is Way.UP and is_deaf and PUBLISH.search(data):
            swallowed.append(data)
            return b""
        return data

    with Proxy(broker.port) as proxy:
        publisher = Publisher(proxy.url_of(vhost), deadline=1.0)
        publisher.open()
        proxy.tamper = tamper
        first = publisher.publish(Publication("", "taker", b"{}", message_id="first"))
        await until(lambda: publisher.is_up)
        await until(lambda: depth(vhost, "taker") == 1)
        is_late, is_deaf = (
            True,
            True,
        )  # from now on nothing arrives, and the first one's confirm is on its way
        second = publisher.publish(Publication("", "taker", b"{}", message_id="second"))
        await until(lambda: publisher.reconnects >= 1 and len(swallowed) >= 2)
        assert not second.done(), "credited with another message's confirm"
        is_late = is_deaf = False
        assert (
            await asyncio.wait_for(asyncio.gather(first, second), 30) == [Published.CONFIRMED] * 2
        )
        await publisher.close()
    assert set(fetch_all(vhost, "taker")) == {"first", "second"}


@pytest.mark.parametrize(
    ("way", "frame"), [(Way.UP, PUBLISH), (Way.DOWN, DELIVER)], ids=["publish", "deliver"]
)
def test_32_a_connection_that_is_cut_in_a_frame_costs_nothing(
    proxy: Proxy, load: Load, way: Way, frame: re.Pattern[bytes]
) -> None:
    cut = []

    async def cut_in_frame(went: Way, data: bytes) -> bytes:
        found = frame.search(data)
        if went is way and found is not None and len(cut) < 3:
            cut.append(found)
            raise Reset(data[: (found.start() + len(data)) // 2])
        return data

    proxy.tamper = cut_in_frame
    load.send(*load.mix())
    load.account()
    assert len(cut) == 3


def test_33_a_slow_and_lossy_network_costs_nothing_but_time(proxy: Proxy, load: Load) -> None:
    chance = random.Random(33)
    resets = []

    async def tamper(_: Way, data: bytes) -> bytes:
        await asyncio.sleep(chance.uniform(0, 0.05))
        if chance.random() < 0.02:
            resets.append(len(data))
            raise Reset(data[: chance.randrange(len(data))])
        return data

    proxy.drips = {Way.UP: Drip(200, 0.005), Way.DOWN: Drip(200, 0.005)}
    proxy.tamper = tamper
    load.send(*load.mix(12))
    eventually(lambda: len(resets) >= 5, 60)
    proxy.clear()
    load.recovered()
    load.account()


def test_34_a_handshake_at_a_byte_a_second_is_given_up_and_tried_again(
    shop: Workshop, proxy: Proxy, load: Load
) -> None:
    worker = shop.running
    proxy.drips = {Way.DOWN: Drip(1, 1.0)}
    proxy.reset()
    before = proxy.accepted
    eventually(lambda: proxy.accepted >= before + 6, 30)
    assert has_noticed(worker)
    proxy.clear()
    proxy.reset()
    load.send(*load.mix())
    load.recovered()
    load.account()


def test_34_a_worker_that_gets_no_further_at_its_start_can_be_ended(
    workshop: Workshop, broker: PrivateBroker
) -> None:
    with Proxy(broker.port) as network:
        network.drips = {Way.DOWN: Drip(1, 1.0)}
        worker = workshop.worker(wait=False, ECS_BROKER_URL=network.url_of(workshop.broker_url))
        eventually(lambda: network.accepted > 0, 30)
        assert worker.problems()
        assert worker.terminate() == 0


def declare(url: str, name: str) -> None:
    with Connection(url) as connection:
        connection.channel().queue_declare(
            name, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"}
        )


def depth(url: str, name: str) -> int:
    with Connection(url) as connection:
        return int(connection.channel().queue_declare(name, passive=True).message_count)


def fetch_all(url: str, name: str) -> list[str]:
    with Connection(url) as connection:
        queue, found = Queue(name, no_declare=True)(connection.channel()), []
        while (message := queue.get(no_ack=True)) is not None:
            found.append(message.properties["message_id"])
        return found


async def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """As `eventually`, on a loop that goes on."""
    limit = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < limit, f"does not hold after {seconds} s"
        await asyncio.sleep(0.05)

"""The Python client while the broker and the worker fail: each request ends in its one result, or
in an error that says what to do.
"""

import asyncio
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from kombu import Connection

from ecs_client import AsyncEcsClient, BrokerUnavailable, EcsClient, EcsError
from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from tests.support.responder import OK, Responder
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateBroker]:
    """A node that may be killed."""
    with PrivateBroker() as found:
        yield found


@pytest.fixture(scope="module")
def shop(
    node: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    declare(node.url, topology())
    declared_at = time.monotonic()
    with Workshop(node.url, simulated, tmp_path_factory.mktemp("client-faults")) as found:
        found.worker()
        # RabbitMQ 3.10 does not bring back a quorum queue that was declared a moment before the
        # node was killed.
        time.sleep(max(0.0, declared_at + 6 - time.monotonic()))
        yield found


async def reboots(client: AsyncEcsClient, servers: list[str]) -> "dict[str, asyncio.Task[bytes]]":
    """Begin a hard reboot of each server, and as many reads; the tasks of the reboots by key."""

    async def reboot(key: str, server: str) -> bytes:
        body = {"reboot": {"type": "HARD"}}
        fields = {"server_id": server, "body": body}
        return (await client.call("server.action", fields, message_id=key)).body

    return {
        (key := uuid.uuid4().hex): asyncio.create_task(reboot(key, server)) for server in servers
    }


async def test_a_broker_that_restarts_and_a_worker_that_is_killed_cost_no_request_and_repeat_none(
    shop: Workshop, node: PrivateBroker
) -> None:
    servers = await asyncio.to_thread(shop.tenant().make_servers, 20)
    url = f"{node.url}?heartbeat=4"
    async with AsyncEcsClient(url, tenant="tenant-a", timeout=90, broker_timeout=90) as client:
        asked = await reboots(client, servers)
        reads = [asyncio.create_task(client.call("server.list")) for _ in range(60)]
        await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.to_thread(node.restart)
        reads += [asyncio.create_task(client.call("server.list")) for _ in range(60)]
        await asyncio.wait(reads[60:], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.to_thread(shop.running.kill)
        await asyncio.to_thread(shop.worker)
        assert {(await one).http_status for one in reads} == {200}
        results = {key: await one for key, one in asked.items()}
        assert {one[:11] for one in results.values()} == {b'{"code":200'}
        for key, server in zip(asked, servers, strict=True):
            fields = {"server_id": server, "body": {"reboot": {"type": "HARD"}}}
            again = await client.call("server.action", fields, message_id=key)
            assert again.body == results[key]
    for server in servers:
        assert (await asyncio.to_thread(shop.tenant().actions, server)).count("reboot") == 1


def test_a_broker_under_alarm_is_told_and_results_are_still_acked(
    shop: Workshop, node: PrivateBroker
) -> None:
    with Connection(node.url) as connection:
        connection.Producer().publish({"code": 1}, exchange="ecs.results", routing_key="order.x")
    with EcsClient(node.url, tenant="tenant-a", broker_timeout=3) as client:
        assert client.call("server.list").http_status == 200
        node.rabbitmqctl("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            eventually(lambda: "memory" in node.evaluate("rabbit_alarm:get_alarms()"))
            with pytest.raises(BrokerUnavailable, match="blocks publishers"):
                client.call("server.list")
            with client.results() as results:
                assert next(results).envelope == {"code": 1}
                assert results.next(0.5) is None  # and it is acked
        finally:
            node.rabbitmqctl("set_vm_memory_high_watermark", "0.4")
        eventually(lambda: client.call("server.list", timeout=20).http_status == 200)
    with Connection(node.url) as connection:
        left = connection.channel().queue_declare("ecs.order-results", passive=True)
        assert left.message_count == 0


def test_a_broker_that_hangs_ends_no_request_late_and_is_left_by_the_heartbeat(
    node: PrivateBroker,
) -> None:
    vhost = node.add_vhost("hangs")
    declare(vhost, topology())
    with (
        Responder(vhost),
        EcsClient(f"{vhost}?heartbeat=2&socket_timeout=2", broker_timeout=2) as client,
    ):
        assert client.call("server.list").body == OK
        node.pause()
        try:
            began = time.monotonic()
            with pytest.raises(EcsError, match="safe"):
                client.call("server.list", timeout=3)
            assert time.monotonic() - began < 8
            eventually(lambda: client.problem is not None, 20)
        finally:
            node.resume()
        assert client.call("server.list", timeout=30).body == OK


def test_what_is_not_confirmed_in_time_is_published_anew_on_another_channel(
    node: PrivateBroker, caplog: pytest.LogCaptureFixture
) -> None:
    vhost = node.add_vhost("stuck")
    declare(vhost, topology())
    # A quorum queue whose leader does nothing: its messages are not confirmed, and all else goes on.
    leader = "whereis('stuck_ecs.reads')"
    with Responder(vhost) as responder, EcsClient(vhost, broker_timeout=40, timeout=40) as client:
        assert client.call("server.show").body == OK
        node.evaluate(f"sys:suspend({leader})")
        try:
            with ThreadPoolExecutor() as pool:
                asked = [pool.submit(client.call, "server.list") for _ in range(3)]
                assert client.call("server.action", timeout=10).body == OK
                time.sleep(6)
                node.evaluate(f"sys:resume({leader})")
                assert {one.result().body for one in asked} == {OK}
                keys = {one.result().message_id for one in asked}
        finally:
            node.evaluate(f"catch sys:resume({leader})")
        assert client.call("server.list").body == OK
    assert "its channel is opened anew" in caplog.text
    # The broker may have kept the first copies, too: they are the same requests.
    copies = [one.properties["message_id"] for one in responder.requests]
    assert {copies.count(one) for one in keys} <= {1, 2}

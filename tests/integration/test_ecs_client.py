"""The Python client before a real broker, a real worker and the simulated cloud."""

import asyncio
import threading
import uuid
from collections.abc import Iterator

import pytest

from ecs_client import AsyncEcsClient, EcsClient, ServerNotFound
from tests.support.orders import paid
from tests.support.workshop import Workshop


@pytest.fixture
def client(workshop: Workshop) -> Iterator[EcsClient]:
    """A client of tenant-a, and a worker."""
    workshop.worker()
    with EcsClient(workshop.broker_url, tenant="tenant-a", user="user-1") as found:
        yield found


def test_a_command_is_answered_and_a_failure_is_raised_by_its_code(client: EcsClient) -> None:
    reply = client.call("server.list", {"pageSize": 5})
    assert reply.http_status == 200
    assert reply.result()["servers"] == []
    missing = client.call("server.show", {"server_id": str(uuid.uuid4())})
    assert missing.http_status == 400
    with pytest.raises(ServerNotFound) as caught:
        missing.result()
    assert caught.value.code == "101.001033"
    assert caught.value.message_id == missing.message_id


def test_threads_share_a_client(client: EcsClient) -> None:
    found: list[int] = []

    def work() -> None:
        found.extend(client.call("server.list").http_status for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == [200] * 80


def test_an_order_is_followed_by_its_updates_and_ends_on_the_queue_of_results(
    client: EcsClient,
) -> None:
    order = paid("renew", str(uuid.uuid4()))
    with client.updates(resource="order", id=order["orderId"]) as updates:
        assert updates.wait_until_consuming(10)
        assert client.orders.submit(order) == order["orderId"]
        statuses = []
        for update in updates:
            assert update.event_id
            statuses.append(update.status)
            if update.final:
                break
    assert statuses[-1] == "failed"
    with client.results() as results:
        result = next(iter(results))
        assert not result.succeeded
        assert result.operation == "order.renew"
        assert result.envelope["data"]["orderId"] == order["orderId"]


async def test_a_thousand_requests_are_under_way_at_once(workshop: Workshop) -> None:
    workshop.worker()
    async with AsyncEcsClient(workshop.broker_url, tenant="tenant-a") as client:
        replies = await asyncio.gather(*(client.call("server.list") for _ in range(1000)))
        assert {one.http_status for one in replies} == {200}
        assert len({one.message_id for one in replies}) == 1000

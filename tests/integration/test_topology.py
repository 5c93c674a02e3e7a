"""The topology on a real broker."""

import asyncio
import json

import pytest
from kombu import Connection, Queue

from tests.support.workshop import Workshop
from workers.amqp import declare as redeclare
from workers.amqp.declare import TopologyDeclarer
from workers.amqp.topology import TopologyMismatch, compare, declare, topology


def test_declaring_twice_changes_nothing(vhost: str) -> None:
    assert "ecs.servers" in compare(vhost, topology((5, 30)))[1]
    for _ in range(2):
        declare(vhost, topology((5, 30)))
    assert compare(vhost, topology((5, 30)))[1] == []


def test_what_is_declared_is_the_contracts(vhost: str) -> None:
    declare(vhost, topology())
    with Connection(vhost) as connection:
        channel = connection.channel()
        for name in (
            "ecs.servers",
            "ecs.images",
            "ecs.orders",
            "ecs.order-results",
            "ecs.undelivered",
            "ecs.dead",
            "ecs.retry.5",
            "ecs.retry.30",
            "ecs.retry.120",
            "ecs.retry.600",
            "ecs.retry.1800",
        ):
            channel.queue_declare(name, passive=True)
        producer = connection.Producer(channel)
        for exchange, key, queue in (
            ("ecs.commands", "server.action", "ecs.servers"),
            ("ecs.commands", "image.update", "ecs.images"),
            ("ecs.orders", "order.new", "ecs.orders"),
            ("ecs.orders", "anything", "ecs.orders"),
            ("ecs.commands", "order.plan", "ecs.orders"),
            ("ecs.results", "order.new", "ecs.order-results"),
            ("ecs.commands", "volume.create", "ecs.undelivered"),
            ("ecs.dead", "ecs.servers", "ecs.dead"),
        ):
            producer.publish(
                b"{}", exchange=exchange, routing_key=key, message_id=f"{exchange} {key}"
            )
            got = wait_for_message(channel, queue)
            assert got.properties["message_id"] == f"{exchange} {key}"


def wait_for_message(channel: object, queue: str) -> object:
    for _ in range(200):
        message = Queue(queue, no_declare=True)(channel).get(no_ack=True)
        if message is not None:
            return message
    raise AssertionError(f"nothing came to {queue}")


def test_a_queue_with_other_arguments_is_told_in_one_line(vhost: str) -> None:
    with Connection(vhost) as connection:
        connection.channel().queue_declare("ecs.servers", durable=True, auto_delete=False)
    with pytest.raises(TopologyMismatch) as caught:
        declare(vhost, topology())
    assert "ecs.servers" in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_what_nobody_misses_is_declared_again_now_and_then(
    vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redeclare, "EVERY", 0.2)
    declare(vhost, topology((5,)))
    with Connection(vhost) as connection:
        connection.channel().exchange_delete("ecs.orders")
    found = TopologyDeclarer(vhost, topology((5,)), on_mismatch=lambda: None)
    watching = asyncio.create_task(found.watch())
    async with asyncio.timeout(15):
        while compare(vhost, topology((5,)))[1]:  # noqa: ASYNC110 - the broker tells nobody
            await asyncio.sleep(0.2)
    watching.cancel()
    found.close()


def test_the_worker_refuses_to_start_on_a_queue_with_other_arguments(workshop: Workshop) -> None:
    with Connection(workshop.broker_url) as connection:
        channel = connection.channel()
        channel.queue_delete("ecs.servers")
        channel.queue_declare("ecs.servers", durable=True, auto_delete=False)
    done = workshop.command("run")
    assert done.returncode == 7
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert "ecs.servers" in line
    assert workshop.command("check").returncode == 5


def test_the_command_line_shows_and_applies_it(workshop: Workshop) -> None:
    shown = workshop.command("topology", "show", "-o", "json")
    assert shown.returncode == 0
    names = {row["name"] for row in json.loads(shown.stdout)}
    assert {"ecs.commands", "ecs.orders", "ecs.retry.5"} <= names
    assert workshop.command("topology", "apply").returncode == 0
    down = workshop.command(
        "topology", "apply", ECS_BROKER_URL="amqp://guest:secret-word@127.0.0.1:1//"
    )
    assert down.returncode == 4
    assert "secret-word" not in down.stderr + down.stdout

"""The topology on a real broker."""

import asyncio
import json
import threading

import pytest
from kombu import Connection, Queue

from messages.commands import Operation
from tests.support.names import queue_for
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp import declare as redeclare
from workers.amqp.declare import TopologyDeclarer
from workers.amqp.names import Names
from workers.amqp.queues import QueueDepth, QueueDepths, Role
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
            "ecs.reads",
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
            ("ecs.commands", "server.list", "ecs.reads"),
            ("ecs.commands", "image.show", "ecs.reads"),
            ("ecs.commands", "order.plan", "ecs.reads"),
            ("ecs.results", "order.new", "ecs.order-results"),
            ("ecs.commands", "volume.create", "ecs.undelivered"),
            ("ecs.dead", "ecs.servers", "ecs.dead"),
        ):
            producer.publish(
                b"{}", exchange=exchange, routing_key=key, message_id=f"{exchange} {key}"
            )
            got = wait_for_message(channel, queue)
            assert got.properties["message_id"] == f"{exchange} {key}"


def test_depths_tell_ready_messages_and_consumers_and_which_queue_is_missing(vhost: str) -> None:
    wanted = topology((5, 30))
    with QueueDepths(vhost, Names(), wanted) as reader, Connection(vhost) as connection:
        assert {(one.ready, one.consumers) for one in reader.read()} == {(None, None)}
        declare(vhost, wanted)
        channel = connection.channel()
        producer = connection.Producer(channel)
        for exchange, key in (("ecs.orders", "order.new"), ("ecs.results", "order.new")):
            producer.publish(b"{}", exchange=exchange, routing_key=key)
        channel.basic_consume("ecs.dead")

        def found() -> dict[str, QueueDepth]:
            return {one.name: one for one in reader.read()}

        eventually(lambda: found()["ecs.order-results"].ready == 1)
        eventually(lambda: found()["ecs.orders"].ready == 1)
        assert found()["ecs.orders"] == QueueDepth("ecs.orders", Role.INPUT, 1, 0)
        assert found()["ecs.dead"] == QueueDepth("ecs.dead", Role.DEAD, 0, 1)
        assert found()["ecs.retry.30"] == QueueDepth("ecs.retry.30", Role.RETRY, 0, 0, 30)
        assert found().keys() == {one.name for one in wanted.queues}
        # A connection that is lost is made again by the next reading.
        assert reader._connection is not None
        reader._connection.connection.transport.close()
        assert found()["ecs.orders"].ready == 1


#: What the version before bound to `ecs.commands`.
OLD_BINDINGS = {"ecs.servers": "server.#", "ecs.images": "image.#", "ecs.orders": "order.#"}


def bind_as_before(url: str) -> None:
    with Connection(url) as connection:
        for queue, key in OLD_BINDINGS.items():
            connection.channel().queue_bind(queue, "ecs.commands", key)


def depths(url: str, *queues: str) -> tuple[int, ...]:
    with Connection(url) as connection:
        channel = connection.channel()
        return tuple(channel.queue_declare(one, passive=True).message_count for one in queues)


def test_bindings_of_the_version_before_are_removed_whenever_it_is_declared(vhost: str) -> None:
    declare(vhost, topology())
    for _ in range(2):
        bind_as_before(vhost)
        declare(vhost, topology())
    with Connection(vhost) as connection:
        for operation in Operation:
            connection.Producer().publish(b"{}", exchange="ecs.commands", routing_key=operation)
    reads = sum(queue_for("ecs.commands", one) == "ecs.reads" for one in Operation)
    found = ("ecs.reads", "ecs.servers", "ecs.images", "ecs.orders", "ecs.undelivered")
    eventually(lambda: depths(vhost, *found) == (reads, 3, 3, 0, 0))


def test_a_command_has_a_queue_at_every_instant_while_bindings_are_replaced(vhost: str) -> None:
    declare(vhost, topology())
    with Connection(vhost) as connection:
        for one in Operation:  # as the version before had left it
            connection.channel().queue_unbind(queue_for("ecs.commands", one), "ecs.commands", one)
    bind_as_before(vhost)
    stop, sent = threading.Event(), []

    def publish() -> None:
        with Connection(vhost) as connection:
            producer = connection.Producer()
            while not stop.is_set():
                for one in ("server.list", "server.action", "image.update", "order.plan"):
                    producer.publish(b"{}", exchange="ecs.commands", routing_key=one)
                    sent.append(one)

    publishing = threading.Thread(target=publish)
    publishing.start()
    eventually(lambda: len(sent) > 100)
    for _ in range(3):
        declare(vhost, topology())
        bind_as_before(vhost)
    declare(vhost, topology())
    stop.set()
    publishing.join()
    changes = len(sent) // 4

    def all_came() -> bool:
        servers, images, reads, orders = depths(
            vhost, "ecs.servers", "ecs.images", "ecs.reads", "ecs.orders"
        )
        # A change comes once; a read may come twice while both of its bindings are there.
        return images == changes and servers >= changes and servers + reads + orders >= 3 * changes

    eventually(all_came)
    assert depths(vhost, "ecs.undelivered") == (0,)


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
    retired = {
        (row["name"], row["bindings"])
        for row in json.loads(shown.stdout)
        if row["kind"] == "retired"
    }
    assert retired == {(queue, f"ecs.commands {key}") for queue, key in OLD_BINDINGS.items()}
    bind_as_before(workshop.broker_url)
    assert workshop.command("topology", "apply").returncode == 0
    with Connection(workshop.broker_url) as connection:
        connection.Producer().publish(b"{}", exchange="ecs.commands", routing_key="server.list")
    eventually(
        lambda: depths(workshop.broker_url, "ecs.reads", "ecs.servers", "ecs.orders") == (1, 0, 0)
    )
    down = workshop.command(
        "topology", "apply", ECS_BROKER_URL="amqp://guest:secret-word@127.0.0.1:1//"
    )
    assert down.returncode == 4
    assert "secret-word" not in down.stderr + down.stdout

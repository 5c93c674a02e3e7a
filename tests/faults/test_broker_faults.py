"""Broker faults 13 to 27, on a node of our own: what happens to it while requests of every kind are
under way.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from kombu import Connection, Queue

from messages.commands import Operation
from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from tests.support.kinds import KINDS, Asked
from tests.support.load import Load, memory_flat
from tests.support.names import INPUT_QUEUES, queue_for
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.envelope import Publication, Published
from workers.amqp.publisher import Publisher
from workers.amqp.topology import compare, declare, topology

pytestmark = pytest.mark.slow

#: Seconds.
HEARTBEAT = 3
DELAYS = (1, 5)
#: Erlang.
CLOSE_ALL = (
    '[rabbit_networking:close_connection(P, "test") || P <- rabbit_networking:connections()]'
)
ALARMS = "rabbit_alarm:get_alarms()"


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateBroker]:
    """A node that may be killed."""
    with PrivateBroker() as found:
        yield found


@pytest.fixture(scope="module")
def shop(
    node: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    """A workshop with one worker; every test leaves both well."""
    declare(node.url, topology(DELAYS))
    declared_at = time.monotonic()
    with Workshop(node.url, simulated, tmp_path_factory.mktemp("broker")) as found:
        found.settings |= {
            "ECS_BROKER_URL": f"{node.url}?heartbeat={HEARTBEAT}&stack_timeout=5",
            "ECS_COMMAND_TIMEOUT": "120",
            "ECS_RETRY_DELAYS": "1,5",
        }
        found.worker()
        # RabbitMQ 3.10 does not bring back a quorum queue that was declared a moment before the
        # node was killed.
        time.sleep(max(0.0, declared_at + 6 - time.monotonic()))
        yield found


@pytest.fixture
def load(shop: Workshop, node: PrivateBroker, simulated: SimulatedOpenStack) -> Iterator[Load]:
    with Load(node.url, simulated, shop.tenant()) as found, memory_flat(shop.running):
        yield found
        simulated.clear_faults()
        shop.running.wait_ready()


def under_way(load: Load) -> None:
    """Requests of every kind, begun."""
    load.send(*load.mix())
    eventually(load.has_begun)


def logged(shop: Workshop, event: str) -> list[dict[str, Any]]:
    """The lines of that event in the worker's log."""
    lines = (
        json.loads(line)
        for line in shop.running.log.read_text().splitlines()
        if line.startswith("{")
    )
    return [line for line in lines if line["event"] == event]


# The node goes away, and comes back.


def killed(node: PrivateBroker) -> None:
    node.kill()
    node.restart()


def stopped_and_started(node: PrivateBroker) -> None:
    node.rabbitmqctl("stop_app")
    node.rabbitmqctl("start_app")


def restarted_again_and_again(node: PrivateBroker) -> None:
    for _ in range(2):
        node.restart()


def frozen(node: PrivateBroker) -> None:
    node.pause()
    time.sleep(3 * HEARTBEAT)
    node.resume()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(killed, id="13"),
        pytest.param(stopped_and_started, id="14"),
        pytest.param(restarted_again_and_again, id="15"),
        pytest.param(frozen, id="16"),
    ],
)
def test_13_to_16_a_broker_that_goes_away_and_comes_back_loses_nothing(
    node: PrivateBroker, load: Load, fault: Callable[[PrivateBroker], None]
) -> None:
    # What the node is told of bindings reaches its disk later: killed a moment after, it would know
    # the load's no more.
    node.evaluate("mnesia:sync_log()")
    under_way(load)
    fault(node)
    load.recovered()
    load.account()


def test_17_connections_that_are_closed_again_and_again_come_back_at_different_times(
    node: PrivateBroker, shop: Workshop, load: Load
) -> None:
    before = len(logged(shop, "connection.down"))
    under_way(load)
    node.evaluate(f"[begin {CLOSE_ALL}, timer:sleep(700) end || _ <- lists:seq(1, 8)]")
    load.recovered()
    load.account()
    waits = [line["again_in"] for line in logged(shop, "connection.down")[before:]]
    assert len(waits) >= 8
    # Five connections draw from some twenty different first waits.
    assert len(set(waits)) >= 8, "all at once, every time"


# It takes nothing.


@contextmanager
def alarm(node: PrivateBroker, what: str) -> Iterator[None]:
    command, bad, good = {
        "memory": ("set_vm_memory_high_watermark", "0", "0.6"),
        "disk": ("set_disk_free_limit", "1000GB", "50MB"),
    }[what]
    node.rabbitmqctl(command, bad)
    try:
        # It comes with the broker's next look at its memory or disk.
        eventually(lambda: "resource_limit" in node.evaluate(ALARMS), 30)
        yield
    finally:
        node.rabbitmqctl(command, good)


@pytest.mark.parametrize("what", [pytest.param("memory", id="18"), pytest.param("disk", id="19")])
def test_18_19_a_broker_in_alarm_is_waited_for(
    node: PrivateBroker, shop: Workshop, load: Load, simulated: SimulatedOpenStack, what: str
) -> None:
    slow = by_name("reboot", load, shop, simulated)
    simulated.fault("virt.reboot", match=next(iter(slow.actions)), held=True)
    load.send(slow, *load.mix())
    with alarm(node, what):
        # Its final update is yet to be published: a broker tells of an alarm to who publishes.
        simulated.clear_faults()
        eventually(lambda: any("takes no messages" in one for one in shop.running.problems()), 30)
    load.recovered()
    load.account()
    assert not logged(shop, "publisher.confirm_overdue")


async def test_18_19_what_an_alarm_held_up_is_not_overdue_when_it_ends(
    node: PrivateBroker, shop: Workshop
) -> None:
    publisher = Publisher(node.url, deadline=3.0)
    publisher.open()
    assert (
        await publisher.publish(Publication("ecs.results", "order.x", b"{}")) is Published.CONFIRMED
    )
    with alarm(node, "disk"):
        futures = [
            publisher.publish(Publication("ecs.results", "order.x", b"{}" * 10_000))
            for _ in range(500)
        ]
        await asyncio.sleep(5)
        assert not any(one.done() for one in futures)
        assert publisher.is_blocked
    assert set(await asyncio.wait_for(asyncio.gather(*futures), 30)) == {Published.CONFIRMED}
    assert publisher.reconnects == 0
    await publisher.close()
    with Connection(node.url) as connection:
        connection.channel().queue_purge("ecs.order-results")


def by_name(name: str, load: Load, shop: Workshop, simulated: SimulatedOpenStack) -> Asked:
    (kind,) = [kind for kind in KINDS if kind.name == name]
    return kind.ask(shop.tenant(), simulated)


def limit_consumers(node: PrivateBroker, timeout: int, tick: int) -> None:
    """Milliseconds for an ack, and between two looks; for connections that are made from now on."""
    setting = f"application:set_env(rabbit, consumer_timeout, {timeout})"
    looking = f"application:set_env(rabbit, channel_tick_interval, {tick})"
    node.evaluate(f"{setting}, {looking}, {CLOSE_ALL}")


def test_20_a_consumer_that_the_broker_finds_too_slow_gets_its_messages_again_and_does_nothing_twice(
    node: PrivateBroker, shop: Workshop, load: Load, simulated: SimulatedOpenStack
) -> None:
    limits = (
        "[application:set_env(rabbit, K, V) || "
        "{{K, V}} <- [{{consumer_timeout, {}}}, {{channel_tick_interval, {}}}]]"
    )
    node.evaluate(f"{limits.format(1500, 500)}, {CLOSE_ALL}")
    shop.running.wait_ready()
    slow = [by_name("reboot", load, shop, simulated) for _ in range(2)]
    for one in slow:
        simulated.fault("virt.reboot", match=next(iter(one.actions)), delay=6)
    load.send(*slow, *load.mix())
    load.account()
    closed = [line["why"] for line in logged(shop, "consumer.channel_closed")]
    assert any("timeout" in why for why in closed), closed
    limit_consumers(node, 1_800_000, 60_000)
    load.recovered()


# Something of ours is gone.


def test_21_whatever_is_deleted_is_declared_and_consumed_again(
    node: PrivateBroker, shop: Workshop, load: Load
) -> None:
    under_way(load)
    eventually(lambda: all(load.requester.depth(queue) == 0 for queue in INPUT_QUEUES))
    with Connection(node.url) as connection:
        channel = connection.channel()
        for queue in topology(DELAYS).queues:
            channel.queue_delete(queue.name)
        for exchange in topology(DELAYS).exchanges:
            channel.exchange_delete(exchange.name)
            if exchange.name in load.requester.BOUND_TO:
                # Else the worker would declare it, and tell its updates to nobody before the load
                # is bound to it again.
                exchange(channel).declare()
                load.requester.declare()
    eventually(lambda: compare(node.url, topology(DELAYS))[1] == [], 30)
    shop.running.wait_ready()
    load.recovered()
    load.account()


def test_21_commands_whose_binding_is_gone_are_sent_again(
    node: PrivateBroker, shop: Workshop, load: Load
) -> None:
    """What the broker could not route for want of our own binding is sent again, not refused."""
    asked = load.mix(6)
    with Connection(node.url) as connection:
        channel = connection.channel()
        for operation in Operation:
            queue = queue_for("ecs.commands", operation)
            channel.queue_unbind(queue, "ecs.commands", operation)
    load.send(*asked)
    load.account()
    assert '"event":"message.unbound"' in shop.logs()


def test_21_what_is_to_be_parked_waits_for_the_queue_of_the_dead(
    node: PrivateBroker, load: Load
) -> None:
    with Connection(node.url) as connection:
        connection.channel().queue_delete("ecs.dead")
    load.requester.publish("ecs.commands", "server.action", b"{")
    eventually(lambda: compare(node.url, topology(DELAYS))[1] == [], 30)
    eventually(lambda: load.requester.depth("ecs.dead") == 1, 30)
    with Connection(node.url) as connection:
        connection.channel().queue_purge("ecs.dead")


def test_22_a_reply_queue_that_is_gone_costs_nothing(
    node: PrivateBroker, shop: Workshop, load: Load, simulated: SimulatedOpenStack
) -> None:
    asked = by_name("reboot", load, shop, simulated)
    with Connection(node.url) as connection:
        channel = connection.channel()
        channel.queue_declare("gone-soon", durable=True, auto_delete=False)
        simulated.fault("api.nova", match="^POST .*/action", delay=1.5, times=1)
        message_id = load.requester.command(
            "server.action",
            server_id=next(iter(asked.actions)),
            body={"reboot": {"type": "HARD"}},
            message_id=asked.message_id,
            reply_to="gone-soon",
        )
        channel.queue_delete("gone-soon")
    eventually(
        lambda: any(
            one["correlation_id"] == message_id for one in logged(shop, "reply.nobody_waits")
        )
    )
    load.send(asked)  # the same request, by somebody who waits
    assert message_id == asked.message_id
    load.account()


def test_23_queues_that_are_full_are_waited_for(
    node: PrivateBroker, shop: Workshop, load: Load
) -> None:
    limits = json.dumps({"max-length": 1, "overflow": "reject-publish"})
    node.rabbitmqctl(
        "set_policy", "full", "^lasting-.*-(replies|status)$", limits, "--apply-to", "queues"
    )
    try:
        load.send(*load.mix(12))
        eventually(lambda: bool(logged(shop, "publisher.nacked")))
        load.account()
    finally:
        node.rabbitmqctl("clear_policy", "full")
    load.recovered()


def test_24_a_queue_that_is_made_otherwise_while_it_runs_ends_the_worker_with_one_line(
    workshop: Workshop,
) -> None:
    worker = workshop.worker()
    with Connection(workshop.broker_url) as connection:
        channel = connection.channel()
        channel.queue_delete("ecs.images")
        channel.queue_declare("ecs.images", durable=True, auto_delete=False)
    eventually(lambda: not worker.alive, 40)
    assert worker.terminate() == 7
    (line,) = [line for line in worker.log.read_text().splitlines() if not line.startswith("{")]
    assert "ecs.images" in line


# We are not who we were.


@dataclass(frozen=True, slots=True)
class Account:
    """The worker's own user, in a virtual host of its own."""

    node: PrivateBroker
    shop: Workshop
    vhost: str
    user: str
    password: str

    @property
    def url(self) -> str:
        """As the worker connects."""
        return f"amqp://{self.user}:{self.password}@127.0.0.1:{self.node.port}/{self.vhost}?heartbeat={HEARTBEAT}"

    def change_password(self, password: str) -> None:
        self.node.rabbitmqctl("change_password", self.user, password)

    def permit(self, writing: str = ".*") -> None:
        self.node.rabbitmqctl(
            "set_permissions", "--vhost", self.vhost, self.user, ".*", writing, ".*"
        )

    def close_connections(self) -> None:
        """Clients that are in stay in, whatever was changed."""
        self.node.rabbitmqctl(
            "close_all_connections", "--vhost", self.vhost, "something was changed"
        )


@pytest.fixture(scope="module")
def account(
    node: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Account]:
    vhost, user, password = "restricted", "ecs-worker", uuid.uuid4().hex
    declare(node.add_vhost(vhost), topology(DELAYS))
    node.rabbitmqctl("add_user", user, password)
    with Workshop(node.url_of(vhost), simulated, tmp_path_factory.mktemp("restricted")) as shop:
        found = Account(node, shop, vhost, user, password)
        found.permit()
        shop.settings |= {
            "ECS_BROKER_URL": found.url,
            "ECS_COMMAND_TIMEOUT": "120",
            "ECS_RETRY_DELAYS": "1,5",
        }
        yield found


@pytest.fixture
def restricted(account: Account, simulated: SimulatedOpenStack) -> Iterator[Load]:
    with Load(account.node.url_of(account.vhost), simulated, account.shop.tenant()) as found:
        yield found


def test_25_a_worker_whose_password_is_changed_backs_off_and_comes_back_by_itself(
    account: Account, restricted: Load
) -> None:
    shop = account.shop
    shop.worker()
    under_way(restricted)
    account.change_password("another")
    account.close_connections()
    before = len(logged(shop, "connection.down"))
    time.sleep(5)
    # That they were closed may be told late on a busy machine.
    refused = [
        line
        for line in logged(shop, "connection.down")[before:]
        if "was changed" not in line["why"]
    ]
    assert all("ACCESS_REFUSED" in line["why"] for line in refused)
    assert 4 <= len(refused) <= 50, "five connections, each later and later"
    assert max(line["again_in"] for line in refused) > 1
    account.change_password(account.password)
    restricted.recovered()
    restricted.account()
    assert account.password not in shop.running.log.read_text()
    shop.running.terminate()


def test_25_a_worker_that_may_write_no_more_acks_nothing_until_it_may(
    account: Account, restricted: Load
) -> None:
    shop = account.shop
    shop.worker()
    account.permit(writing="^$")
    account.close_connections()
    asked = restricted.mix()
    restricted.send(*asked)
    eventually(
        lambda: any(
            "ACCESS_REFUSED" in line["why"] for line in logged(shop, "publisher.channel_closed")
        )
    )
    assert not restricted.has_begun()
    shop.running.kill()
    eventually(
        lambda: sum(restricted.requester.depth(queue) for queue in INPUT_QUEUES) == len(asked)
    )
    shop.worker(wait=False)
    account.permit()
    account.close_connections()
    restricted.recovered()
    restricted.account()
    shop.running.terminate()


def test_25_a_worker_that_is_not_let_in_at_its_start_waits_until_it_is(
    account: Account, restricted: Load
) -> None:
    account.change_password("another")
    worker = account.shop.worker(wait=False)
    eventually(
        lambda: any(
            "ACCESS_REFUSED" in line["why"] for line in logged(account.shop, "broker.not_reached")
        ),
        60,
    )
    assert worker.problems()
    account.change_password(account.password)
    restricted.recovered()
    worker.terminate()


def test_27_what_comes_back_from_a_retry_queue_is_kept_while_its_queue_is_missing(
    node: PrivateBroker,
) -> None:
    # What cannot leave a retry queue is tried again every second, not every three minutes. A node
    # that was restarted meanwhile has forgotten it.
    node.evaluate("application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 1000)")
    url = node.add_vhost("kept")
    declare(url, topology(DELAYS))
    with Connection(url) as connection:
        channel = connection.channel()
        connection.Producer(channel).publish(
            b"{}",
            exchange="ecs.retry",
            routing_key="ecs.orders",
            headers={"ecs-retry-delay": "1"},
            message_id="kept",
        )
        channel.queue_delete("ecs.orders")
        time.sleep(3)
        declare(url, topology(DELAYS))
        orders = Queue("ecs.orders", no_declare=True)(channel)
        eventually(
            lambda: (
                (message := orders.get(no_ack=True)) is not None
                and message.properties["message_id"] == "kept"
            )
        )

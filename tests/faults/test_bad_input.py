"""Bad input on a real broker with a real worker: each is answered or parked, and the next is
handled as ever.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pika.exceptions import ChannelClosedByBroker

from messages.commands import Operation
from messages.orders import OrderType
from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from tests.support import amqp
from tests.support.corpus import PARAMETER, Case, Fate, cases, order, show
from tests.support.ears import CONSUMED, GROWTH, PATIENCE, Ears, Outcome, ask_something_good, memory
from tests.support.names import READS_QUEUE, queue_for
from tests.support.vhosts import fresh_vhost
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

pytestmark = pytest.mark.slow

ODD = "😀👩‍👧 שלום \u202e '; DROP TABLE {{7*7}} <b> \x1b[2J \r\n"
JWT = re.compile(r"eyJ[\w-]{5,}\.[\w-]+\.[\w-]+")


def send(ears: Ears, case: Case, tag: str, *, replies: bool) -> str:
    """Publish it; the correlation id that it goes by."""
    given: dict[str, Any] = {
        "content_type": "application/json",
        "message_id": tag,
        "correlation_id": tag,
    }
    if replies:
        given["reply_to"] = ears.reply_to
    given |= case.properties
    if "correlation_id" in case.properties:
        given["correlation_id"] += tag
    ears.publish(case.exchange, case.routing_key, case.body, given)
    return str(given["correlation_id"])


def expected(case: Case, *, replies: bool) -> tuple[bool, bool, bool]:
    """Tell whether it is answered to its sender, on `ecs.results`, and parked."""
    if case.fate is Fate.IGNORED:
        return False, False, False
    to_sender = replies and case.may_reply
    on_results = case.is_order or (not to_sender and case.operation is not None)
    if case.fate is Fate.RIGHT:
        return to_sender, on_results, False
    return to_sender, on_results, case.is_order or case.fate is Fate.UNROUTABLE or not to_sender


def check(case: Case, found: Outcome, *, replies: bool) -> list[str]:
    """Return what is not as it should be, a line each."""
    wanted = expected(case, replies=replies)
    happened = (len(found.replies), len(found.results), len(found.parked))
    if happened != tuple(map(int, wanted)):
        return [f"{case.name}: answered, on ecs.results, parked: {happened} and not {wanted}"]
    broken = []
    for code, message, status, *key in (*found.replies, *found.results):
        if code != case.code:
            broken.append(f"{case.name}: {code} {message}")
        elif code == PARAMETER and (message, status) != (f"参数{case.subject}不符合规范", 400):
            broken.append(f"{case.name}: {message} {status}")
        if key and key != [case.operation]:
            broken.append(f"{case.name}: told by {key}")
    return broken + [f"{case.name}: parked as {one}" for one in found.parked if one != PARAMETER]


@pytest.fixture(scope="module")
def bench(
    broker: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    """Broker, cloud and one worker for all of this file: each message is to leave it as it was."""
    folder = tmp_path_factory.mktemp("bad-input")
    with fresh_vhost(broker) as url:
        declare(url, topology())
        with Workshop(url, simulated, folder) as found:
            found.worker()
            yield found


def test_every_bad_message_is_answered_or_parked_and_the_next_is_handled_as_ever(
    bench: Workshop,
) -> None:
    worker, broken = bench.running, list[str]()
    with Ears(bench.broker_url) as ears:
        ask_something_good(ears, READS_QUEUE, "warm")
        ears.await_reply("warm")
        before, sent = memory(worker), dict[str, tuple[Case, bool]]()
        for number, case in enumerate(cases()):
            for replies in (True, False):
                sent[send(ears, case, f"{number}-{replies}", replies=replies)] = case, replies
            queue = queue_for(case.exchange, case.routing_key)
            absent = ask_something_good(ears, queue, f"good-{number}")
            assert ears.await_reply(f"good-{number}") == absent, case.name
        eventually(lambda: not any(ears.depth(queue) for queue in CONSUMED))
        ears.listen(2.0)
        parked = ears.take_parked()
        for tag, (case, replies) in sent.items():
            broken += check(case, ears.outcomes[tag], replies=replies)
        assert broken == []
        assert {tag for tag in ears.outcomes if not tag.startswith("good-")} <= {*sent, "warm"}
        assert [one for one in parked if JWT.search(repr((one.body, one.headers)))] == []
        assert memory(worker) - before < GROWTH
    # A publisher must not be able to invent labels: each would be kept for good.
    assert set(re.findall('operation="([^"]*)"', worker.metrics())) <= {
        *Operation,
        *(f"order.{kind}" for kind in OrderType),
        "order.unknown",
        "unknown",
    }
    logs = bench.logs()
    assert not re.search("Traceback|unforeseen|connection.down|channel_closed", logs)
    assert not JWT.search(logs)
    assert all(isinstance(json.loads(line), dict) for line in logs.splitlines())


def test_a_refusal_that_is_sent_again_is_the_same_byte_for_byte(bench: Workshop) -> None:
    """Nothing remembers it: it is made anew when its message comes again."""
    raw = dict[str, set[tuple[str, bytes]]]()
    with Ears(bench.broker_url) as ears:
        ears.on_result = lambda properties, body: raw.setdefault(
            properties.correlation_id, set()
        ).add((properties.message_id, body))
        for tag, exchange, key, body in (
            (
                "order",
                "ecs.orders",
                "order.x",
                order(orderRoute="RDS", consoleOrderFlowId=ODD, billType=ODD),
            ),
            ("command", "ecs.commands", "server.show", show(server_id="x")),
            ("lost", "ecs.commands", "volume.create", show(operation="server.show")),
        ):
            given = {
                "content_type": "application/json",
                "message_id": tag,
                "correlation_id": tag,
                "timestamp": 1_700_000_000,
            }
            for _ in range(2):
                ears.publish(exchange, key, json.dumps(body).encode(), given)
                ears.listen(1.2)  # the clock's second is another one
        eventually(lambda: ears.depth("ecs.dead") == 6, PATIENCE)
        ears.take_parked()
    assert {tag: len(copies) for tag, copies in raw.items()} == {
        "order": 1,
        "command": 1,
        "lost": 1,
    }
    ((_, told),) = raw["order"]
    data = json.loads(told)["data"]
    assert (data["consoleOrderFlowId"], data["productSetList"][0]["billType"]) == (ODD, ODD)


def test_of_bodies_that_are_too_large_size_and_digest_are_kept_and_no_memory(
    bench: Workshop, broker: PrivateBroker
) -> None:
    """16 and 17 MB: valid JSON, JSON with a token, and bytes; more at once than the growth that is
    allowed. RabbitMQ 4 takes 16 MiB at most: it refuses 17 MB itself, and what it takes is sent.
    """
    worker = bench.running
    taken = broker.evaluate("{ok, Size} = application:get_env(rabbit, max_message_size), Size")
    size = min(17_000_000, int(taken) - 50_000)
    if size < 17_000_000:
        with (
            amqp.Hostile(bench.broker_url) as sender,
            pytest.raises(ChannelClosedByBroker, match="larger than configured max size"),
        ):
            sender.publish("ecs.commands", "server.show", bytes(17_000_000), {})
    pad = ["y" * 60_000] * (size // 60_010)
    bodies = {
        "json": json.dumps({"pad": pad}).encode(),
        "secret": json.dumps({"token": "s3cret", "pad": pad}).encode(),
        "lists": b'{"a":[' + b"[]," * (size // 3 - 10) + b"[]]}",
        "bytes": b"\xfe" * size,
        "deep": b"[" * 16_000_000,
    }
    assert all(len(body) > 15_900_000 for body in bodies.values())
    with Ears(bench.broker_url) as ears:
        ask_something_good(ears, READS_QUEUE, "warm-2")
        ears.await_reply("warm-2")
        before = memory(worker)
        for name, body in bodies.items():
            given = {"content_type": "application/json", "correlation_id": name}
            ears.publish("ecs.commands", "server.show", body, given)
            ask_something_good(ears, READS_QUEUE, f"after-{name}")
            started = time.monotonic()
            assert ears.await_reply(f"after-{name}") == "101.001033"
            assert time.monotonic() - started < 30  # the heartbeat is 15 s
        eventually(lambda: ears.depth("ecs.dead") == len(bodies), PATIENCE)
        parked = {one.tag: json.loads(one.body) for one in ears.take_parked()}
        assert parked == {
            name: {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            for name, body in bodies.items()
        }
        assert [ears.outcomes[name].results[0][:2] for name in bodies] == [
            (PARAMETER, "参数body不符合规范")
        ] * len(bodies)
        # What is free goes back to the system as the worker goes on.
        for number in range(100):
            ask_something_good(ears, READS_QUEUE, f"on-{number}")
            ears.await_reply(f"on-{number}")
            if memory(worker) - before < GROWTH:
                break
        assert memory(worker) - before < GROWTH
    assert "connection.down" not in bench.logs()


def test_a_direct_reply_to_gets_its_answer(bench: Workshop) -> None:
    with Ears(bench.broker_url) as ears:
        direct = "amq.rabbitmq.reply-to"
        ears.channel.basic_consume(direct, ears._hear_reply, auto_ack=True)
        properties = {
            "content_type": "application/json",
            "correlation_id": "direct",
            "reply_to": direct,
        }
        ears.publish("ecs.commands", "server.show", json.dumps(show()).encode(), properties)
        assert ears.await_reply("direct") == "101.001033"
        ears.publish(
            "ecs.commands", "server.show", b"{", properties | {"correlation_id": "direct-2"}
        )
        assert ears.await_reply("direct-2") == PARAMETER
        forged = properties | {
            "correlation_id": "forged",
            "reply_to": "amq.rabbitmq.reply-to.forged",
        }
        ears.publish("ecs.commands", "server.show", b"{", forged)
        ask_something_good(ears, READS_QUEUE, "after-direct")
        assert ears.await_reply("after-direct") == "101.001033"
    assert "reply.nobody_waits" not in bench.logs()


def test_a_message_that_expired_is_answered_as_past_its_deadline(
    declared: str, simulated: SimulatedOpenStack, tmp_path: Path
) -> None:
    with Workshop(declared, simulated, tmp_path) as workshop, Ears(declared) as ears:
        properties = {
            "content_type": "application/json",
            "correlation_id": "late",
            "expiration": "1",
        }
        ears.publish(
            "ecs.commands",
            "server.show",
            json.dumps(show()).encode(),
            properties | {"reply_to": ears.reply_to},
        )
        ears.publish(
            "ecs.orders",
            "order.x",
            json.dumps(order()).encode(),
            properties | {"correlation_id": "late-order"},
        )
        eventually(lambda: ears.depth("ecs.undelivered") == 2)
        workshop.worker()
        assert ears.await_reply("late") == "101.001040"
        eventually(lambda: ears.depth("ecs.dead") == 2)
        ears.listen(1.0)
        assert [one[0] for one in ears.outcomes["late-order"].results] == ["101.001040"]
        origins = {one.tag: one.headers["x-ecs-origin-queue"] for one in ears.take_parked()}
    assert origins == {"late": "ecs.reads", "late-order": "ecs.orders"}


def test_further_routing_keys_do_not_take_a_retried_order_into_other_queues(
    declared: str, broker: PrivateBroker, tmp_path: Path
) -> None:
    """RabbitMQ dead-letters by CC, too: from a retry queue to the default exchange, into any queue
    there is.
    """
    with (
        SimulatedOpenStack(pace=0.3) as cloud,
        Workshop(declared, cloud, tmp_path) as workshop,
        Ears(declared) as ears,
    ):
        server_id = workshop.tenant().make_server(disk=None)
        cloud.fault("api.nova", match=f"^POST .*{server_id}/action", error="overloaded", status=503)
        workshop.worker(ECS_RETRY_DELAYS="1,2")
        message = order()
        message["productList"][0].update(
            instanceId=server_id, itemList=message["productList"][0]["itemList"][:1]
        )
        further = amqp.array(
            amqp.text("ecs.order-results"), amqp.text("ecs.dead"), amqp.text("ecs.servers")
        )
        properties = {
            "content_type": "application/json",
            "correlation_id": "cc",
            "headers": {"CC": further},
        }
        ears.publish(
            "ecs.orders", "order.changeConfigure", json.dumps(message).encode(), properties
        )
        eventually(lambda: "request.rescheduled" in workshop.logs(), PATIENCE)
        cloud.clear_faults()
        eventually(
            lambda: len(ears.outcomes["cc"].results) > 0 or ears.listen(0.1) is not None, PATIENCE
        )
        assert [one[0] for one in ears.outcomes["cc"].results] == [200]
        ears.listen(1.0)
        assert {
            name: ears.depth(name) for name in ("ecs.dead", "ecs.servers", "ecs.order-results")
        } == {"ecs.dead": 0, "ecs.servers": 0, "ecs.order-results": 1}


def test_a_reply_queue_that_is_full_holds_up_nobody_for_long(
    declared: str, simulated: SimulatedOpenStack, tmp_path: Path
) -> None:
    with Workshop(declared, simulated, tmp_path) as workshop, Ears(declared) as ears:
        workshop.worker(ECS_PREFETCH="5")
        limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
        ears.channel.queue_declare("full", exclusive=True, arguments=limits)
        ears.channel.basic_publish("", "full", b"x")
        given = {"content_type": "application/json", "reply_to": "full"}
        for number in range(20):
            ears.publish(
                "ecs.commands",
                "server.show",
                json.dumps(show()).encode(),
                {**given, "correlation_id": f"f-{number}"},
            )
        ask_something_good(ears, READS_QUEUE, "behind them")
        assert ears.await_reply("behind them", 120) == "101.001033"
        # What the requester's queue refuses goes where it had gone without one.
        refused, limit = (
            [ears.outcomes[f"f-{number}"] for number in range(20)],
            time.monotonic() + 60,
        )
        while not all(one.results for one in refused) and time.monotonic() < limit:
            ears.listen(0.2)
        assert {len(one.results) for one in refused} == {1}
    assert workshop.logs().count("reply.refused") == 20

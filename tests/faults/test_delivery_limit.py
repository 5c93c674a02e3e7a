"""RabbitMQ 4 gives up on what was given back 20 times (76 to 78); here a policy has an earlier
version do it.
"""

import json

import pytest

from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support.dying_worker import Hold, Instant
from tests.support.giving_back import LIMIT, give_back, limit_deliveries
from tests.support.invariants import await_ends, check
from tests.support.kinds import KINDS
from tests.support.names import DEAD_QUEUE, INPUT_QUEUES, ORDERS_QUEUE, UNDELIVERED_QUEUE
from tests.support.new_orders import new
from tests.support.orders import publish
from tests.support.stage import dying, settled
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow

#: Not enough for the broker to give up, and twice of it is.
OFTEN = 15


def kill_with_all_in_hand(workshop: Workshop, messages: int) -> None:
    """Start a worker, and kill it when it has so many messages that stay unsettled."""
    worker = workshop.worker(ECS_COMMAND_TIMEOUT="120")
    eventually(lambda: f"ecs_in_flight {float(messages)}" in worker.metrics(), 30)
    # What was renewed has come again.
    with Requester(workshop.broker_url, order_results=False) as requester:
        for _ in range(5):
            requester.listen(0.2)
            eventually(lambda: f"ecs_in_flight {float(messages)}" in worker.metrics(), 30)
    worker.kill()


def test_what_was_given_back_often_is_still_carried_out(
    workshop: Workshop, broker: PrivateBroker, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    asked = [
        kind.ask(tenant, simulated)
        for kind in KINDS
        if kind.name in ("reboot", "image.delete", "extend")
    ]
    limit_deliveries(broker, workshop.broker_url)
    for service in ("nova", "glance"):
        simulated.fault(f"api.{service}", delay=60)
    with Requester(workshop.broker_url) as requester:
        read = requester.command("server.list")
        for one in asked:
            one.publish(requester)
        for in_hand in (4, 3):
            assert [give_back(workshop.broker_url, one, OFTEN) for one in INPUT_QUEUES] == [1] * 4
            kill_with_all_in_hand(workshop, in_hand)
        simulated.clear_faults()
        workshop.worker(ECS_COMMAND_TIMEOUT="120")
        await_ends(requester, asked)
        # Of a read nobody knows whether it killed its workers: it is answered.
        assert requester.result_of(read).body["data"]["reason"] == "delivery_limit"
        settled(workshop, requester)
        check(requester.heard, asked, tenant, simulated.executed())
        assert requester.depth(DEAD_QUEUE) == 1
        assert requester.depth(UNDELIVERED_QUEUE) == 0


def test_what_could_not_be_delivered_is_read_as_what_it_was_though_it_was_given_back_often(
    workshop: Workshop, broker: PrivateBroker, simulated: SimulatedOpenStack
) -> None:
    """One that no queue took, and one that the broker gave up on."""
    url, tenant = workshop.broker_url, workshop.tenant()
    limit_deliveries(broker, url)
    (asked,) = (kind.ask(tenant, simulated) for kind in KINDS if kind.name == "extend")
    with Requester(url) as requester:
        unknown = requester.command("server.nonsense")
        asked.publish(requester)
        give_back(url, ORDERS_QUEUE, LIMIT + 1)
        eventually(lambda: requester.depth(UNDELIVERED_QUEUE) == 2)
        # `ecs.dead` takes nothing for as long: no worker is done with them.
        dead = ("--vhost", url.rpartition("/")[2], "--apply-to", "queues", "--priority", "1")
        full = json.dumps({"max-length": 1, "overflow": "reject-publish"})
        broker.rabbitmqctl("set_policy", *dead, "full", r"^ecs\.dead$", full)
        for _ in range(3):
            requester.publish("ecs.dead", ORDERS_QUEUE, b"{}")
        for _ in range(2):
            assert give_back(url, UNDELIVERED_QUEUE, OFTEN) == 2
            kill_with_all_in_hand(workshop, 2)
        broker.rabbitmqctl("clear_policy", "--vhost", url.rpartition("/")[2], "full")
        requester.take_all(DEAD_QUEUE)
        workshop.worker()
        assert requester.result_of(unknown).body["code"] == "101.001002"
        result = requester.order_result_of(asked.message_id)
        assert result.body["data"]["reason"] == "delivery_limit"
        eventually(lambda: requester.depth(DEAD_QUEUE) == 2)
        listed = json.loads(workshop.command("dead", "list", "-o", "json").stdout)
        assert {(one["origin"], one["code"]) for one in listed} == {
            (UNDELIVERED_QUEUE, "101.001002"),
            (ORDERS_QUEUE, "101.001040"),
        }
        shown = [
            whole
            for one in listed
            for whole in json.loads(
                workshop.command("dead", "show", "--id", one["id"], "-o", "json").stdout
            )
        ]
        assert {one["headers"]["x-ecs-routing-key"] for one in shown} == {
            "ecs.commands server.nonsense",
            "ecs.orders order.changeConfigure",
        }


def test_what_kills_its_workers_is_ended_and_what_was_in_hand_with_it_is_carried_out(
    workshop: Workshop, broker: PrivateBroker, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    killer, *others = (
        kind.ask(tenant, simulated)
        for kind in KINDS
        if kind.name in ("resize", "extend", "confirm")
    )
    hold = [Hold(killer.message_id, Instant.EFFECT_NOT_BEGUN, killer.effect)]
    # Each of the others takes longer than the killer needs.
    simulated.fault("api.nova", match="^GET", delay=2)
    deaths = 0
    with Requester(workshop.broker_url) as requester:
        for one in (killer, *others):
            one.publish(requester)
        while not requester.depth(DEAD_QUEUE):
            (workshop.folder / "held").unlink(missing_ok=True)
            constants = {"workers.pipeline.suspects.MOST_LOST": 4}
            worker = dying(workshop, hold, constants=constants, ECS_RETRY_DELAYS="1,2")
            eventually(lambda: not worker.alive or bool(requester.depth(DEAD_QUEUE)), 120)  # noqa: B023
            deaths += not worker.alive
        assert deaths == 4
        result = requester.order_result_of(killer.message_id)
        assert result.body["data"]["reason"] == "worker_lost"
        assert result.body["data"]["productSetList"][0]["resourceChanged"] is False
        simulated.clear_faults()
        await_ends(requester, others)
        check(requester.heard, others, tenant, simulated.executed())


def test_a_result_that_the_order_system_gave_back_too_often_is_parked_and_put_back(
    workshop: Workshop, broker: PrivateBroker, simulated: SimulatedOpenStack
) -> None:
    """With the limit and the dead-letter exchange that the documentation names."""
    url, results = workshop.broker_url, "ecs.order-results"
    limit_deliveries(
        broker, url, r"^ecs\.order-results$", **{"dead-letter-exchange": "ecs.undelivered"}
    )
    (asked,) = (kind.ask(workshop.tenant(), simulated) for kind in KINDS if kind.name == "extend")
    workshop.worker()
    with Requester(url, order_results=False) as requester:
        asked.publish(requester)
        requester.last_update_of("order", asked.message_id)
        eventually(lambda: requester.depth(results) == 1)
        assert give_back(url, results, LIMIT + 1) == 1
        eventually(lambda: requester.depth(DEAD_QUEUE) == 1)
        (letter,) = json.loads(workshop.command("dead", "list", "-o", "json").stdout)
        assert letter["origin"] == results
        replayed = workshop.command("dead", "replay", "--id", letter["id"], "--yes")
        assert replayed.returncode == 0, replayed.stderr
        eventually(lambda: requester.depth(results) == 1)
        (result,) = requester.take_all(results)
        assert result["code"] == 200
        assert requester.depth(DEAD_QUEUE) == 0


def test_a_new_order_with_a_password_waits_in_its_queue_for_as_long_as_the_cloud_is_down(
    workshop: Workshop, broker: PrivateBroker, simulated: SimulatedOpenStack
) -> None:
    """It goes to no retry queue: each wait is a delivery more."""
    tenant = workshop.tenant()
    limit_deliveries(broker, workshop.broker_url)
    simulated.fault("api.cinder", error="down", status=503)
    constants = {"workers.pipeline.timeouts.ORDER_PATIENCE": 0.5}
    dying(workshop, [], constants=constants, ECS_RETRY_DELAYS="1")
    with Requester(workshop.broker_url) as requester:
        message_id = publish(requester, new(tenant, chosen={"adminPass": "S3cret-of-its-own"}))
        eventually(lambda: workshop.logs().count('"event":"request.requeued"') > LIMIT + 5, 400)
        simulated.clear_faults()
        assert requester.order_result_of(message_id, 60).body["code"] == 200
        assert requester.depth(DEAD_QUEUE) == requester.depth(UNDELIVERED_QUEUE) == 0
    assert "S3cret-of-its-own" not in workshop.logs() + workshop.journal_dump()

"""Tests what becomes of messages: one that kills its worker every time (12), copies (54), the same
key twice (56).
"""

import json
import re
from collections import Counter
from dataclasses import replace

import pytest

from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Heard, Requester, Source
from tests.support.dying_worker import Hold, Instant
from tests.support.invariants import await_ends, check
from tests.support.kinds import FEW, KINDS, Asked, ask_all
from tests.support.stage import await_held, dying, settled
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow

FAILED, PARAMETER = "101.001040", "101.001002"


def killed_at_every_delivery(
    workshop: Workshop,
    broker: PrivateBroker,
    requester: Requester,
    asked: list[Asked],
    instant: Instant,
) -> None:
    """Three workers die of these messages; then the broker gives up on them, and a worker that is
    well finds them.
    """
    vhost = workshop.broker_url.rpartition("/")[2]
    broker.rabbitmqctl(
        "set_policy",
        "--vhost",
        vhost,
        "--apply-to",
        "queues",
        "limit",
        r"^ecs\.(servers|images|orders)$",
        json.dumps({"delivery-limit": 2}),
    )
    for one in asked:
        one.publish(requester)
    for _ in range(3):
        (workshop.folder / "held").unlink(missing_ok=True)
        worker = dying(workshop, [Hold(one.message_id, instant, one.effect) for one in asked])
        await_held(workshop, worker)
    workshop.worker()
    eventually(lambda: requester.depth("ecs.dead") == len(asked), 60)


def results_of(requester: Requester, one: Asked) -> list[Heard]:
    return [
        heard
        for heard in requester.heard
        if heard.source is not Source.STATUS and heard.correlation_id == one.message_id
    ]


def test_a_message_that_kills_its_worker_every_time_is_answered_and_parked(
    workshop: Workshop, broker: PrivateBroker, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    asked = ask_all(FEW, tenant, simulated)
    with Requester(workshop.broker_url) as requester:
        killed_at_every_delivery(workshop, broker, requester, asked, Instant.REQUEST_WRITTEN)
        for one in asked:
            result = (requester.order_result_of if one.is_order else requester.result_of)(
                one.message_id
            )
            assert (result.body["code"], result.body["data"]["reason"]) == (
                FAILED,
                "delivery_limit",
            )
            if one.is_order:
                assert result.body["data"]["productSetList"][0]["resourceChanged"] is False
                assert requester.last_update_of("order", one.message_id).body["status"] == "failed"
        # It is the request's result: a copy gets it, too.
        for one in asked:
            one.publish(requester)
        eventually(
            lambda: (
                all(len(results_of(requester, one)) > 1 for one in asked)
                or bool(requester.listen(0.2))
            )
        )
        settled(workshop, requester)
        executed = simulated.executed()
        for one in asked:
            assert (
                len(
                    {
                        (heard.properties["message_id"], heard.raw)
                        for heard in results_of(requester, one)
                    }
                )
                == 1
            )
            finals = Counter(
                each.body["resource"]
                for each in requester.updates_of(one.message_id)
                if each.is_final
            )
            assert finals == ({"order": 1} if one.is_order else {})
            assert not [
                call for call in executed for pattern in one.calls if re.search(pattern, call)
            ]


def test_what_was_answered_before_the_broker_gave_up_stays_the_answer(
    workshop: Workshop, broker: PrivateBroker, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    asked = [
        kind.ask(tenant, simulated)
        for kind in KINDS
        if kind.name in ("reboot", "batch", "createImage", "resize")
    ]
    # No server of the batch ends before the last of the requests is held.
    simulated.fault("virt.reboot", delay=120)
    with Requester(workshop.broker_url) as requester:
        killed_at_every_delivery(workshop, broker, requester, asked, Instant.WAITING)
        ended = [
            replace(
                one,
                code=FAILED if one.is_order else one.code,
                finals={
                    resource: "failed"
                    if resource[0] == "order"
                    else "UNKNOWN"
                    if resource[0] == "server"
                    else "queued"
                    for resource in one.finals
                },
                calls=one.calls[:1] if one.is_order else one.calls,
                actions={},
                holds=lambda: True,
            )
            for one in asked
        ]
        await_ends(requester, ended)
        settled(workshop, requester)
        check(requester.heard, ended, tenant, simulated.executed())
        for one in asked:
            if one.is_order:
                (result,) = {heard.raw for heard in results_of(requester, one)}
                # The resize was begun, and nobody knows what the customer is left with.
                assert json.loads(result)["data"]["productSetList"][0]["resourceChanged"] is True


# Copies.


def test_ten_copies_at_once_of_every_kind_have_one_effect_on_two_workers(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    asked = ask_all(FEW, tenant, simulated)
    first, _ = workshop.worker(ECS_PREFETCH="20"), workshop.worker(ECS_PREFETCH="20")
    with Requester(workshop.broker_url) as requester:
        for _ in range(10):
            for one in asked:
                one.publish(requester)
        await_ends(requester, asked)
        eventually(
            lambda: (
                all(len(results_of(requester, one)) == 10 for one in asked)
                or bool(requester.listen(0.2))
            ),
            60,
        )
        assert first.terminate() == 0
        settled(workshop, requester)
        check(requester.heard, asked, tenant, simulated.executed())


def test_the_same_key_with_another_content_is_refused_whatever_has_become_of_the_first(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    """While it is under way, and when it is done."""
    tenant = workshop.tenant()
    server_id, other = tenant.make_server(disk=None), tenant.make_server(disk=None)
    simulated.fault("virt.reboot", match=server_id, delay=3)
    workshop.worker()
    with Requester(workshop.broker_url) as requester:
        body = {"reboot": {"type": "HARD"}}
        message_id = requester.command("server.action", server_id=server_id, body=body)
        requester.result_of(message_id)
        for number, answer in enumerate(({"os-stop": None}, body)):
            if number:
                requester.last_update_of("server", message_id)
            for target, what in ((server_id, {"os-stop": None}), (other, answer)):
                requester.command(
                    "server.action",
                    server_id=target,
                    body=what,
                    message_id=message_id,
                    correlation_id=f"{number}-{target}",
                )
                refused = requester.result_of(f"{number}-{target}").body
                assert (refused["code"], refused["data"]["reason"]) == (
                    PARAMETER,
                    "conflicting_duplicate",
                )
        eventually(lambda: requester.depth("ecs.dead") == 4)
        # The first one's result is what it was.
        requester.command(
            "server.action",
            server_id=server_id,
            body=body,
            message_id=message_id,
            correlation_id="again",
            token="other",
        )
        assert requester.result_of("again").body["code"] == 200
    assert tenant.actions(server_id) == ["create", "reboot"]
    assert tenant.actions(other) == ["create"]

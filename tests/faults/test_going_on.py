"""Tests what the next worker meets: a cloud that is down, a server that is gone, a call that is
still under way.
"""

import time

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester, Source
from tests.support.dying_worker import Hold, Instant
from tests.support.invariants import await_ends, check
from tests.support.kinds import KINDS, batch, create_image, delete_image, power, tags
from tests.support.stage import await_held, dying, settled
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow

REBOOT = {"reboot": {"type": "HARD"}}


def test_what_was_answered_is_followed_to_its_end_though_the_cloud_was_down_meanwhile(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    """No run may tell another answer than the first, and each course has its end."""
    tenant = workshop.tenant()
    asked = [
        kind.ask(tenant, simulated)
        for kind in KINDS
        if kind.name in ("start", "reboot", "batch", "createImage")
    ]
    worker = dying(workshop, [Hold(one.message_id, Instant.WAITING, one.effect) for one in asked])
    with Requester(workshop.broker_url) as requester:
        for one in asked:
            one.publish(requester)
            requester.result_of(one.message_id)
        await_held(workshop, worker)
        for service in ("nova", "glance"):
            simulated.fault(f"api.{service}", error="down", status=503)
        # By now the time in which they might have been begun is over, too.
        workshop.worker(ECS_COMMAND_TIMEOUT="6", wait=False)
        requester.listen(9)
        simulated.clear_faults()
        await_ends(requester, asked)
        settled(workshop, requester)
        check(requester.heard, asked, tenant, simulated.executed())


def test_what_was_answered_stays_the_answer_though_the_server_is_gone(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    one, many = power("reboot", REBOOT, "DELETED")(tenant, simulated), batch(tenant, simulated)
    worker = dying(
        workshop, [Hold(each.message_id, Instant.WAITING, each.effect) for each in (one, many)]
    )
    with Requester(workshop.broker_url) as requester:
        for each in (one, many):
            each.publish(requester)
        await_held(workshop, worker)
        servers = [*one.actions, *many.actions]
        for server_id in (servers[0], servers[3]):
            tenant.connection.compute.delete(f"/servers/{server_id}")
        eventually(lambda: all(tenant.is_gone(server_id) for server_id in (servers[0], servers[3])))
        workshop.worker()
        result = requester.result_of(many.message_id)
        assert [each["code"] for each in result.body["data"]["servers"]] == [200] * 4
        assert requester.result_of(one.message_id).body["code"] == 200
        assert requester.last_update_of("server", one.message_id).body["status"] == "DELETED"
        ends = [
            requester.last_update_of("server", many.message_id, resource_id=each)
            for each in many.actions
        ]
        assert [each.body["status"] for each in ends] == ["ACTIVE", "ACTIVE", "DELETED", "ACTIVE"]


def test_what_was_begun_and_cannot_be_looked_for_in_time_is_unknown(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    asked = power("reboot", REBOOT, "ACTIVE")(tenant, simulated)
    worker = dying(workshop, [Hold(asked.message_id, Instant.INTENT_WRITTEN, asked.effect)])
    with Requester(workshop.broker_url) as requester:
        asked.publish(requester)
        await_held(workshop, worker)
        (server_id,) = asked.actions
        simulated.fault(
            "api.nova", match=f"{server_id}/os-instance-actions", error="down", status=503
        )
        workshop.worker(ECS_COMMAND_TIMEOUT="10")
        result = requester.result_of(asked.message_id).body
        assert (result["code"], result["data"]["reason"]) == ("101.001040", "outcome_unknown")
        simulated.clear_faults()
        # A duplicate is told the same, and does nothing.
        after = len(requester.heard)
        asked.publish(requester)
        # A late final update of the request may come in between.
        again = requester.wait(
            lambda one: one.source is Source.REPLY and one.correlation_id == asked.message_id,
            after=after,
        )
        assert again.body == result
    assert tenant.actions(server_id) == ["create"]


def test_a_command_that_is_resumed_after_its_limit_is_answered_by_what_was_done(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    asked = power("reboot", REBOOT, "ACTIVE")(tenant, simulated)
    worker = dying(workshop, [Hold(asked.message_id, Instant.ANSWER_READ, asked.effect)])
    with Requester(workshop.broker_url) as requester:
        asked.publish(requester)
        await_held(workshop, worker)
        time.sleep(6)  # the age of the request is what is tested
        workshop.worker(ECS_COMMAND_TIMEOUT="2")
        assert requester.result_of(asked.message_id).body["code"] == 200
        assert requester.last_update_of("server", asked.message_id).body["status"] == "ACTIVE"
    (server_id,) = asked.actions
    assert tenant.actions(server_id) == ["create", "reboot"]


def test_a_call_that_was_under_way_when_the_worker_died_is_not_made_again(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    """The cloud takes its time with a call, whoever waits for it: not to find it at once proves
    nothing.
    """
    tenant = workshop.tenant()
    asked = [
        ask(tenant, simulated)
        for ask in (power("reboot", REBOOT, "ACTIVE"), tags, create_image, delete_image)
    ]
    for service, method in (("nova", "POST"), ("nova", "PUT"), ("glance", "DELETE")):
        simulated.fault(f"api.{service}", match=f"^{method} ", delay=6)
    worker = workshop.worker()
    before = len(simulated.calls())
    with Requester(workshop.broker_url) as requester:
        for one in asked:
            one.publish(requester)

        def under_way() -> int:
            changing = ("nova POST", "nova PUT", "glance DELETE")
            return sum(call.startswith(changing) for call in simulated.calls()[before:])

        eventually(lambda: under_way() == len(asked))
        worker.kill()
        simulated.clear_faults()
        workshop.worker()
        await_ends(requester, asked)
        settled(workshop, requester)
        check(requester.heard, asked, tenant, simulated.executed())

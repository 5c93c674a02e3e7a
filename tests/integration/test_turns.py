"""Requests for the same server do not make each other fail: they take turns, also across workers."""

import json
from typing import Any

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.integration.test_worker import resize_order
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow

STOP = {"os-stop": None}
START = {"os-start": {}}


def _act(requester: Requester, server_id: str, body: dict[str, Any]) -> str:
    return requester.command("server.action", server_id=server_id, body=body)


def _in_this_order(requester: Requester, server_id: str, pause: float) -> list[Any]:
    sent = []
    for body in (STOP, START, {"reboot": {"type": "SOFT"}}, STOP, START):
        sent.append(_act(requester, server_id, body))
        requester.listen(pause)
    return [requester.result_of(one).body["code"] for one in sent]


def test_what_comes_at_once_is_done_in_the_order_in_which_it_came(workshop: Workshop) -> None:
    workshop.worker()
    tenant = workshop.tenant()
    server_id = tenant.make_server(metadata={"charge_type": "monthly"})
    with Requester(workshop.broker_url) as requester:
        assert _in_this_order(requester, server_id, 0.0) == [200] * 5
    assert tenant.actions(server_id)[1:] == ["stop", "start", "reboot", "stop", "start"]


def test_two_workers_keep_the_order_in_which_they_wrote_the_requests_down(
    workshop: Workshop,
) -> None:
    workshop.worker()
    workshop.worker()
    tenant = workshop.tenant()
    server_id = tenant.make_server(metadata={"charge_type": "monthly"})
    with Requester(workshop.broker_url) as requester:
        # Both have logged in to the cloud: from then on a request is written down as soon as it
        # comes.
        for one in [requester.command("server.tags.list", server_id=server_id) for _ in range(8)]:
            requester.result_of(one)
        assert _in_this_order(requester, server_id, 1.0) == [200] * 5
    assert tenant.actions(server_id)[1:] == ["stop", "start", "reboot", "stop", "start"]


def test_ten_requests_for_one_server_on_two_workers_all_succeed(workshop: Workshop) -> None:
    workshop.worker()
    workshop.worker()
    tenant = workshop.tenant()
    server_id = tenant.make_server()
    with Requester(workshop.broker_url) as requester:
        sent = [_act(requester, server_id, {"reboot": {"type": "HARD"}}) for _ in range(10)]
        results = [requester.result_of(one, 60) for one in sent]
        assert [one.body["code"] for one in results] == [200] * 10
    assert tenant.actions(server_id)[1:] == ["reboot"] * 10


def test_a_batch_and_single_requests_and_an_order_take_turns(workshop: Workshop) -> None:
    workshop.worker()
    tenant = workshop.tenant()
    first, second = (tenant.make_server(metadata={"charge_type": "monthly"}) for _ in range(2))
    with Requester(workshop.broker_url) as requester:
        order_text = resize_order(first, tenant.image)
        order = requester.order(order_text)
        requester.wait(lambda one: one.body.get("id") == json.loads(order_text)["orderId"])
        batch = requester.command(
            "server.batch_action", body={"os-stop": {"servers": [{"id": second}, {"id": first}]}}
        )
        start = _act(requester, first, START)
        assert requester.result_of(start).body["code"] == 200
        assert requester.result_of(batch).body["code"] == 200
        assert requester.order_result_of(order).body["code"] == 200
    assert tenant.actions(first)[1:] == ["resize", "confirmResize", "stop", "start"]


def test_what_comes_after_an_order_that_was_put_off_in_the_middle_waits_for_it(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    """Cinder is away when the server has its new flavor: the order is tried again later, and then
    the next one.
    """
    workshop.worker(ECS_RETRY_DELAYS="1,20")
    tenant = workshop.tenant()
    server_id = tenant.make_server(disk=10, metadata={"charge_type": "monthly"})
    (volume,) = tenant.volumes(server_id)
    simulated.fault("api.cinder", match=f"^POST .*/{volume['id']}/action", error="away", status=503)
    with Requester(workshop.broker_url) as requester:
        older = requester.order(resize_order(server_id, tenant.image, disk=60))
        eventually(lambda: requester.depth("ecs.retry.20") == 1, 60)
        newer = requester.order(
            resize_order(server_id, tenant.image, disk=70, statusTime="2099-01-01 00:00:00")
        )
        requester.listen(12.0)  # longer than a place is kept by whom nobody is at
        simulated.clear_faults("api.cinder")
        assert requester.order_result_of(older, 60).body["code"] == 200
        assert requester.order_result_of(newer, 60).body["code"] == 200
    assert tenant.actions(server_id)[1:] == ["resize", "confirmResize"]
    assert [one["size"] for one in tenant.volumes(server_id)] == [70]


def test_a_request_whose_turn_does_not_come_in_time_is_answered_in_time(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    workshop.worker(ECS_COMMAND_TIMEOUT="8")
    tenant = workshop.tenant()
    server_id = tenant.make_server(name="slow-to-stop", metadata={"charge_type": "monthly"})
    simulated.fault("virt.power_off", match="slow-to-stop", delay=20.0)
    with Requester(workshop.broker_url) as requester:
        stop, start = _act(requester, server_id, STOP), _act(requester, server_id, START)
        assert requester.result_of(stop).body["code"] == 200
        late = requester.result_of(start)
        assert (late.body["code"], late.body["data"]) == ("101.001040", {"reason": "busy"})
        requester.last_update_of("server", stop)
    assert tenant.actions(server_id)[1:] == ["stop"]


def test_the_next_worker_keeps_the_order_of_the_dead_one(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    worker = workshop.worker()
    tenant = workshop.tenant()
    server_id = tenant.make_server(name="stops-slowly", metadata={"charge_type": "monthly"})
    simulated.fault("virt.power_off", match="stops-slowly", delay=4.0)
    with Requester(workshop.broker_url) as requester:
        stop, start = _act(requester, server_id, STOP), _act(requester, server_id, START)
        assert requester.result_of(stop).body["code"] == 200
        worker.kill()
        workshop.worker()
        assert requester.result_of(start).body["code"] == 200
    assert tenant.actions(server_id)[1:] == ["stop", "start"]

"""An order that waits for a later try, while another one for the same server is carried out."""

from typing import Any

import pytest

from sandbox.requester import Requester
from tests.support.orders import ended, paid, product_of, publish, reported
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow


def put_off(workshop: Workshop, requester: Requester, order: dict[str, Any]) -> str:
    """Send an order that meets a cloud which does not answer its first question: it waits for a
    later try.

    It has begun nothing, and so keeps no place at its server.
    """
    workshop.worker(ECS_RETRY_DELAYS="15")
    workshop.cloud.fault(
        "api.nova", match="^GET", user="ecs-worker", error="overloaded", status=503
    )
    message_id = publish(requester, order)
    requester.wait(lambda one: one.body.get("status") == "waiting_retry")
    workshop.cloud.clear_faults()
    return message_id


def test_an_older_order_that_comes_back_does_not_undo_the_newer_one(workshop: Workshop) -> None:
    tenant = workshop.tenant()
    server_id = tenant.make_server(disk=None)

    def resize(flavor: str, time: str) -> dict[str, Any]:
        order = paid("changeConfigure", server_id, statusTime=time)
        order["productList"][0]["itemList"] = [{"code": "std", "value": flavor, "name": flavor}]
        return order

    with Requester(workshop.broker_url) as requester:
        older = resize("S1.large.2", "2026-01-01 10:00:00")
        waiting = put_off(workshop, requester, older)
        newer, _ = ended(
            requester, publish(requester, resize("S1.medium.2", "2026-01-01 10:00:01"))
        )
        assert reported(newer) == (200, "success", True)
        result, _ = ended(requester, waiting)
    assert reported(result) == ("101.001040", "fail", False)
    assert result.body["data"]["reason"] == "superseded"
    assert tenant.server(server_id)["flavor"]["original_name"] == "S1.medium.2"
    assert tenant.actions(server_id) == ["create", "resize", "confirmResize"]


def test_a_renewal_that_comes_back_counts_beside_the_other_one(workshop: Workshop) -> None:
    tenant = workshop.tenant()
    server_id = tenant.make_server(disk=None)
    tenant.set_metadata(server_id, next_fee_time="2099-01-10 00:00:00")
    with Requester(workshop.broker_url) as requester:
        first, second = (paid("renew", server_id, duration="1", durationUnit="M") for _ in range(2))
        waiting = put_off(workshop, requester, first)
        result, _ = ended(requester, publish(requester, second))
        assert product_of(result)["after"]["feeData"]["next_fee_time"] == "2099-02-10 00:00:00"
        result, _ = ended(requester, waiting)
    assert reported(result) == (200, "success", True)
    dates = [product_of(result)[when]["feeData"]["next_fee_time"] for when in ("before", "after")]
    assert dates == ["2099-02-10 00:00:00", "2099-03-10 00:00:00"]

"""Orders and commands for another region: refused and parked, whatever they ask for; nothing is
said to be gone.
"""

import json
import subprocess
from typing import Any

import pytest

from sandbox.documents import REGION, change_configure
from sandbox.requester import Heard, Requester
from tests.support.new_orders import new, records
from tests.support.orders import carried_out, ended, paid, planned, publish, reported, soft_down
from tests.support.tenant import Tenant
from tests.support.workshop import Workshop

ELSEWHERE = "cn-south-1"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
REFUSED = ("101.001002", "参数region不符合规范", "region")


def told(result: Heard) -> tuple[Any, Any, Any]:
    """Code, message and reason."""
    return result.body["code"], result.body["message"], result.body["data"].get("reason")


def of_product(order: dict[str, Any], region: Any) -> dict[str, Any]:
    """The order with this region in its last product."""
    order["productList"][-1]["region"] = region
    return order


def orders_for_elsewhere(tenant: Tenant, server_id: str) -> list[dict[str, Any]]:
    """One of each kind; the servers of unsubscribe and softDown are unknown here, as another
    region's would be.
    """
    two = paid("renew", server_id, UNKNOWN, duration="1", durationUnit="M")
    instance = soft_down((server_id, "stopServer"))
    instance["instanceList"][0]["region"] = ELSEWHERE
    return [
        of_product(
            json.loads(change_configure(server_id, tenant.image)) | {"tenant_id": "tenant-a"},
            ELSEWHERE,
        ),
        of_product(new(tenant), ELSEWHERE.upper()),
        of_product(two, ELSEWHERE),
        paid("renew", server_id, region=ELSEWHERE, duration="1", durationUnit="M"),
        of_product(paid("unsubscribe", UNKNOWN), ELSEWHERE),
        soft_down((UNKNOWN, "delete"), region=ELSEWHERE),
        instance,
    ]


def test_an_order_for_another_region_is_rejected_and_dead_lettered(
    requester: Requester, shop: Workshop, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=10)
    before, server = records(tenant), tenant.server(server_id)
    orders, sent = orders_for_elsewhere(tenant, server_id), []
    for order in orders:
        sent.append(publish(requester, order))
        result, statuses = ended(requester, sent[-1])
        assert told(result) == REFUSED, order
        assert statuses == ["failed"]
        if "instanceList" in order:
            (instance,) = result.body["data"]["instanceList"]
            assert (instance["result"], instance["instanceStatus"]) == ("fail", None)
        else:
            assert reported(result)[1:] == ("fail", False)
            products = result.body["data"]["productSetList"][0]["productList"]
            assert {one["instanceStatus"] for one in products} == {None}
    parked = requester.dead_letters_of(sent)
    assert [one.get("orderId") or one["flowId"] for one in parked] == [
        one.get("orderId") or one["flowId"] for one in orders
    ]
    assert (records(tenant), tenant.server(server_id)) == (before, server)
    assert tenant.actions(server_id) == ["create"]
    listed = json.loads(shop.command("journal", "list", "-o", "json", "--limit", "1000").stdout)
    names = {one["key"].rpartition(":")[2] for one in listed}
    assert names.isdisjoint({one.get("orderId") or one["flowId"] for one in orders})


def test_a_plan_of_an_order_for_another_region_says_that_it_would_be_refused(
    requester: Requester, shop: Workshop, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=10)
    for order in orders_for_elsewhere(tenant, server_id):
        plan = planned(requester, order)
        assert (plan["verdict"], plan["code"], plan["message"], plan["reason"]) == (
            "refused",
            *REFUSED,
        ), order
        assert plan["steps"] == []
    path = shop.folder / "elsewhere.json"
    path.write_text(json.dumps(order), encoding="utf-8")
    done: subprocess.CompletedProcess[str] = shop.command("plan", str(path), "-o", "json")
    assert done.returncode == 5, done.stderr
    (plan,) = json.loads(done.stdout)
    assert (plan["verdict"], plan["code"], plan["reason"]) == ("refused", "101.001002", "region")


def test_a_command_for_another_region_is_answered_and_dead_lettered(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=None)
    sent = [
        requester.command(
            "server.action",
            server_id=server_id,
            region=ELSEWHERE,
            body={"reboot": {"type": "HARD"}},
        ),
        requester.command("server.show", server_id=server_id, region=ELSEWHERE),
        requester.command("image.list", region=ELSEWHERE),
        requester.command("order.plan", region=ELSEWHERE, order=paid("unsubscribe", server_id)),
        requester.command("server.tags.update", server_id=UNKNOWN, region=ELSEWHERE, tags="a"),
    ]
    for one in sent:
        assert told(requester.result_of(one)) == REFUSED
    odd = requester.result_of(
        requester.command("server.show", server_id=server_id, region=["cn-north-3"])
    )
    assert odd.body["message"] == REFUSED[1]
    assert {one["region"] for one in requester.dead_letters_of(sent)} == {ELSEWHERE}
    assert tenant.actions(server_id) == ["create"]


@pytest.mark.once_on_real
@pytest.mark.parametrize("region", [REGION.upper(), f" {REGION} ", "", " ", None])
def test_its_own_region_in_any_case_or_none_is_carried_out(
    requester: Requester, tenant: Tenant, region: str | None
) -> None:
    server_id = tenant.make_server(disk=None)
    shown = requester.result_of(
        requester.command("server.show", server_id=server_id, region=region)
    )
    assert shown.body["code"] == 200
    # What a view calls the server's region can be sent back with an order for it.
    assert shown.body["data"]["server"]["regionId"] == REGION
    order = of_product(
        paid("renew", server_id, duration="1", durationUnit="M", region=region), region
    )
    result, _ = carried_out(requester, order)
    assert reported(result) == (200, "success", True)
    result, _ = carried_out(requester, soft_down((server_id, "stopServer"), region=region))
    assert result.body["code"] == 200

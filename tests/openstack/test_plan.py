"""Tests what an order would do, told before the deed and compared with it, on the simulated cloud
and on the real one.
"""

from typing import Any

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester, Source
from tests.openstack.test_changes import change
from tests.support.new_orders import new, records
from tests.support.orders import carried_out, paid, product_of, soft_down
from tests.support.tenant import Tenant

pytestmark = pytest.mark.slow

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def plan(requester: Requester, order: Any, **fields: Any) -> dict[str, Any]:
    """The answer's data."""
    result = requester.result_of(requester.command("order.plan", order=order, **fields))
    assert (result.body["code"], result.headers["x-ecs-http-status"]) == (200, 200)
    found: dict[str, Any] = result.body["data"]
    return found


def asked(requester: Requester, cloud: Any, order: Any, **fields: Any) -> dict[str, Any]:
    """The same, and nothing was touched by it."""
    before = cloud.executed() if isinstance(cloud, SimulatedOpenStack) else None
    found = plan(requester, order, **fields)
    if before is not None:
        assert [
            one for one in cloud.executed()[len(before) :] if not one.startswith("keystone")
        ] == []
    return found


def steps(found: dict[str, Any]) -> list[tuple[str, Any, Any, bool]]:
    return [
        (one["name"], one["before"], one["after"], one["canBeUndone"]) for one in found["steps"]
    ]


def failed(found: dict[str, Any]) -> list[tuple[str, str | None, Any]]:
    return [
        (one["name"], one["instanceId"], one["code"])
        for one in found["checks"]
        if not one["passed"]
    ]


def test_a_change_is_told_step_by_step_and_then_done_so(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=10, data=(("SSD", 1),))
    before = tenant.server(server_id), tenant.volumes(server_id), tenant.actions(server_id)
    order = change(
        server_id, ("std_2C4G", "S1.medium.2"), ("sys_EBS_SATA", "20"), ("data_EBS_SSD", "5")
    )
    found = asked(requester, cloud, order)
    assert (
        tenant.server(server_id),
        tenant.volumes(server_id),
        tenant.actions(server_id),
    ) == before
    assert (found["orderId"], found["orderType"]) == (order["orderId"], "changeConfigure")
    assert (found["verdict"], found["code"], found["reason"]) == ("carried_out", 200, None)
    assert [one["name"] for one in found["checks"]] == [
        "form",
        "tenant",
        "instance",
        "newest",
        "state",
        "flavor",
        "image",
        "disks",
        "volumeState",
        "quota",
    ]
    assert {one["passed"] for one in found["checks"]} == {True}
    assert steps(found)[:4] == [
        ("resize", "S1.small.1", "S1.medium.2", True),
        ("extend", 10, 20, False),
        ("extend", 1, 5, False),
        ("confirm", "S1.small.1", "S1.medium.2", False),
    ]
    name, _, after, _ = steps(found)[4]
    assert (name, after["order_id"], after["charge_type"]) == (
        "feeData",
        order["orderId"],
        "hourlySettlement",
    )
    assert found["cannotBeUndone"] == [2, 3, 4]
    system, data = tenant.volumes(server_id)
    assert [one["target"] for one in found["steps"]] == [None, system["id"], data["id"], None, None]
    assert {one["instanceId"] for one in found["steps"]} == {server_id}

    result, statuses = carried_out(requester, order)
    assert result.body["code"] == 200
    assert statuses[2:-1] == ["resizing", "extending", "confirming"]
    assert [one["size"] for one in product_of(result)["after"]["disks"]] == [20, 5]


def test_what_would_be_refused_says_why_and_has_no_steps(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    first, second = tenant.make_server(disk=10), tenant.make_server(disk=None)
    tenant.act(second, {"lock": None})
    order = change(first, ("sys_EBS_SATA", "9"))
    order["productList"].append({**order["productList"][0], "instanceId": second})
    found = asked(requester, cloud, order)
    tenant.act(second, {"unlock": None})
    assert (found["verdict"], found["code"], found["reason"]) == ("refused", "101.001040", "locked")
    assert failed(found) == [("state", second, "101.001040")]
    assert (found["steps"], found["cannotBeUndone"]) == ([], [])
    order["productList"].pop()
    found = asked(requester, cloud, order)
    assert (found["verdict"], found["message"]) == ("refused", "参数sys_EBS_SATA不符合规范")
    assert found["checks"][-1]["detail"] == "a disk cannot be made smaller"
    assert failed(found) == [("disks", first, "101.001002")]


@pytest.mark.parametrize(
    ("fields", "failure"),
    [
        ({"orderType": "paint"}, ("form", None, "101.001002")),
        ({"orderStatus": "payFail"}, ("form", None, "101.001002")),
        ({"setCount": "many"}, ("form", None, "101.001002")),
        ({"tenant_id": "tenant-b"}, ("tenant", None, "101.001401")),
        ({"durationUnit": "fortnight"}, ("form", None, "101.001002")),
    ],
)
def test_form_and_identity_are_checked_first(
    requester: Requester, tenant: Tenant, cloud: Any, fields: dict[str, Any], failure: Any
) -> None:
    found = asked(requester, cloud, paid("renew", UNKNOWN, **fields))
    assert found["verdict"] == "refused"
    assert failed(found) == [failure]


def test_a_renewal_tells_the_dates_and_the_start(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=None)
    tenant.set_metadata(server_id, next_fee_time="2099-01-31 00:00:00", soft_down="stopped")
    tenant.stop(server_id)
    found = asked(requester, cloud, paid("renew", server_id, duration="1", durationUnit="M"))
    assert found["verdict"] == "carried_out"
    assert steps(found) == [
        ("renew", "2099-01-31 00:00:00", "2099-02-28 00:00:00", True),
        ("start", "SHUTOFF", "ACTIVE", True),
        ("unmark", "stopped", None, True),
    ]
    unknown = asked(requester, cloud, paid("renew", UNKNOWN))
    assert failed(unknown) == [("instance", UNKNOWN, "101.001033")]


def test_a_new_order_tells_what_it_makes(requester: Requester, tenant: Tenant, cloud: Any) -> None:
    before = records(tenant)
    found = asked(requester, cloud, new(tenant, count=2, chosen={"instanceName": "web"}))
    assert records(tenant) == before
    assert found["verdict"] == "carried_out"
    assert [one["name"] for one in found["steps"]] == ["createVolume", "createVolume", "create"] * 2
    assert [one["after"]["name"] for one in found["steps"] if one["name"] == "create"] == [
        "web-1",
        "web-2",
    ]
    assert found["steps"][0]["after"] == {"size": 2, "type": "SATA", "image": tenant.image}
    assert found["cannotBeUndone"] == []
    refused = asked(
        requester, cloud, new(tenant, ("std_1C1G", "S1.small.1"), ("sys_EBS_TAPE", "2"))
    )
    assert (refused["verdict"], refused["message"]) == ("refused", "参数sys_EBS_TAPE不符合规范")


def test_an_unsubscription_tells_what_does_not_come_back(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=10)
    (volume,) = tenant.volumes(server_id)
    found = asked(requester, cloud, paid("unsubscribe", server_id))
    assert [(one["name"], one["target"], one["canBeUndone"]) for one in found["steps"]] == [
        ("delete", None, False),
        ("deleteVolume", volume["id"], False),
    ]
    assert found["steps"][0]["before"]["flavor"] == "S1.small.1"
    gone = asked(requester, cloud, paid("unsubscribe", UNKNOWN))
    assert (gone["verdict"], gone["steps"]) == ("carried_out", [])


@pytest.mark.long_on_real
def test_a_soft_down_tells_of_each_server(requester: Requester, tenant: Tenant, cloud: Any) -> None:
    running, stopped, going = (tenant.make_server(disk=None) for _ in range(3))
    tenant.stop(stopped)
    message = soft_down(
        (running, "stopServer"), (stopped, "resumeServer"), (going, "delete"), (UNKNOWN, "delete")
    )
    found = asked(requester, cloud, message)
    assert (found["orderId"], found["orderType"], found["verdict"]) == (
        message["flowId"],
        "softDown",
        "carried_out",
    )
    assert [(one["name"], one["instanceId"]) for one in found["steps"]] == [
        ("stop", running),
        ("mark", running),
        ("start", stopped),
        ("delete", going),
    ]
    other = Tenant(cloud.clouds_yaml, "tenant-b")
    theirs = other.make_server(disk=None)
    found = asked(requester, cloud, soft_down((theirs, "stopServer"), (running, "stopServer")))
    other.close()
    assert failed(found) == [("tenant", theirs, "101.001033")]
    assert [one["name"] for one in found["steps"]] == ["stop", "mark"]


def test_a_plan_is_answered_and_is_no_order_result(requester: Requester, tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=None)
    order = paid("renew", server_id, tenant=None)
    # Without a tenant anywhere it is asked for the project that owns the instance.
    message_id = requester.command("order.plan", tenant=None, order=order)
    assert requester.result_of(message_id).body["data"]["verdict"] == "carried_out"
    for nothing in ({}, "an order", None):
        answer = requester.result_of(requester.command("order.plan", order=nothing)).body
        assert (answer["code"], answer["message"]) == ("101.001002", "参数order不符合规范")
    requester.listen(0.5)
    assert [one for one in requester.heard if one.source is Source.ORDER_RESULT] == []
    assert "orders" not in tenant.server(server_id)["metadata"]


@pytest.mark.parametrize(
    "instance",
    [
        "../os-services",
        "..",
        "../../v3/projects",
        f"{UNKNOWN}/../../flavors",
        "%2e%2e",
        f"{UNKNOWN}?x=y",
    ],
)
def test_an_instance_that_is_no_uuid_becomes_no_part_of_a_url(
    requester: Requester, instance: str
) -> None:
    """Without a tenant anywhere the admin would be asked for it, to find out whose it is."""
    order = paid("renew", instance, tenant=None)
    answer = requester.result_of(requester.command("order.plan", tenant=None, order=order)).body
    assert (answer["code"], answer["message"]) == ("101.001002", "参数tenant_id不符合规范")


def test_what_is_in_the_way_and_passes_puts_an_order_off(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=None)
    cloud.fault("virt.power_off", match=server_id, delay=25, times=1)
    tenant.act(server_id, {"os-stop": None})
    found = plan(requester, paid("renew", server_id))
    assert (found["verdict"], found["code"], found["reason"]) == ("put_off", "101.001040", "busy")
    assert failed(found) == [("instance", server_id, "101.001040")]
    assert found["steps"] == []
    tenant.wait(server_id, lambda server: server["status"] == "SHUTOFF")

"""A paid changeConfigure order from message to message, on the simulated cloud and on the real one."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.documents import change_configure, new_order_id
from sandbox.requester import Heard, Requester
from tests.support.tenant import Tenant


def carried_out(requester: Requester, order: str) -> tuple[Heard, list[dict[str, Any]]]:
    """The result, and the order's own updates."""
    message_id = requester.order(order)
    result = requester.order_result_of(message_id, 120)
    requester.last_update_of("order", message_id)
    return result, [
        one.body for one in requester.updates_of(message_id) if one.body["resource"] == "order"
    ]


def ordered(server_id: str, image: str, *items: tuple[str, str], **fields: Any) -> str:
    """The document's order with other items."""
    order = json.loads(change_configure(server_id, image))
    order["productList"][0]["itemList"] = [
        {"code": code, "value": value, "name": code} for code, value in items
    ]
    return json.dumps({"tenant_id": "tenant-a", **order, **fields})


def test_the_documents_order_is_carried_out_once_and_answered_as_often_as_it_comes(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=10)
    order_id = new_order_id()
    # Just as the document has it: who owns the instance is asked of the cloud.
    order = change_configure(server_id, tenant.image, order_id=order_id)
    result, updates = carried_out(requester, order)

    assert result.routing_key == "order.changeConfigure"
    assert result.headers["x-ecs-http-status"] == 200
    assert (result.body["code"], result.body["message"]) == (200, "OK")
    data = result.body["data"]
    assert data["orderId"] == order_id
    assert data["consoleOrderFlowId"] == "9ee4612f-82a4-4239-9149-e6d05b0f216b"
    (product_set,) = data["productSetList"]
    (product,) = product_set.pop("productList")
    assert product_set == {
        "productSetStatus": "success",
        "resourceChanged": True,
        "billType": "hourlySettlement",
        "orderType": "changeConfigure",
        "duration": "1",
        "durationUnit": "H",
    }
    sent = json.loads(order)["productList"][0]
    told = {name: product.pop(name) for name in ("before", "after", "requestIds")}
    assert product == sent | {"instanceStatus": "ACTIVE", "statusTime": product["statusTime"]}

    server = tenant.server(server_id)
    assert (server["status"], server["flavor"]["original_name"]) == ("ACTIVE", "S1.medium.2")
    assert server["metadata"].pop("orders")
    assert server["metadata"] == {
        "charge_type": "hourlySettlement",
        "order_id": order_id,
        "status_time": "2019-05-08 16:53:27",
    }
    (volume,) = tenant.volumes(server_id)
    assert (volume["size"], volume["status"]) == (60, "in-use")
    actions = tenant.actions(server_id)
    assert (actions.count("resize"), actions.count("confirmResize")) == (1, 1)

    # The message alone tells what was, what is, and by which calls.
    fee_data = dict.fromkeys(("start_fee_time", "next_fee_time", "purchase_time"))
    disk = {"id": volume["id"], "type": "SATA"}
    assert told["before"] == {
        "status": "ACTIVE",
        "flavor": "S1.small.1",
        "disks": [disk | {"size": 10}],
        "feeData": fee_data | {"charge_type": "monthly", "order_id": None},
    }
    assert told["after"] == {
        "status": "ACTIVE",
        "flavor": "S1.medium.2",
        "disks": [disk | {"size": 60}],
        "feeData": fee_data | {"charge_type": "hourlySettlement", "order_id": order_id},
    }
    assert len(set(told["requestIds"])) == 4  # resize, extend, confirm, metadata
    assert set(told["requestIds"]) >= set(tenant.request_ids(server_id, "resize", "confirmResize"))

    assert [one["status"] for one in updates] == [
        "accepted",
        "validating",
        "resizing",
        "extending",
        "confirming",
        "succeeded",
    ]
    assert [one["final"] for one in updates] == [False] * 5 + [True]
    assert [one["progress"] for one in updates] == sorted(one["progress"] for one in updates)
    assert updates[-1]["progress"] == 100

    for _ in range(5):
        again = requester.order_result_of(requester.order(order))
        assert (again.raw, again.properties["message_id"]) == (
            result.raw,
            result.properties["message_id"],
        )
    assert tenant.actions(server_id) == actions
    requester.listen(0.5)
    finals = [one for one in requester.heard if one.is_final and one.body["id"] == order_id]
    assert [one.body["status"] for one in finals] == ["succeeded"]


def test_what_the_server_has_already_is_a_success_at_once(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=10)
    order = ordered(server_id, tenant.image, ("std_1C1G", "S1.small.1"), ("sys_EBS_SATA", "10"))
    result, _ = carried_out(requester, order)
    assert result.body["code"] == 200
    assert result.body["data"]["productSetList"][0]["resourceChanged"] is False
    assert "resize" not in tenant.actions(server_id)


@pytest.mark.long_on_real
def test_a_factor_of_the_price_is_nothing_that_is_ordered(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=10)
    order = json.loads(
        ordered(server_id, tenant.image, ("std_2C4G", "S1.medium.2"), ("sys_EBS_SATA", "12"))
    )
    order["productList"][0]["itemList"] += [
        {"code": "osType", "name": "操作系统", "value": "Linux", "type": "impactFactor"},
        {"code": "std_4C8G", "name": "规格", "value": "S1.large.2", "type": " impactFactor"},
    ]
    result, _ = carried_out(requester, json.dumps(order))
    assert result.body["code"] == 200, result.body
    assert tenant.server(server_id)["flavor"]["original_name"] == "S1.medium.2"
    assert [one["size"] for one in tenant.volumes(server_id)] == [12]


def test_data_disks_grow_and_the_flavor_stays(requester: Requester, tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=10, data=(("SSD", 1),))
    result, updates = carried_out(
        requester, ordered(server_id, tenant.image, ("data_EBS_SSD", "3"))
    )
    assert result.body["code"] == 200
    assert [one["size"] for one in tenant.volumes(server_id)] == [10, 3]
    assert "resize" not in tenant.actions(server_id)
    assert [one["status"] for one in updates] == [
        "accepted",
        "validating",
        "extending",
        "succeeded",
    ]


def test_a_stopped_server_stays_stopped(requester: Requester, tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=10)
    tenant.act(server_id, {"os-stop": None})
    tenant.wait(
        server_id,
        lambda server: server["status"] == "SHUTOFF" and not server["OS-EXT-STS:task_state"],
    )
    result, _ = carried_out(
        requester, ordered(server_id, tenant.image, ("std_2C4G", "S1.medium.2"))
    )
    assert result.body["code"] == 200
    assert result.body["data"]["productSetList"][0]["productList"][0]["instanceStatus"] == "STOP"
    server = tenant.server(server_id)
    assert (server["status"], server["flavor"]["original_name"]) == ("SHUTOFF", "S1.medium.2")


@pytest.mark.parametrize(
    ("items", "refused"),
    [
        ([("std_9C9G", "S9.gigantic")], "std_9C9G"),
        ([("std_2C4G", "S1.medium.2"), ("CPU", "4")], "CPU"),
        ([("std_2C4G", "S1.medium.2"), ("memory", "8")], "memory"),
        ([("sys_EBS_SATA", "9")], "sys_EBS_SATA"),
        ([("sys_EBS_SSD", "60")], "sys_EBS_SSD"),
        ([("data_EBS_SSD", "60")], "data_EBS_SSD"),
        ([("image_Linux", "00000000-0000-4000-8000-000000000000")], "image_Linux"),
        ([("sys_EBS_SATA", "many")], "sys_EBS_SATA"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_touched(
    requester: Requester, lasting: tuple[Tenant, str], items: Any, refused: str
) -> None:
    tenant, server_id = lasting
    before = tenant.server(server_id)
    result, updates = carried_out(requester, ordered(server_id, tenant.image, *items))
    assert (result.body["code"], result.body["message"]) == (
        "101.001002",
        f"参数{refused}不符合规范",
    )
    (product_set,) = result.body["data"]["productSetList"]
    assert (product_set["productSetStatus"], product_set["resourceChanged"]) == ("fail", False)
    assert product_set["productList"][0]["instanceStatus"] == "ACTIVE"
    assert [one["status"] for one in updates if one["final"]] == ["failed"]
    assert tenant.server(server_id) == before


@pytest.fixture(scope="module")
def lasting(cloud: Any) -> Iterator[tuple[Tenant, str]]:
    """A tenant with a server that no test changes."""
    tenant = Tenant(cloud.clouds_yaml, "tenant-a")
    yield tenant, tenant.make_server(disk=10)
    tenant.close()


def test_an_instance_that_is_not_the_tenants_is_unknown(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=None)
    order = ordered(server_id, tenant.image, ("std_2C4G", "S1.medium.2"), tenant_id="tenant-b")
    result, _ = carried_out(requester, order)
    assert (result.body["code"], result.body["message"]) == (
        "101.001033",
        f"云服务器{server_id}不存在",
    )
    assert result.body["data"]["productSetList"][0]["productList"][0]["instanceStatus"] is None
    assert tenant.actions(server_id) == ["create"]


def test_a_resize_that_finds_no_host_fails_and_changes_nothing(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=10)
    order = ordered(
        server_id, tenant.image, ("std_huge", "too-big-for-any-host"), ("sys_EBS_SATA", "20")
    )
    result, updates = carried_out(requester, order)
    assert (result.body["code"], result.body["data"]["reason"]) == ("101.001040", "no_host")
    (product_set,) = result.body["data"]["productSetList"]
    assert (product_set["productSetStatus"], product_set["resourceChanged"]) == ("fail", False)
    server = tenant.server(server_id)
    assert (server["status"], server["flavor"]["original_name"]) == ("ACTIVE", "S1.small.1")
    assert tenant.volumes(server_id)[0]["size"] == 10
    assert [one["status"] for one in updates][-2:] == ["reverting", "failed"]


def test_a_volume_that_fails_to_grow_reverts_the_resize(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=10)
    (volume,) = tenant.volumes(server_id)
    cloud.fault("volume.extend_volume", match=volume["id"], error="no space", times=1)
    order = ordered(server_id, tenant.image, ("std_2C4G", "S1.medium.2"), ("sys_EBS_SATA", "20"))
    result, updates = carried_out(requester, order)
    assert (result.body["code"], result.body["data"]["reason"]) == ("101.001040", "extend_failed")
    (product_set,) = result.body["data"]["productSetList"]
    assert (product_set["productSetStatus"], product_set["resourceChanged"]) == ("fail", False)
    server = tenant.server(server_id)
    assert (server["status"], server["flavor"]["original_name"]) == ("ACTIVE", "S1.small.1")
    (volume,) = tenant.volumes(server_id)
    assert (volume["status"], volume["size"]) == ("in-use", 10)
    assert "revertResize" in tenant.actions(server_id)
    assert [one["status"] for one in updates][-2:] == ["reverting", "failed"]


def test_a_server_that_a_resize_left_in_error_is_reset(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=None)
    cloud.fault("virt.finish_migration", match=server_id, error="disk is full", times=1)
    result, _ = carried_out(
        requester, ordered(server_id, tenant.image, ("std_2C4G", "S1.medium.2"))
    )
    assert (result.body["code"], result.body["data"]["reason"]) == ("101.001040", "resize_failed")
    assert tenant.server(server_id)["status"] == "ACTIVE"
    assert result.body["data"]["productSetList"][0]["productList"][0]["instanceStatus"] == "ACTIVE"


def test_two_servers_of_an_order_are_changed_or_neither(
    requester: Requester, tenant: Tenant
) -> None:
    first, second = tenant.make_server(disk=10), tenant.make_server(disk=10)
    order = json.loads(ordered(first, tenant.image, ("std_2C4G", "S1.medium.2")))
    order["productList"].append(
        json.loads(json.dumps(order["productList"][0])) | {"instanceId": second}
    )
    order["productList"][1]["itemList"][0]["value"] = "too-big-for-any-host"
    result, _ = carried_out(requester, json.dumps(order))
    assert result.body["code"] == "101.001040"
    (product_set,) = result.body["data"]["productSetList"]
    assert len(product_set["productList"]) == 2
    assert product_set["resourceChanged"] is False
    for one in (first, second):
        server = tenant.server(one)
        assert (server["status"], server["flavor"]["original_name"]) == ("ACTIVE", "S1.small.1")
    assert "revertResize" in tenant.actions(first)


def test_an_order_that_is_not_paid_asks_for_nothing(requester: Requester, tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=None)
    ignored = requester.order(
        ordered(server_id, tenant.image, ("std_2C4G", "S1.medium.2"), orderStatus="payFail")
    )
    requester.order_result_of(requester.order('{"orderStatus": "paySuccess"}'))
    assert not [one for one in requester.heard if one.correlation_id == ignored]
    assert tenant.actions(server_id) == ["create"]

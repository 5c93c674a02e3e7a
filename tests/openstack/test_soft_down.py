"""Servers that are no longer paid for, from message to message, on the simulated cloud and on the
real one.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.requester import Heard, Requester, Source
from tests.support.new_orders import new, records
from tests.support.orders import carried_out, paid, product_of, publish, reported, soft_down
from tests.support.tenant import Tenant

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def other(cloud: Any) -> Iterator[Tenant]:
    found = Tenant(cloud.clouds_yaml, "tenant-b")
    yield found
    found.close()


def outcomes(result: Heard) -> list[tuple[str, str | None]]:
    return [(one["result"], one["instanceStatus"]) for one in result.body["data"]["instanceList"]]


def state(tenant: Tenant, server_id: str) -> tuple[str, str | None]:
    server = tenant.server(server_id)
    return server["status"], server["metadata"].get("soft_down")


def test_a_server_is_stopped_and_marked_resumed_and_unmarked(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=10)
    message = soft_down((server_id, "stopServer"))
    result, statuses = carried_out(requester, message)
    assert (result.routing_key, result.body["code"], result.body["message"]) == (
        "order.softDown",
        200,
        "OK",
    )
    assert statuses == ["accepted", "validating", "stopping", "succeeded"]
    assert state(tenant, server_id) == ("SHUTOFF", "stopped")
    data = result.body["data"]
    (instance,) = data.pop("instanceList")
    assert data == {"region": "cn-north-3", "flowId": message["flowId"]}
    assert (
        instance.items()
        >= (message["instanceList"][0] | {"result": "success", "instanceStatus": "STOP"}).items()
    )
    assert (instance["code"], instance["message"], len(instance["statusTime"])) == (200, "OK", 19)
    assert (instance["before"]["status"], instance["after"]["status"]) == ("ACTIVE", "SHUTOFF")
    assert instance["before"]["disks"] == instance["after"]["disks"] != []
    assert len(instance["requestIds"]) == 2
    assert set(instance["requestIds"]) > set(tenant.request_ids(server_id, "stop"))
    updates = [one for one in requester.heard if one.routing_key == f"order.{message['flowId']}"]
    assert updates[-1].body["instanceId"] == server_id
    ends = [
        one.body["status"]
        for one in requester.heard
        if one.is_final and one.body["id"] == server_id
    ]
    assert ends == ["SHUTOFF"]

    again = requester.order_result_of(publish(requester, message))
    assert again.raw == result.raw
    result, statuses = carried_out(requester, soft_down((server_id, "resumeServer")))
    assert statuses == ["accepted", "validating", "starting", "succeeded"]
    assert outcomes(result) == [("success", "ACTIVE")]
    assert state(tenant, server_id) == ("ACTIVE", None)
    assert tenant.actions(server_id) == ["create", "stop", "start"]


def test_what_is_so_already_is_a_success(requester: Requester, tenant: Tenant) -> None:
    running, stopped = tenant.make_server(disk=None), tenant.make_server(disk=None)
    tenant.stop(stopped)
    message = soft_down((running, "resumeServer"), (stopped, "stopServer"), (UNKNOWN, "stopServer"))
    result, statuses = carried_out(requester, message)
    assert result.body["code"] == 200
    assert outcomes(result) == [("success", "ACTIVE"), ("success", "STOP"), ("success", "DELETE")]
    assert statuses == ["accepted", "validating", "succeeded"]
    # Its owner had switched it off: whoever pays does not switch it on.
    assert state(tenant, stopped) == ("SHUTOFF", None)
    assert (tenant.actions(running), tenant.actions(stopped)) == (["create"], ["create", "stop"])


def test_servers_of_several_tenants_are_taken_down_each_in_its_own_project(
    requester: Requester, tenant: Tenant, other: Tenant
) -> None:
    mine, theirs = tenant.make_server(disk=None), other.make_server(disk=None)
    result, _ = carried_out(requester, soft_down((mine, "stopServer"), (theirs, "stopServer")))
    assert outcomes(result) == [("success", "STOP"), ("success", "STOP")]
    assert state(tenant, mine) == state(other, theirs) == ("SHUTOFF", "stopped")
    # Updates of a server name the project that it belongs to; the order itself belongs to none.
    owners = {
        one.body["id"]: one.body["tenant_id"]
        for one in requester.heard
        if one.source is Source.STATUS
    }
    assert (owners[mine], owners[theirs]) == (tenant.project_id, other.project_id)


def test_a_tenant_that_is_named_is_the_only_one(
    requester: Requester, tenant: Tenant, other: Tenant
) -> None:
    mine, theirs = tenant.make_server(disk=None), other.make_server(disk=None)
    result, _ = carried_out(
        requester, soft_down((mine, "stopServer"), (theirs, "stopServer"), tenant="tenant-a")
    )
    assert result.body["code"] == "101.001033"
    assert outcomes(result) == [("success", "STOP"), ("fail", None)]
    assert result.body["data"]["instanceList"][1]["code"] == "101.001033"
    assert state(other, theirs) == ("ACTIVE", None)


def test_each_server_has_its_own_outcome(requester: Requester, tenant: Tenant, cloud: Any) -> None:
    good, locked, stuck, paused = (tenant.make_server(disk=None) for _ in range(4))
    tenant.act(locked, {"lock": None})
    cloud.fault("virt.power_off", match=stuck, error="no answer", times=1)
    message = soft_down(
        (locked, "stopServer"),
        (good, "stopServer"),
        (stuck, "stopServer"),
        (paused, "resumeServer"),
    )
    result, statuses = carried_out(requester, message)
    tenant.act(locked, {"unlock": None})
    assert (result.body["code"], result.body["data"]["reason"]) == ("101.001040", "locked")
    assert statuses[-1] == "failed"
    assert outcomes(result) == [
        ("fail", "ACTIVE"),
        ("success", "STOP"),
        ("fail", "ACTIVE"),
        ("success", "ACTIVE"),
    ]
    listed = result.body["data"]["instanceList"]
    assert [one["reason"] for one in listed] == ["locked", None, "stop_failed", None]
    assert state(tenant, good) == ("SHUTOFF", "stopped")
    assert state(tenant, stuck) == ("ACTIVE", None)


def test_what_was_stopped_for_want_of_money_runs_again_when_it_is_paid_for(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=None)
    carried_out(requester, soft_down((server_id, "stopServer")))
    assert state(tenant, server_id) == ("SHUTOFF", "stopped")
    result, _ = carried_out(requester, paid("renew", server_id))
    assert reported(result) == (200, "success", True)
    assert state(tenant, server_id) == ("ACTIVE", None)


def test_a_server_is_deleted_with_what_came_with_it(requester: Requester, tenant: Tenant) -> None:
    before = records(tenant)
    made, _ = carried_out(requester, new(tenant, chosen={"subnetId": tenant.subnet()}))
    server_id = product_of(made)["instanceId"]
    assert records(tenant) != before
    message = soft_down((server_id, "delete"), (UNKNOWN, "delete"))
    result, statuses = carried_out(requester, message)
    assert result.body["code"] == 200
    assert statuses == ["accepted", "validating", "deleting", "succeeded"]
    assert outcomes(result) == [("success", "DELETE"), ("success", "DELETE")]
    assert records(tenant) == before
    deleted, gone = result.body["data"]["instanceList"]
    assert (deleted["before"]["status"], deleted["after"]) == ("ACTIVE", None)
    assert len(set(deleted["requestIds"])) >= 2  # the server, and the port, which is not Nova's
    assert (gone["before"], gone["requestIds"]) == (None, [])
    ends = [
        one.body["status"]
        for one in requester.heard
        if one.is_final and one.body["id"] == server_id
    ]
    assert ends[-1] == "DELETED"

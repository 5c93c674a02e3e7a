"""Paid renewals from message to message, on the simulated cloud and on the real one."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from sandbox.requester import Requester
from tests.support.orders import carried_out, paid, planned, product_of, publish, reported
from tests.support.tenant import Tenant

SHANGHAI = ZoneInfo("Asia/Shanghai")
FORM = "%Y-%m-%d %H:%M:%S"


def renewal(*server_ids: str, number: int = 1, unit: str = "M", **fields: Any) -> dict[str, Any]:
    return paid("renew", *server_ids, duration=str(number), durationUnit=unit, **fields)


def until(tenant: Tenant, server_id: str) -> str | None:
    found: str | None = tenant.server(server_id)["metadata"].get("next_fee_time")
    return found


def test_the_date_moves_on_from_where_it_was_and_nothing_else_changes(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=10)
    tenant.set_metadata(server_id, next_fee_time="2099-01-31 08:30:00", order_id="4711")
    before = tenant.server(server_id)
    result, statuses = carried_out(requester, renewal(server_id))
    assert result.routing_key == "order.renew"
    assert reported(result) == (200, "success", True)
    assert statuses == ["accepted", "validating", "succeeded"]

    server = tenant.server(server_id)
    assert server["metadata"].pop("orders")
    assert server["metadata"] == before["metadata"] | {"next_fee_time": "2099-02-28 08:30:00"}
    assert (server["status"], tenant.actions(server_id)) == ("ACTIVE", ["create"])
    product = product_of(result)
    assert product["instanceStatus"] == "ACTIVE"
    assert product["before"]["feeData"]["next_fee_time"] == "2099-01-31 08:30:00"
    assert product["after"]["feeData"]["next_fee_time"] == "2099-02-28 08:30:00"
    assert product["before"]["disks"] == product["after"]["disks"] != []
    assert len(product["requestIds"]) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2097-05-08 16:53:27.0", "2097-06-08 16:53:27"),
        ("2097-05-08 16:53", "2097-06-08 16:53:00"),
        ("2097-05-08T08:53:27Z", "2097-06-08 16:53:27"),
        ("2097-05-31T23:30:00.5+0800", "2097-06-30 23:30:00"),
    ],
)
def test_a_date_is_read_as_people_and_programs_write_it(
    requester: Requester, lasting: tuple[Tenant, str], old: str, new: str
) -> None:
    tenant, server_id = lasting
    tenant.set_metadata(server_id, next_fee_time=old)
    result, _ = carried_out(requester, renewal(server_id))
    assert reported(result) == (200, "success", True)
    assert until(tenant, server_id) == new
    assert product_of(result)["before"]["feeData"]["next_fee_time"] == old


def test_a_date_is_shown_in_the_billing_time_zone_however_it_is_written(
    requester: Requester, lasting: tuple[Tenant, str]
) -> None:
    tenant, server_id = lasting
    tenant.set_metadata(server_id, next_fee_time="2097-05-08T08:53:27.0Z", purchase_time="soon")
    asked = requester.command("server.show", server_id=server_id)
    fee_data = requester.result_of(asked).body["data"]["server"]["feeData"]
    assert (fee_data["nextFeeTime"], fee_data["purchasetime"]) == ("2097-05-08 16:53:27", "soon")


@pytest.mark.parametrize("old", ["soon", "2097-02-30 16:53:27", "2097-05-08"])
def test_a_date_that_cannot_be_read_ends_the_order_before_anything_is_touched(
    requester: Requester, lasting: tuple[Tenant, str], old: str
) -> None:
    tenant, server_id = lasting
    tenant.set_metadata(server_id, next_fee_time=old)
    before = tenant.server(server_id)
    order = renewal(server_id)
    plan = planned(requester, order)
    assert (plan["verdict"], plan["reason"]) == ("refused", "fee_data")
    result, statuses = carried_out(requester, order)
    assert reported(result) == ("101.001040", "fail", False)
    assert result.body["data"]["reason"] == "fee_data"
    assert statuses == ["accepted", "validating", "failed"]
    assert tenant.server(server_id) == before


@pytest.fixture(scope="module")
def lasting(cloud: Any) -> Iterator[tuple[Tenant, str]]:
    """A tenant with a server whose date the tests set."""
    tenant = Tenant(cloud.clouds_yaml, "tenant-a")
    yield tenant, tenant.make_server(disk=None)
    tenant.close()


@pytest.mark.once_on_real
@pytest.mark.parametrize("old", [None, "2019-05-08 16:53:27", " "])
def test_a_date_that_is_past_or_missing_counts_as_now(
    requester: Requester, tenant: Tenant, old: str | None
) -> None:
    server_id = tenant.make_server(disk=None)
    if old is not None:
        tenant.set_metadata(server_id, next_fee_time=old)
    earliest = datetime.now(SHANGHAI).replace(microsecond=0)
    result, _ = carried_out(requester, renewal(server_id, number=48, unit="H"))
    moved = datetime.strptime(until(tenant, server_id) or "", FORM).replace(tzinfo=SHANGHAI)
    assert earliest <= moved - timedelta(hours=48) <= datetime.now(SHANGHAI)
    assert product_of(result)["before"]["feeData"]["next_fee_time"] == old


def test_two_renewals_count_and_a_repeat_does_not(requester: Requester, tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=None)
    tenant.set_metadata(server_id, next_fee_time="2099-12-01 00:00:00")
    first, second = renewal(server_id, number=10, unit="D"), renewal(server_id, number=1, unit="Y")
    ids = [publish(requester, one) for one in (first, second, first, second, first)]
    results = [requester.order_result_of(one) for one in ids]
    assert {one.body["code"] for one in results} == {200}
    assert results[0].raw == results[2].raw == results[4].raw
    assert results[1].raw == results[3].raw
    assert until(tenant, server_id) == "2100-12-11 00:00:00"
    assert product_of(results[1])["before"] == product_of(results[0])["after"]


def test_several_servers_are_renewed_together_or_not_at_all(
    requester: Requester, tenant: Tenant
) -> None:
    ids = [tenant.make_server(disk=None) for _ in range(2)]
    for one in ids:
        tenant.set_metadata(one, next_fee_time="2099-12-01 00:00:00")
    result, _ = carried_out(requester, renewal(*ids, number=2, unit="M"))
    assert reported(result) == (200, "success", True)
    assert [until(tenant, one) for one in ids] == ["2100-02-01 00:00:00"] * 2
    unknown = "00000000-0000-4000-8000-000000000000"
    result, _ = carried_out(requester, renewal(*ids, unknown))
    assert reported(result) == ("101.001033", "fail", False)
    assert result.body["message"] == f"云服务器{unknown}不存在"
    assert [product_of(result, number)["instanceStatus"] for number in range(3)] == [
        "ACTIVE",
        "ACTIVE",
        None,
    ]
    assert [until(tenant, one) for one in ids] == ["2100-02-01 00:00:00"] * 2


def test_what_soft_down_had_stopped_is_started_again(requester: Requester, tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=None)
    tenant.stop(server_id)
    tenant.set_metadata(server_id, soft_down="stopped")
    result, statuses = carried_out(requester, renewal(server_id))
    assert reported(result) == (200, "success", True)
    assert statuses == ["accepted", "validating", "starting", "succeeded"]
    server = tenant.server(server_id)
    assert (server["status"], tenant.actions(server_id)) == ("ACTIVE", ["create", "stop", "start"])
    assert "soft_down" not in server["metadata"]
    product = product_of(result)
    assert (product["before"]["status"], product["after"]["status"]) == ("SHUTOFF", "ACTIVE")
    assert len(product["requestIds"]) == 3  # the date, the start, the mark
    ends = [one.body for one in requester.heard if one.is_final and one.body["id"] == server_id]
    assert [one["status"] for one in ends] == ["ACTIVE"]


def test_what_its_owner_had_stopped_stays_stopped(requester: Requester, tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=None)
    tenant.stop(server_id)
    result, _ = carried_out(requester, renewal(server_id))
    assert reported(result) == (200, "success", True)
    assert product_of(result)["instanceStatus"] == "STOP"
    assert tenant.actions(server_id) == ["create", "stop"]


@pytest.mark.long_on_real
def test_a_start_that_fails_leaves_every_server_as_it_was(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    ids = [tenant.make_server(disk=None) for _ in range(2)]
    for one in ids:
        tenant.stop(one)
    tenant.set_metadata(ids[0], soft_down="stopped", next_fee_time="2099-12-01 00:00:00")
    tenant.set_metadata(ids[1], soft_down="stopped")
    cloud.fault("virt.power_on", match=ids[1], error="no power", times=1)
    result, statuses = carried_out(requester, renewal(*ids))
    assert reported(result) == ("101.001040", "fail", False)
    assert result.body["data"]["reason"] == "start_failed"
    assert statuses[-2:] == ["reverting", "failed"]
    assert [tenant.server(one)["status"] for one in ids] == ["SHUTOFF", "SHUTOFF"]
    assert [until(tenant, one) for one in ids] == ["2099-12-01 00:00:00", None]
    assert {tenant.server(one)["metadata"]["soft_down"] for one in ids} == {"stopped"}


def test_a_server_in_error_is_renewed_and_stays_in_error(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=None)
    admin = Tenant(cloud.clouds_yaml, "admin")
    admin.act(server_id, {"os-resetState": {"state": "error"}})
    result, _ = carried_out(requester, renewal(server_id))
    assert reported(result) == (200, "success", True)
    assert product_of(result)["instanceStatus"] == "ERROR"
    assert tenant.server(server_id)["status"] == "ERROR"
    assert until(tenant, server_id) is not None
    admin.act(server_id, {"os-resetState": {"state": "active"}})
    admin.close()


def test_a_locked_server_is_refused_before_anything_is_touched(
    requester: Requester, tenant: Tenant
) -> None:
    server_id, other = tenant.make_server(disk=None), tenant.make_server(disk=None)
    tenant.act(server_id, {"lock": None})
    result, _ = carried_out(requester, renewal(other, server_id))
    assert reported(result) == ("101.001040", "fail", False)
    assert result.body["data"]["reason"] == "locked"
    assert (until(tenant, server_id), until(tenant, other)) == (None, None)
    tenant.act(server_id, {"unlock": None})


def test_another_tenants_server_is_unknown(requester: Requester, tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=None)
    result, _ = carried_out(requester, renewal(server_id, tenant_id="tenant-b"))
    assert reported(result) == ("101.001033", "fail", False)
    assert until(tenant, server_id) is None

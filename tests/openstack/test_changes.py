"""Tests what changeConfigure changes and what it refuses, on the simulated cloud and on the real
one.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.requester import Requester
from tests.support.new_orders import quota, used
from tests.support.orders import carried_out, paid, planned, product_of, reported
from tests.support.tenant import Tenant

pytestmark = pytest.mark.slow

UNKNOWN = "00000000-0000-4000-8000-000000000000"
Item = tuple[str, str] | tuple[str, str, str]


def change(server_id: str, *items: Item, **fields: Any) -> dict[str, Any]:
    """The order with these items: code, value, and the volume that is meant."""
    order = paid("changeConfigure", server_id, **fields)
    order["productList"][0]["itemList"] = [
        {
            "code": item[0],
            "value": item[1],
            "name": item[0],
            **({"instanceId": item[2]} if len(item) > 2 else {}),
        }
        for item in items
    ]
    return order


@pytest.fixture(scope="module")
def lasting(cloud: Any) -> Iterator[tuple[Tenant, str]]:
    """A tenant with a server that the tests leave as it is but for its metadata."""
    tenant = Tenant(cloud.clouds_yaml, "tenant-a")
    yield tenant, tenant.make_server(disk=10)
    tenant.close()


def sizes(tenant: Tenant, server_id: str) -> list[tuple[str, int]]:
    return [(one["volume_type"], one["size"]) for one in tenant.volumes(server_id)]


@pytest.mark.long_on_real
def test_of_several_data_disks_those_grow_that_are_named(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=10, data=(("SSD", 1), ("SSD", 2), ("SATA", 3)))
    system, first, second, third = tenant.volumes(server_id)
    order = change(
        server_id,
        ("data_EBS_SSD", "4", second["id"].upper()),
        ("data_EBS_SATA", "3"),
        ("data_EBS_SSD", "1", first["id"]),
    )
    result, statuses = carried_out(requester, order)
    assert reported(result) == (200, "success", True)
    assert sizes(tenant, server_id) == [("SATA", 10), ("SSD", 1), ("SSD", 4), ("SATA", 3)]
    assert statuses == ["accepted", "validating", "extending", "succeeded"]
    disks = product_of(result)["after"]["disks"]
    assert [(one["id"], one["size"]) for one in disks] == [
        (system["id"], 10),
        (first["id"], 1),
        (second["id"], 4),
        (third["id"], 3),
    ]
    metadata = tenant.server(server_id)["metadata"]
    assert (metadata["order_id"], metadata["charge_type"]) == (order["orderId"], "hourlySettlement")


def test_flavor_system_disk_and_data_disk_change_together(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=10, data=(("SSD", 1),))
    items = (("std_2C4G", "S1.medium.2"), ("sys_EBS_SATA", "20"), ("data_EBS_SSD", "5"))
    result, _ = carried_out(requester, change(server_id, *items))
    assert reported(result) == (200, "success", True)
    assert tenant.server(server_id)["flavor"]["original_name"] == "S1.medium.2"
    assert sizes(tenant, server_id) == [("SATA", 20), ("SSD", 5)]


def test_a_flavor_may_be_smaller(requester: Requester, tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=10, flavor="S1.medium.2")
    order = change(server_id, ("std_1C1G", "S1.small.1"), ("CPU", "1"), ("memory", "1"))
    result, _ = carried_out(requester, order)
    assert reported(result) == (200, "success", True)
    product = product_of(result)
    assert (product["before"]["flavor"], product["after"]["flavor"]) == (
        "S1.medium.2",
        "S1.small.1",
    )
    assert tenant.server(server_id)["flavor"]["original_name"] == "S1.small.1"


def test_an_order_that_comes_late_does_not_undo_a_newer_one(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=10)
    newer = change(server_id, ("std_2C4G", "S1.medium.2"), statusTime="2019-05-08 17:00:00")
    older = change(server_id, ("std_1C1G", "S1.small.1"), statusTime="2019-05-08 16:59:59")
    assert reported(carried_out(requester, newer)[0]) == (200, "success", True)
    before = tenant.server(server_id)
    result, statuses = carried_out(requester, older)
    assert reported(result) == ("101.001040", "fail", False)
    assert result.body["data"]["reason"] == "superseded"
    assert statuses == ["accepted", "validating", "failed"]
    assert tenant.server(server_id) == before
    # One of the same second, and one that does not say when, are not older.
    for time in ("2019-05-08 17:00:00", None):
        same = change(server_id, ("std_2C4G", "S1.medium.2"), statusTime=time)
        assert reported(carried_out(requester, same)[0]) == (200, "success", False)
    assert tenant.server(server_id)["metadata"]["status_time"] == "2019-05-08 17:00:00"


@pytest.mark.once_on_real
@pytest.mark.parametrize(
    "older",
    [
        "2019-05-08 16:59:59.0",
        "2019-05-08T08:59:59Z",
        "2019-05-08 16:59",
        "2019-05-08T16:59:59.999+0800",
    ],
)
def test_an_order_that_comes_late_is_known_however_its_time_is_written(
    requester: Requester, lasting: tuple[Tenant, str], older: str
) -> None:
    tenant, server_id = lasting
    newer = change(server_id, ("sys_EBS_SATA", "10"), statusTime="2019-05-08T09:00:00.000Z")
    assert reported(carried_out(requester, newer)[0]) == (200, "success", False)
    assert tenant.server(server_id)["metadata"]["status_time"] == "2019-05-08 17:00:00"
    late = change(server_id, ("sys_EBS_SATA", "11"), statusTime=older)
    assert planned(requester, late)["reason"] == "superseded"
    result, _ = carried_out(requester, late)
    assert result.body["data"]["reason"] == "superseded"


def test_an_order_is_refused_where_it_cannot_be_read_when_the_last_was_paid(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=10)
    tenant.set_metadata(server_id, status_time="the day before")
    before = tenant.server(server_id)
    order = change(server_id, ("std_2C4G", "S1.medium.2"))
    assert planned(requester, order)["reason"] == "fee_data"
    result, _ = carried_out(requester, order)
    assert reported(result) == ("101.001040", "fail", False)
    assert result.body["data"]["reason"] == "fee_data"
    assert tenant.server(server_id) == before


def test_a_status_time_in_the_future_shuts_nobody_out(requester: Requester, tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=10)
    for time in ("2099-01-01 00:00:00", "2098-01-01 00:00:00"):
        result, _ = carried_out(
            requester, change(server_id, ("sys_EBS_SATA", "10"), statusTime=time)
        )
        assert reported(result) == (200, "success", False)
    assert tenant.server(server_id)["metadata"]["status_time"] < "2098"


@pytest.mark.once_on_real
@pytest.mark.parametrize(
    ("items", "refused"),
    [
        ([("std_2C4G", "S1.medium.2"), ("std_4C8G", "S1.large.2")], "std_4C8G"),
        ([("data_EBS_SSD", "4")], "data_EBS_SSD"),
        ([("data_EBS_SSD", "4", UNKNOWN)], "data_EBS_SSD"),
        ([("data_EBS_SATA", "4")], "data_EBS_SATA"),
        ([("sys_EBS_SATA", "20"), ("sys_EBS_SSD", "20")], "sys_EBS_SSD"),
        ([("std_2C4G", "S1.medium.2"), ("oddity", "x")], "oddity"),
    ],
)
def test_what_cannot_be_done_is_refused_naming_the_item(
    requester: Requester, tenant: Tenant, items: Any, refused: str
) -> None:
    server_id = tenant.make_server(disk=10, data=(("SSD", 1), ("SSD", 2)))
    before = tenant.server(server_id), tenant.volumes(server_id)
    result, _ = carried_out(requester, change(server_id, *items))
    assert reported(result) == ("101.001002", "fail", False)
    assert result.body["message"] == f"参数{refused}不符合规范"
    assert (tenant.server(server_id), tenant.volumes(server_id)) == before
    product = product_of(result)
    assert product["before"] == product["after"]
    assert (product["before"]["flavor"], product["requestIds"]) == ("S1.small.1", [])


def test_a_local_disk_is_as_large_as_the_flavor_says(requester: Requester, tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=None)
    refused, _ = carried_out(
        requester, change(server_id, ("std_2C4G", "S1.medium.2"), ("sys_EBS_SATA", "21"))
    )
    assert reported(refused) == ("101.001002", "fail", False)
    assert refused.body["message"] == "参数sys_EBS_SATA不符合规范"
    result, _ = carried_out(
        requester, change(server_id, ("std_2C4G", "S1.medium.2"), ("sys_EBS_SATA", "20"))
    )
    assert reported(result) == (200, "success", True)
    product = product_of(result)
    assert [product[when]["disks"] for when in ("before", "after")] == [
        [{"id": None, "size": 10, "type": None}],
        [{"id": None, "size": 20, "type": None}],
    ]


def test_a_server_in_error_is_refused(requester: Requester, tenant: Tenant, cloud: Any) -> None:
    server_id, admin = tenant.make_server(disk=None), Tenant(cloud.clouds_yaml, "admin")
    admin.act(server_id, {"os-resetState": {"state": "error"}})
    result, _ = carried_out(requester, change(server_id, ("std_2C4G", "S1.medium.2")))
    assert reported(result) == ("101.001012", "fail", False)
    assert product_of(result)["instanceStatus"] == "ERROR"
    assert "resize" not in tenant.actions(server_id)
    admin.act(server_id, {"os-resetState": {"state": "active"}})
    admin.close()


@pytest.mark.once_on_real
@pytest.mark.parametrize(
    ("service", "most", "item"),
    [
        ("compute", {"cores": 1}, ("std_2C4G", "S1.medium.2")),
        ("compute", {"ram": 2048}, ("std_2C4G", "S1.medium.2")),
        ("block_storage", {"gigabytes": 5}, ("sys_EBS_SATA", "20")),
    ],
)
def test_what_exceeds_the_quota_is_refused(
    requester: Requester, tenant: Tenant, cloud: Any, service: str, most: dict[str, int], item: Item
) -> None:
    server_id, admin = tenant.make_server(disk=10), Tenant(cloud.clouds_yaml, "admin")
    if service == "block_storage":  # more than is used; Cinder takes no limit below that
        most = {name: used(tenant, service, name) + more for name, more in most.items()}
    with quota(tenant, admin, service, **most):
        result, _ = carried_out(requester, change(server_id, item))
    admin.close()
    assert reported(result) == ("101.001040", "fail", False)
    assert result.body["data"]["reason"] == "quota"
    assert ("resize" in tenant.actions(server_id), sizes(tenant, server_id)) == (
        False,
        [("SATA", 10)],
    )

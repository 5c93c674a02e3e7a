"""Tests that what the cloud would refuse is refused before anything is touched, and a plan says the
same; on both clouds.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sandbox.requester import Heard, Requester
from tests.openstack.test_changes import change, sizes
from tests.openstack.test_plan import plan
from tests.support.new_orders import NOTHING, new, quota, records, used
from tests.support.orders import carried_out, ended, paid, publish, reported, soft_down
from tests.support.tenant import VOLUME, Tenant
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

LARGER = ("std_2C4G", "S1.medium.2")


@pytest.fixture(scope="module")
def admin(cloud: Any) -> Iterator[Tenant]:
    found = Tenant(cloud.clouds_yaml, "admin")
    yield found
    found.close()


@pytest.fixture(scope="module")
def lasting(cloud: Any) -> Iterator[tuple[Tenant, str]]:
    """A tenant with a server, two metadata items and two disks, of which no refused order changes
    anything.
    """
    tenant = Tenant(cloud.clouds_yaml, "tenant-a")
    metadata = {"charge_type": "monthly", "theirs": "x"}
    yield tenant, tenant.make_server(disk=10, data=(("SSD", 1),), metadata=metadata)
    tenant.close()


def as_it_is(tenant: Tenant, *server_ids: str) -> list[Any]:
    """All that an order could have touched of servers."""
    return [
        (tenant.server(one), tenant.all_actions(one), tenant.volumes(one)) for one in server_ids
    ]


def refusal(
    requester: Requester, tenant: Tenant, order: dict[str, Any], *server_ids: str
) -> tuple[Heard, str, str]:
    """The result of an order that touched nothing, its code and its reason; the plan said the same."""
    before, made = as_it_is(tenant, *server_ids), records(tenant)
    told = plan(requester, order)
    assert (told["verdict"], told["steps"]) == ("refused", [])
    result, statuses = carried_out(requester, order)
    assert (as_it_is(tenant, *server_ids), records(tenant) - made) == (before, NOTHING)
    assert statuses[-1] == "failed"
    assert not {"resizing", "extending", "reverting", "stopping", "creating"} & set(statuses)
    instance = result.body["data"].get("instanceList", [result.body["data"]])[0]
    code, reason = instance.get("code", result.body["code"]), instance["reason"]
    assert (told["code"], told["reason"]) == (code, reason)
    return result, code, reason


@contextmanager
def room(tenant: Tenant, admin: Tenant, service: str, **more: int) -> Iterator[None]:
    """The tenant may have so much more than it has."""
    most = {name: used(tenant, service, name) + left for name, left in more.items()}
    with quota(tenant, admin, service, **most):
        yield


def put_volume(admin: Tenant, volume: dict[str, Any], status: str) -> None:
    body = {"os-reset_status": {"status": status}}
    path = f"/volumes/{volume['id']}/action"
    answer = admin.connection.block_storage.post(path, json=body, microversion=VOLUME)
    assert answer.status_code == 202, answer.text


@contextmanager
def volume_in(admin: Tenant, volume: dict[str, Any], status: str) -> Iterator[None]:
    put_volume(admin, volume, status)
    try:
        yield
    finally:
        put_volume(admin, volume, "in-use")


# Quotas.


@pytest.mark.parametrize(
    ("more", "items"),
    [
        # Unlimited in all, five left of the type; and five left for two disks of two types.
        ({"gigabytes_SATA": 5}, [LARGER, ("sys_EBS_SATA", "20")]),
        ({"gigabytes_SSD": 2}, [("data_EBS_SSD", "4")]),
        ({"gigabytes": 5}, [LARGER, ("sys_EBS_SATA", "14"), ("data_EBS_SSD", "3")]),
    ],
)
def test_a_disk_that_its_quota_does_not_allow_is_refused_before_the_server_is_resized(
    requester: Requester, lasting: tuple[Tenant, str], admin: Tenant, more: Any, items: Any
) -> None:
    tenant, server_id = lasting
    with room(tenant, admin, "block_storage", **more):
        result, code, reason = refusal(requester, tenant, change(server_id, *items), server_id)
    assert (code, reason) == ("101.001040", "quota")
    assert reported(result)[1:] == ("fail", False)


@pytest.mark.parametrize(
    "items", [[LARGER, ("sys_EBS_SATA", "60")], [LARGER, ("data_EBS_SSD", "51")]]
)
def test_a_disk_that_is_larger_than_one_may_be_is_refused_before_the_server_is_resized(
    requester: Requester, lasting: tuple[Tenant, str], admin: Tenant, items: Any
) -> None:
    """Cinder answers it with 413, `Retry-After: 0`, and without the word quota."""
    tenant, server_id = lasting
    with quota(tenant, admin, "block_storage", per_volume_gigabytes=50):
        _, code, reason = refusal(requester, tenant, change(server_id, *items), server_id)
    assert (code, reason) == ("101.001040", "quota")


def test_a_disk_as_large_as_its_quotas_allow_is_grown(
    requester: Requester, tenant: Tenant, admin: Tenant
) -> None:
    server_id = tenant.make_server(disk=2)
    with (
        room(tenant, admin, "block_storage", gigabytes_SATA=1, gigabytes=1),
        quota(tenant, admin, "block_storage", per_volume_gigabytes=3),
    ):
        result, _ = carried_out(requester, change(server_id, ("sys_EBS_SATA", "3")))
    assert reported(result) == (200, "success", True)
    assert sizes(tenant, server_id) == [("SATA", 3)]


@pytest.mark.once_on_real
@pytest.mark.parametrize("more", [{"cores": 1}, {"ram": 4096}])
def test_several_servers_of_an_order_share_what_is_left(
    requester: Requester, tenant: Tenant, admin: Tenant, more: dict[str, int]
) -> None:
    """One core and 3 GiB more for each of two."""
    servers = tenant.make_server(disk=None), tenant.make_server(disk=None)
    order = change(servers[0], LARGER)
    order["productList"].append({**order["productList"][0], "instanceId": servers[1]})
    with room(tenant, admin, "compute", **more):
        _, code, reason = refusal(requester, tenant, order, *servers)
    assert (code, reason) == ("101.001040", "quota")


def test_where_quota_sets_are_forbidden_the_limits_are_asked(
    requester: Requester, lasting: tuple[Tenant, str], admin: Tenant, cloud: Any
) -> None:
    tenant, server_id = lasting
    with room(tenant, admin, "block_storage", gigabytes=5):
        refused = "Policy doesn't allow volume_extension:quotas:show to be performed."
        cloud.fault("api.cinder", match="^GET .*/os-quota-sets", error=refused, status=403)
        before = as_it_is(tenant, server_id)
        result, statuses = carried_out(requester, change(server_id, LARGER, ("sys_EBS_SATA", "20")))
    assert (result.body["code"], result.body["data"]["reason"]) == ("101.001040", "quota")
    assert "resizing" not in statuses
    assert as_it_is(tenant, server_id) == before


def test_where_nothing_can_be_known_the_cloud_refuses(
    requester: Requester, tenant: Tenant, admin: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=2)
    with quota(tenant, admin, "block_storage", per_volume_gigabytes=3):
        for path in ("os-quota-sets", "limits"):
            cloud.fault("api.cinder", match=f"^GET .*/{path}", error="Forbidden", status=403)
        result, statuses = carried_out(requester, change(server_id, ("sys_EBS_SATA", "4")))
    assert reported(result) == ("101.001040", "fail", False)
    assert (result.body["data"]["reason"], "extending" in statuses) == ("quota", True)
    assert sizes(tenant, server_id) == [("SATA", 2)]


@pytest.mark.parametrize("most", [{"per_volume_gigabytes": 1}, {"volumes_SSD": 0}])
def test_a_new_order_beyond_a_quota_is_refused_before_anything_is_made(
    requester: Requester, lasting: tuple[Tenant, str], admin: Tenant, most: dict[str, int]
) -> None:
    tenant, _ = lasting
    with quota(tenant, admin, "block_storage", **most):
        _, code, reason = refusal(requester, tenant, new(tenant))
    assert (code, reason) == ("101.001040", "quota")


@pytest.mark.long_on_real
def test_what_is_reserved_counts_as_used(
    requester: Requester, tenant: Tenant, admin: Tenant, cloud: Any
) -> None:
    """Three of five gigabytes are reserved for a disk that is delays."""
    server_id, delays = tenant.make_server(disk=2), tenant.make_server(disk=2, data=(("SSD", 1),))
    _, data = tenant.volumes(delays)
    cloud.fault("volume.extend_volume", match=data["id"], delay=30, times=1)
    with room(tenant, admin, "block_storage", gigabytes=5):
        body = {"os-extend": {"new_size": data["size"] + 3}}
        path = f"/volumes/{data['id']}/action"
        storage = tenant.connection.block_storage
        assert storage.post(path, json=body, microversion=VOLUME).status_code == 202
        _, code, reason = refusal(
            requester, tenant, change(server_id, LARGER, ("sys_EBS_SATA", "5")), server_id
        )
        assert tenant.volumes(delays)[1]["status"] == "extending"
    assert (code, reason) == ("101.001040", "quota")
    eventually(lambda: tenant.volumes(delays)[1]["status"] == "in-use", 90)


def test_a_quota_of_ports_that_cannot_be_read_is_known_by_neutrons_own_refusal(
    requester: Requester, lasting: tuple[Tenant, str], admin: Tenant, cloud: Any
) -> None:
    """It is 409, as a conflict is."""
    tenant, _ = lasting
    made = records(tenant)
    with room(tenant, admin, "network", port=0):
        cloud.fault("api.neutron", match="^GET .*/quotas", error="Forbidden", status=403)
        order = new(tenant, chosen={"subnetId": tenant.subnet()})
        result, statuses = carried_out(requester, order)
    assert reported(result) == ("101.001040", "fail", False)
    assert (result.body["data"]["reason"], statuses[-2:]) == ("quota", ["reverting", "failed"])
    assert records(tenant) - made == NOTHING


# States of volumes.


@pytest.mark.parametrize(
    "status",
    ["error_extending", "error", "error_restoring", "error_backing-up", "awaiting-transfer"],
)
def test_a_disk_in_a_state_that_does_not_pass_is_refused_before_the_server_is_resized(
    requester: Requester, lasting: tuple[Tenant, str], admin: Tenant, status: str
) -> None:
    tenant, server_id = lasting
    system, _ = tenant.volumes(server_id)
    with volume_in(admin, system, status):
        order = change(server_id, LARGER, ("sys_EBS_SATA", "20"))
        result, code, reason = refusal(requester, tenant, order, server_id)
    assert (code, reason) == ("101.001040", "volume_state")
    assert reported(result)[1:] == ("fail", False)


def test_a_resize_needs_the_servers_other_disks_too(
    requester: Requester, lasting: tuple[Tenant, str], admin: Tenant
) -> None:
    """Nova would leave the server in ERROR: Cinder does not let such a disk be attached on the
    other side.
    """
    tenant, server_id = lasting
    _, data = tenant.volumes(server_id)
    with volume_in(admin, data, "error_extending"):
        _, code, reason = refusal(requester, tenant, change(server_id, LARGER), server_id)
    assert (code, reason) == ("101.001040", "volume_state")


@pytest.mark.long_on_real
def test_a_disk_that_is_not_ordered_may_be_in_any_state(
    requester: Requester, tenant: Tenant, admin: Tenant
) -> None:
    server_id = tenant.make_server(disk=2, data=(("SSD", 1),))
    _, data = tenant.volumes(server_id)
    with volume_in(admin, data, "error_extending"):
        result, _ = carried_out(requester, change(server_id, ("sys_EBS_SATA", "3")))
    assert reported(result) == (200, "success", True)
    assert sizes(tenant, server_id) == [("SATA", 3), ("SSD", 1)]


@pytest.mark.once_on_real
@pytest.mark.parametrize(
    ("status", "which", "items"),
    [
        ("backing-up", 0, [LARGER, ("sys_EBS_SATA", "3")]),
        ("retyping", 1, [LARGER]),
        ("reserved", 0, [("sys_EBS_SATA", "3")]),
        ("maintenance", 1, [("data_EBS_SSD", "2")]),
    ],
)
def test_a_disk_with_which_something_is_under_way_is_waited_for_and_nothing_is_done_before(
    requester: Requester, tenant: Tenant, admin: Tenant, status: str, which: int, items: Any
) -> None:
    server_id = tenant.make_server(disk=2, data=(("SSD", 1),))
    volume = tenant.volumes(server_id)[which]
    with volume_in(admin, volume, status):
        before = as_it_is(tenant, server_id)
        message_id = publish(requester, change(server_id, *items))
        _until_told(requester, message_id, "validating")
        time.sleep(3)
        assert as_it_is(tenant, server_id) == before
    result, statuses = ended(requester, message_id)
    assert reported(result) == (200, "success", True)
    assert "reverting" not in statuses
    assert tenant.server(server_id)["status"] == "ACTIVE"
    assert tenant.actions(server_id).count("resize") == (LARGER in items)


def test_a_disk_with_which_something_begins_after_the_resize_is_waited_for_not_reverted(
    requester: Requester, tenant: Tenant, admin: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=2)
    (volume,) = tenant.volumes(server_id)
    cloud.fault("api.cinder", match=f"^POST .*{volume['id']}/action", delay=8, times=1)
    message_id = publish(requester, change(server_id, LARGER, ("sys_EBS_SATA", "3")))
    _until_told(requester, message_id, "extending")
    eventually(lambda: tenant.server(server_id)["status"] == "VERIFY_RESIZE", 90)
    time.sleep(2)  # the call that is held up must be on its way
    with volume_in(admin, volume, "backing-up"):
        _until_told(requester, message_id, "waiting_retry")
        assert tenant.server(server_id)["status"] == "VERIFY_RESIZE"
    result, statuses = ended(requester, message_id)
    assert reported(result) == (200, "success", True)
    assert "reverting" not in statuses
    assert sizes(tenant, server_id) == [("SATA", 3)]
    assert tenant.actions(server_id).count("resize") == 1


def test_what_has_changed_while_a_disk_was_waited_for_is_seen(
    requester: Requester, tenant: Tenant, admin: Tenant
) -> None:
    server_id = tenant.make_server(disk=2)
    (volume,) = tenant.volumes(server_id)
    with volume_in(admin, volume, "retyping"):
        message_id = publish(requester, change(server_id, LARGER, ("sys_EBS_SATA", "3")))
        _until_told(requester, message_id, "validating")
        time.sleep(2)
        tenant.act(server_id, {"lock": None})
    result, _ = ended(requester, message_id)
    assert reported(result) == ("101.001040", "fail", False)
    assert result.body["data"]["reason"] == "locked"
    tenant.act(server_id, {"unlock": None})
    assert tenant.actions(server_id).count("resize") == 0


def test_a_plan_says_what_a_disk_is_busy_with(
    requester: Requester, lasting: tuple[Tenant, str], admin: Tenant
) -> None:
    tenant, server_id = lasting
    system, _ = tenant.volumes(server_id)
    with volume_in(admin, system, "uploading"):
        told = plan(requester, change(server_id, ("sys_EBS_SATA", "20")))
    assert (told["verdict"], told["code"], told["reason"]) == ("put_off", "101.001040", "busy")
    (check,) = [one for one in told["checks"] if not one["passed"]]
    assert (check["name"], check["instanceId"]) == ("volumeState", server_id)
    assert check["detail"] == f"volume {system['id']} is uploading"


def _until_told(requester: Requester, message_id: str, status: str) -> None:
    def is_told() -> bool:
        requester.listen(0.2)
        return status in [one.body["status"] for one in requester.updates_of(message_id)]

    eventually(is_told, 90)


# Room for metadata.


@pytest.mark.once_on_real
@pytest.mark.parametrize("most", [3, 2, 1, 0])
def test_a_change_that_could_not_be_noted_is_refused_before_the_server_is_resized(
    requester: Requester, lasting: tuple[Tenant, str], admin: Tenant, most: int
) -> None:
    """Two items are there, one of which is replaced, and two are added. One too many takes no
    replacement either.
    """
    tenant, server_id = lasting
    with quota(tenant, admin, "compute", metadata_items=most):
        _, code, reason = refusal(requester, tenant, change(server_id, LARGER), server_id)
    assert (code, reason) == ("101.001040", "quota")


def test_a_renewal_and_a_stop_that_could_not_be_noted_are_refused(
    requester: Requester, lasting: tuple[Tenant, str], admin: Tenant
) -> None:
    tenant, server_id = lasting
    with quota(tenant, admin, "compute", metadata_items=2):
        for order in (
            paid("renew", server_id),
            soft_down((server_id, "stopServer"), tenant="tenant-a"),
        ):
            _, code, reason = refusal(requester, tenant, order, server_id)
            assert (code, reason) == ("101.001040", "quota")
    assert tenant.server(server_id)["status"] == "ACTIVE"


@pytest.mark.long_on_real
def test_items_that_are_replaced_take_no_room(
    requester: Requester, tenant: Tenant, admin: Tenant
) -> None:
    """One is there, the change adds two and the first renewal two; the second renewal adds none."""
    server_id = tenant.make_server(disk=2)
    with quota(tenant, admin, "compute", metadata_items=5):
        for order in (
            change(server_id, ("sys_EBS_SATA", "3")),
            paid("renew", server_id),
            paid("renew", server_id),
        ):
            result, _ = carried_out(requester, order)
            assert reported(result) == (200, "success", True)
        assert len(tenant.server(server_id)["metadata"]) == 5
        _, code, reason = refusal(
            requester, tenant, soft_down((server_id, "stopServer"), tenant="tenant-a"), server_id
        )
        assert (code, reason) == ("101.001040", "quota")
    with quota(tenant, admin, "compute", metadata_items=-1):
        order = soft_down((server_id, "stopServer"), tenant="tenant-a")
        result, _ = carried_out(requester, order)
    assert result.body["code"] == 200
    assert tenant.server(server_id)["metadata"]["soft_down"] == "stopped"


def test_a_new_server_that_could_not_be_noted_is_refused_before_anything_is_made(
    requester: Requester, lasting: tuple[Tenant, str], admin: Tenant
) -> None:
    tenant, _ = lasting
    with quota(tenant, admin, "compute", metadata_items=7):
        _, code, reason = refusal(requester, tenant, new(tenant))
    assert (code, reason) == ("101.001040", "quota")

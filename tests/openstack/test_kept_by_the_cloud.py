"""Servers that go while the cloud keeps something of them, on the simulated cloud and on the real
one.
"""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.documents import new_order_id
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Heard, Requester
from tests.support.new_orders import NOTHING, new, ports_of, records, volume
from tests.support.orders import (
    carried_out,
    paid,
    planned,
    product_of,
    publish,
    reported,
    soft_down,
)
from tests.support.tenant import COMPUTE, VOLUME, Tenant
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

#: Seconds in which an order must end that the cloud's keeping is no reason to wait for.
SOON = 120.0


@pytest.fixture
def images(tenant: Tenant) -> Iterator["Images"]:
    found = Images(tenant)
    yield found
    found.close()


class Images:
    """Images that are made of servers, and the snapshots and disks that are left of them."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._made: list[str] = []
        self._disks: list[str] = []

    def make(self, server_id: str) -> str:
        body = {"createImage": {"name": "mine", "metadata": {}}}
        path, compute = f"/servers/{server_id}/action", self._tenant.connection.compute
        answer = compute.post(path, json=body, microversion=COMPUTE)
        assert answer.status_code == 202, answer.text
        image_id: str = answer.json()["image_id"]
        self._made.append(image_id)
        self._disks += [one["id"] for one in self._tenant.volumes(server_id)]
        return image_id

    def snapshot(self, volume_id: str) -> None:
        """Take a snapshot of a disk in use."""
        body = {"snapshot": {"volume_id": volume_id, "name": "own", "force": True}}
        made = self._tenant.connection.block_storage.post(
            "/snapshots", json=body, microversion=VOLUME
        )
        assert made.status_code == 202, made.text
        self._disks.append(volume_id)

    def close(self) -> None:
        storage = self._tenant.connection.block_storage
        for image_id in self._made:
            self._tenant.connection.image.delete(f"/images/{image_id}")
        listed = storage.get("/snapshots/detail", microversion=VOLUME).json()["snapshots"]
        mine = [one["id"] for one in listed if one["volume_id"] in self._disks]
        for one in mine:
            storage.delete(f"/snapshots/{one}", microversion=VOLUME)
        eventually(
            lambda: all(
                storage.get(f"/snapshots/{one}", microversion=VOLUME).status_code == 404
                for one in mine
            ),
            30,
        )
        for one in self._disks:
            storage.delete(f"/volumes/{one}", microversion=VOLUME)


def kept_of(result: Heard) -> dict[str, list[str]]:
    """Return what an unsubscribe's or a softDown's result says is kept of its first server."""
    data = result.body["data"]
    one = data["instanceList"][0] if "instanceList" in data else product_of(result)
    found: dict[str, list[str]] = one.get("kept", {})
    return found


def end_of(order_type: str, server_id: str) -> dict[str, Any]:
    return (
        soft_down((server_id, "delete"))
        if order_type == "softDown"
        else paid(order_type, server_id)
    )


def ends_soon(requester: Requester, order: dict[str, Any]) -> Heard:
    begin = time.monotonic()
    result, statuses = carried_out(requester, order)
    assert (result.body["code"], statuses[-1]) == (200, "succeeded"), result.body
    assert time.monotonic() - begin < SOON
    return result


@pytest.mark.once_on_real
@pytest.mark.parametrize("order_type", ["unsubscribe", "softDown"])
def test_disks_with_snapshots_are_kept_and_named(
    requester: Requester, tenant: Tenant, images: Images, order_type: str
) -> None:
    server_id = tenant.make_server(disk=10, data=(("SSD", 1),))
    images.make(server_id)
    disks = [one["id"] for one in tenant.volumes(server_id)]
    order = end_of(order_type, server_id)
    steps = planned(requester, order)["steps"]
    assert [one["name"] for one in steps] == ["delete"]
    assert sorted(steps[0]["after"]["kept"]["volumes"]) == sorted(disks)

    result = ends_soon(requester, order)
    assert {name: sorted(ids) for name, ids in kept_of(result).items()} == {
        "volumes": sorted(disks)
    }
    assert tenant.is_gone(server_id)
    assert [volume(tenant, one)["status"] for one in disks] == ["available", "available"]
    # And the same where it is gone already.
    assert kept_of(ends_soon(requester, end_of(order_type, server_id))) == {}


@pytest.mark.long_on_real
def test_only_the_disk_with_a_snapshot_is_kept(
    requester: Requester, tenant: Tenant, images: Images
) -> None:
    server_id = tenant.make_server(disk=10)
    system = tenant.volumes(server_id)[0]["id"]
    images.snapshot(system)
    other = tenant.make_server(disk=10)
    result = ends_soon(requester, paid("unsubscribe", server_id, other))
    assert reported(result) == (200, "success", True)
    assert [product_of(result, number).get("kept") for number in range(2)] == [
        {"volumes": [system]},
        None,
    ]


def test_a_disk_of_a_volume_group_is_kept_and_named(
    requester: Requester, tenant: Tenant, simulated: SimulatedOpenStack, cloud: Any
) -> None:
    if cloud is not simulated:
        pytest.skip("the real control plane's volume backend has no groups")
    server_id = tenant.make_server(disk=10)
    (disk,) = [one["id"] for one in tenant.volumes(server_id)]
    path, storage = f"/groups/{new_order_id()}", tenant.connection.block_storage
    assert storage.put(path, json={"group": {"add_volumes": disk}}).status_code == 202
    assert planned(requester, paid("unsubscribe", server_id))["steps"][0]["after"] == {
        "kept": {"volumes": [disk]}
    }
    assert kept_of(ends_soon(requester, paid("unsubscribe", server_id))) == {"volumes": [disk]}
    assert storage.put(path, json={"group": {"remove_volumes": disk}}).status_code == 202
    storage.delete(f"/volumes/{disk}")


@pytest.fixture
def shared_type(cloud: Any) -> Iterator[str]:
    """The name of a volume type whose volumes several servers may have."""
    admin, name = Tenant(cloud.clouds_yaml, "admin"), f"shared-{uuid.uuid4().hex[:8]}"
    storage = admin.connection.block_storage
    body = {"volume_type": {"name": name, "extra_specs": {"multiattach": "<is> True"}}}
    made = storage.post("/types", json=body, microversion=VOLUME)
    assert made.status_code == 200, made.text
    yield name
    # Once its volumes are gone.
    path = f"/types/{made.json()['volume_type']['id']}"
    eventually(lambda: bool(storage.delete(path, microversion=VOLUME).status_code == 202))
    admin.close()


def test_a_disk_that_another_server_has_too_is_kept_and_named(
    requester: Requester, shared_type: str, tenant: Tenant
) -> None:
    wanted = {"volume": {"size": 1, "name": "shared", "volume_type": shared_type}}
    made = tenant.connection.block_storage.post("/volumes", json=wanted, microversion=VOLUME)
    assert made.status_code == 202, made.text
    disk = made.json()["volume"]["id"]
    tenant.later("block_storage", f"/volumes/{disk}")
    eventually(lambda: volume(tenant, disk)["status"] == "available")
    source, volumes = tenant.image, {"destination_type": "volume", "delete_on_termination": True}
    system = {
        "boot_index": 0,
        "uuid": source,
        "source_type": "image",
        "volume_size": 10,
        "volume_type": "SATA",
    }
    data = {"boot_index": -1, "uuid": disk, "source_type": "volume"}
    first = tenant.make_server(block_device_mapping_v2=[system | volumes, data | volumes])
    second = tenant.make_server(disk=None)
    attached = tenant.connection.compute.post(
        f"/servers/{second}/os-volume_attachments",
        json={"volumeAttachment": {"volumeId": disk}},
        microversion=COMPUTE,
    )
    assert attached.status_code == 200, attached.text
    eventually(lambda: len(volume(tenant, disk)["attachments"]) == 2)
    order = paid("unsubscribe", first)
    assert planned(requester, order)["steps"][0]["after"] == {"kept": {"volumes": [disk]}}
    assert kept_of(ends_soon(requester, order)) == {"volumes": [disk]}
    assert [one["server_id"] for one in volume(tenant, disk)["attachments"]] == [second]


def test_a_snapshot_that_comes_in_between_keeps_its_disk(
    requester: Requester, tenant: Tenant, images: Images, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=10)
    (disk,) = [one["id"] for one in tenant.volumes(server_id)]
    cloud.fault("virt.destroy", match=server_id, delay=10, times=1)
    message_id = publish(requester, paid("unsubscribe", server_id))
    tenant.wait(server_id, lambda one: one["OS-EXT-STS:task_state"] == "deleting")
    images.snapshot(disk)
    result = requester.order_result_of(message_id, 120)
    assert reported(result) == (200, "success", True)
    assert kept_of(result) == {"volumes": [disk]}


@pytest.fixture(scope="module")
def soft_deletion(cloud: Any) -> Iterator[None]:
    """From here to the end of the file a deleted server is kept for an hour; for all of it Nova is
    restarted once.
    """
    with cloud.keeping_deleted_servers():
        yield


@pytest.mark.once_on_real
@pytest.mark.parametrize("order_type", ["unsubscribe", "softDown"])
def test_a_server_that_the_cloud_keeps_for_a_while_is_gone(
    requester: Requester, tenant: Tenant, soft_deletion: None, order_type: str
) -> None:
    subnet = tenant.subnet()
    made, _ = carried_out(requester, new(tenant, chosen={"subnetId": subnet}))
    server_id = product_of(made)["instanceId"]
    tenant.adopt(server_id)
    disks = sorted(one["id"] for one in tenant.volumes(server_id))
    ports = [one["id"] for one in ports_of(tenant, server_id)]
    for one in ports:
        tenant.later("network", f"/ports/{one}")

    result = ends_soon(requester, end_of(order_type, server_id))
    # Nova shows it to whoever knows it, and lists it no more; its disks and ports are its own
    # still.
    assert tenant.server(server_id)["status"] == "SOFT_DELETED"
    assert server_id not in records(tenant).servers
    assert {volume(tenant, one)["status"] for one in disks} == {"in-use"}
    held = {"volumes": disks, "ports": ports}
    assert {name: sorted(ids) for name, ids in kept_of(result).items()} == held
    finals = [
        one.body["status"]
        for one in requester.heard
        if one.is_final and one.body["id"] == server_id
    ]
    assert finals[-1] == "DELETED"
    if order_type == "unsubscribe":
        assert reported(result) == (200, "success", True)
        assert product_of(result)["instanceStatus"] == "DELETE"
    # Once more: it is gone, nothing changes, and what is held is named.
    again = ends_soon(requester, end_of(order_type, server_id))
    assert {name: sorted(ids) for name, ids in kept_of(again).items()} == held
    # What is gone is neither stopped nor started.
    stopped = ends_soon(requester, soft_down((server_id, "stopServer")))
    assert stopped.body["data"]["instanceList"][0]["instanceStatus"] == "DELETE"
    refused, _ = carried_out(requester, paid("renew", server_id, duration="1", durationUnit="M"))
    assert refused.body["code"] == "101.001033"
    tenant.act(server_id, {"forceDelete": None})


@pytest.mark.long_on_real
def test_what_a_failed_order_has_made_is_not_kept_for_a_while(
    requester: Requester, tenant: Tenant, soft_deletion: None, cloud: Any
) -> None:
    before = records(tenant)
    cloud.fault("virt.spawn", match="twin-2", error="no disk", times=9)
    begin = time.monotonic()
    result, statuses = carried_out(requester, new(tenant, count=2, chosen={"instanceName": "twin"}))
    assert (result.body["code"], statuses[-2:]) == ("101.001040", ["reverting", "failed"])
    assert time.monotonic() - begin < SOON
    assert reported(result)[1:] == ("fail", False)
    assert records(tenant) - before == NOTHING

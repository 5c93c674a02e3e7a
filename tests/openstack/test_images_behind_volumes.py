"""Servers whose disks were made of an image of a server's volumes: Cinder names the image where the
line began.

On the simulated cloud and on the real one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sandbox.requester import Requester
from tests.openstack.test_views import ask
from tests.support.new_orders import new
from tests.support.orders import carried_out, paid, planned, product_of, reported
from tests.support.tenant import COMPUTE, VOLUME, Tenant
from tests.support.waiting import eventually

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Line:
    """A server of the base image, the image of its volumes, and the disks from which that was
    taken.
    """

    tenant: Tenant
    first: str
    mine: str
    disks: tuple[str, ...]


@pytest.fixture(scope="module")
def line(cloud: Any) -> Iterator[Line]:
    tenant = Tenant(cloud.clouds_yaml, "tenant-a")
    first = tenant.make_server(disk=10, name="first")
    body = {"createImage": {"name": "mine", "metadata": {}}}
    made = tenant.connection.compute.post(
        f"/servers/{first}/action", json=body, microversion=COMPUTE
    )
    assert made.status_code == 202, made.text
    mine = made.json()["image_id"]
    eventually(lambda: [one["status"] for one in tenant.images("mine", mine)] == ["active"])
    disks = tuple(one["id"] for one in tenant.volumes(first))
    yield Line(tenant, first, mine, disks)
    tenant.connection.image.delete(f"/images/{mine}")
    storage = tenant.connection.block_storage
    for one in storage.get("/snapshots/detail", microversion=VOLUME).json()["snapshots"]:
        if one["volume_id"] in disks:
            _delete_snapshot(tenant, one["id"])
    tenant.close()


def _delete_snapshot(tenant: Tenant, snapshot_id: str) -> None:
    storage, path = tenant.connection.block_storage, f"/snapshots/{snapshot_id}"
    storage.delete(path, microversion=VOLUME)
    eventually(lambda: storage.get(path, microversion=VOLUME).status_code == 404)


@pytest.fixture
def second(line: Line, requester: Requester, tenant: Tenant) -> str:
    """A server that a `new` order has made of that image."""
    order = new(
        tenant, ("std", "S1.small.1"), ("sys_EBS_SATA", "10"), chosen={"instanceName": "second"}
    )
    item = next(
        one for one in order["productList"][0]["itemList"] if one["code"].startswith("image_")
    )
    item["value"] = line.mine
    made, _ = carried_out(requester, order)
    assert reported(made) == (200, "success", True)
    server_id: str = product_of(made)["instanceId"]
    tenant.adopt(server_id)
    (disk,) = tenant.volumes(server_id)
    # The snare: Cinder does not name the image that was ordered.
    assert disk["volume_image_metadata"]["image_id"] == tenant.image
    return server_id


@pytest.fixture
def third(line: Line, tenant: Tenant) -> str:
    """A server that Nova itself has booted of that image: it names the image, and made the disks of
    its snapshots.
    """
    return tenant.make_server(disk=None, image=line.mine, name="third")


def change(server_id: str, *items: tuple[str, str]) -> dict[str, Any]:
    order = paid("changeConfigure", server_id)
    order["productList"][0]["itemList"] = [
        {"code": code, "value": value, "name": code} for code, value in items
    ]
    return order


def test_snapshots_are_found_by_their_volume_and_images_by_consisting_of_some(
    line: Line, tenant: Tenant
) -> None:
    storage = tenant.connection.block_storage
    for volume_id, number in ((line.disks[0], 1), (UNKNOWN, 0)):
        path = f"/snapshots?volume_id={volume_id}&limit=1"
        assert len(storage.get(path, microversion=VOLUME).json()["snapshots"]) == number
    listed = [
        one["id"] for one in tenant.connection.image.get("/images?bdm_v2=True").json()["images"]
    ]
    assert line.mine in listed
    assert tenant.image not in listed


def test_the_servers_own_image_is_the_one_that_it_was_ordered_with(
    requester: Requester, line: Line, tenant: Tenant, second: str
) -> None:
    for other in (tenant.image, UNKNOWN):
        order = change(second, ("image_Linux", other), ("sys_EBS_SATA", "11"))
        assert planned(requester, order)["message"] == "参数image_Linux不符合规范"
        result, _ = carried_out(requester, order)
        assert (result.body["code"], result.body["message"]) == (
            "101.001002",
            "参数image_Linux不符合规范",
        )
    result, _ = carried_out(
        requester, change(second, ("image_Linux", line.mine), ("sys_EBS_SATA", "11"))
    )
    assert reported(result) == (200, "success", True)
    assert [one["size"] for one in tenant.volumes(second)] == [11]


@pytest.mark.long_on_real
def test_a_server_is_shown_with_the_image_that_it_was_ordered_with(
    requester: Requester, line: Line, second: str
) -> None:
    shown = ask(requester, "server.show", server_id=second)["data"]["server"]
    assert (shown["image"]["id"], shown["image"]["name"]) == (line.mine, "mine")
    assert (shown["image"]["system"], shown["root_volume"]) == (
        "cirros",
        {"volumetype": "SATA", "size": 10},
    )
    (listed,) = ask(requester, "server.list", searchField="uuid", searchValue=second)["data"][
        "servers"
    ]
    assert listed["image"] == shown["image"]
    # And the first one with its own.
    first = ask(requester, "server.show", server_id=line.first)["data"]["server"]
    assert first["image"]["name"] == "cirros-like"


def test_the_image_that_a_server_was_ordered_with_cannot_be_deleted(
    requester: Requester, line: Line, tenant: Tenant, second: str
) -> None:
    refused = ask(requester, "image.delete", image_id=line.mine)
    assert (refused["code"], refused["message"]) == (
        "101.003015",
        '当前镜像无法删除，已关联云服务器"second"',
    )
    others = [tenant.make_image(f"other-{number}") for number in range(5)]
    for one in others:
        tenant.later("image", f"/images/{one}")
    # One, and more than a few: then all servers are listed.
    for listed in ([line.mine], [line.mine, *others]):
        body = {"images": [{"id": one} for one in listed]}
        images = ask(requester, "image.batch_delete", body=body)["data"]["images"]
        assert [one["code"] for one in images] == ["101.003015", *[200] * (len(listed) - 1)]
    assert tenant.images("mine", line.mine)


def test_a_server_that_nova_booted_of_the_image_has_its_system_disk(
    requester: Requester, line: Line, tenant: Tenant, third: str
) -> None:
    shown = ask(requester, "server.show", server_id=third)["data"]["server"]
    assert shown["image"]["id"] == line.mine
    assert (shown["root_volume"], shown["data_volumes"]) == ({"volumetype": "SATA", "size": 10}, [])
    result, _ = carried_out(
        requester, change(third, ("image_Linux", line.mine), ("sys_EBS_SATA", "12"))
    )
    assert reported(result) == (200, "success", True)
    assert [one["size"] for one in tenant.volumes(third)] == [12]
    refused = ask(requester, "image.delete", image_id=line.mine)
    assert (refused["code"], refused["message"]) == (
        "101.003015",
        '当前镜像无法删除，已关联云服务器"third"',
    )


def test_an_image_of_a_server_that_nova_booted_of_the_image_is_one_of_its_disks(
    requester: Requester, tenant: Tenant, third: str
) -> None:
    body = {"createImage": {"name": "of-third", "description": ""}}
    made = ask(requester, "server.action", server_id=third, body=body)
    assert made["code"] == 201
    tenant.later("image", f"/images/{made['data']['image_id']}")
    storage, (disk,) = tenant.connection.block_storage, tenant.volumes(third)
    path = f"/snapshots?volume_id={disk['id']}"
    (snapshot,) = storage.get(path, microversion=VOLUME).json()["snapshots"]
    shown = ask(requester, "image.show", image_id=made["data"]["image_id"])["data"]
    assert (shown["systemDisk"], shown["size"]) == ("10", 0)
    _delete_snapshot(tenant, snapshot["id"])


def test_an_image_that_cannot_be_told_is_ignored(
    requester: Requester, line: Line, tenant: Tenant
) -> None:
    """A disk of a snapshot that belongs to no image."""
    storage = tenant.connection.block_storage
    body = {"snapshot": {"volume_id": line.disks[0], "name": "own", "force": True}}
    made = storage.post("/snapshots", json=body, microversion=VOLUME)
    assert made.status_code == 202, made.text
    snapshot = made.json()["snapshot"]["id"]
    path = f"/snapshots/{snapshot}"
    eventually(
        lambda: storage.get(path, microversion=VOLUME).json()["snapshot"]["status"] == "available"
    )
    wanted = {"volume": {"size": 10, "name": "own", "volume_type": "SATA", "snapshot_id": snapshot}}
    disk = storage.post("/volumes", json=wanted, microversion=VOLUME).json()["volume"]["id"]
    eventually(
        lambda: (
            storage.get(f"/volumes/{disk}", microversion=VOLUME).json()["volume"]["status"]
            == "available"
        )
    )
    server_id = tenant.make_server(
        block_device_mapping_v2=[
            {
                "boot_index": 0,
                "uuid": disk,
                "source_type": "volume",
                "destination_type": "volume",
                "delete_on_termination": True,
            }
        ]
    )
    for image in (line.mine, UNKNOWN):
        result, _ = carried_out(requester, change(server_id, ("image_Linux", image)))
        assert reported(result) == (200, "success", False)
    result, _ = carried_out(requester, paid("unsubscribe", server_id))
    assert reported(result) == (200, "success", True)

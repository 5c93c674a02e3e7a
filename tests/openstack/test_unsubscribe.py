"""Paid `unsubscribe` orders from message to message, on the simulated cloud and on the real one."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.requester import Requester
from tests.support.new_orders import NOTHING, new, ports_of, records, volume
from tests.support.orders import carried_out, paid, product_of, publish, reported
from tests.support.tenant import COMPUTE, VOLUME, Tenant
from tests.support.waiting import eventually

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def admin(cloud: Any) -> Iterator[Tenant]:
    found = Tenant(cloud.clouds_yaml, "admin")
    yield found
    found.close()


def network_of(tenant: Tenant, name: str = "tenant-a-net") -> dict[str, Any]:
    listed = tenant.connection.network.get("/networks").json()["networks"]
    found: dict[str, Any] = next(one for one in listed if one["name"] == name)
    return found


def attach_later(tenant: Tenant, server_id: str) -> str:
    """A volume that the customer adds to a server that there is."""
    body = {"volume": {"size": 1, "name": "own", "volume_type": "SSD"}}
    made = tenant.connection.block_storage.post("/volumes", json=body, microversion=VOLUME)
    assert made.status_code == 202, made.text
    volume_id: str = made.json()["volume"]["id"]
    tenant.later("block_storage", f"/volumes/{volume_id}")
    becomes(tenant, volume_id, "available")
    attached = tenant.connection.compute.post(
        f"/servers/{server_id}/os-volume_attachments",
        json={"volumeAttachment": {"volumeId": volume_id}},
        microversion=COMPUTE,
    )
    assert attached.status_code == 200, attached.text
    becomes(tenant, volume_id, "in-use")
    return volume_id


def becomes(tenant: Tenant, volume_id: str, status: str) -> None:
    found = ""

    def is_so() -> bool:
        nonlocal found
        found = volume(tenant, volume_id)["status"]
        return found == status

    eventually(is_so, 60, lambda: f"the volume is still {found}")


def test_a_server_that_was_ordered_goes_with_all_that_came_with_it(
    requester: Requester, tenant: Tenant
) -> None:
    before = records(tenant)
    subnet = network_of(tenant)["subnets"][0]
    made, _ = carried_out(requester, new(tenant, count=2, chosen={"subnetId": subnet}))
    assert made.body["code"] == 200
    ids = [product_of(made, number)["instanceId"] for number in range(2)]
    result, statuses = carried_out(requester, paid("unsubscribe", *ids))
    assert result.routing_key == "order.unsubscribe"
    assert reported(result) == (200, "success", True)
    assert statuses == ["accepted", "validating", "deleting", "succeeded"]
    for number, server_id in enumerate(ids):
        product = product_of(result, number)
        assert (product["instanceId"], product["instanceStatus"]) == (server_id, "DELETE")
        assert "kept" not in product
        assert (product["before"]["status"], product["after"]) == ("ACTIVE", None)
        assert [one["size"] for one in product["before"]["disks"]] == [2, 1]
        # The server, its port, and each disk that Nova, which deletes them itself, has not come to
        # yet.
        assert 2 <= len(product["requestIds"]) <= 4
    assert records(tenant) - before == NOTHING
    finals = [one.body for one in requester.updates_of(result.correlation_id) if one.is_final]
    ended = {one["id"]: one["status"] for one in finals if one["resource"] == "server"}
    assert ended == dict.fromkeys(ids, "DELETED")


@pytest.mark.long_on_real
def test_what_was_attached_later_is_kept_and_named(requester: Requester, tenant: Tenant) -> None:
    network = network_of(tenant)
    port = tenant.connection.network.post(
        "/ports", json={"port": {"network_id": network["id"]}}
    ).json()["port"]["id"]
    tenant.later("network", f"/ports/{port}")
    server_id = tenant.make_server(
        disk=2, data=(("SSD", 1),), networks=[{"uuid": network["id"]}, {"port": port}]
    )
    mine = next(one["id"] for one in ports_of(tenant, server_id) if one["id"] != port)
    came = [one["id"] for one in tenant.volumes(server_id)]
    own = attach_later(tenant, server_id)
    public = network_of(tenant, "public")["id"]
    floating_ip = tenant.connection.network.post(
        "/floatingips", json={"floatingip": {"floating_network_id": public, "port_id": port}}
    ).json()["floatingip"]["id"]
    tenant.later("network", f"/floatingips/{floating_ip}")

    result, _ = carried_out(requester, paid("unsubscribe", server_id))
    assert reported(result) == (200, "success", True)
    kept = product_of(result)["kept"]
    assert kept == {"volumes": [own], "ports": [port], "floatingIps": [floating_ip]}
    after = records(tenant)
    assert server_id not in after.servers
    assert mine not in after.ports
    assert not after.volumes & set(came)
    assert (volume(tenant, own)["status"], volume(tenant, own)["attachments"]) == ("available", [])
    listed = tenant.connection.network.get("/floatingips").json()["floatingips"]
    assert [one["port_id"] for one in listed if one["id"] == floating_ip] == [None]


def test_a_system_disk_made_for_the_server_goes_though_nova_would_keep_it(
    requester: Requester, tenant: Tenant
) -> None:
    before = records(tenant)
    server_id = tenant.make_server(
        block_device_mapping_v2=[
            {
                "boot_index": 0,
                "uuid": tenant.image,
                "source_type": "image",
                "destination_type": "volume",
                "volume_size": 2,
                "volume_type": "SATA",
                "delete_on_termination": False,
            }
        ]
    )
    result, _ = carried_out(requester, paid("unsubscribe", server_id))
    assert reported(result) == (200, "success", True)
    assert records(tenant) - before == NOTHING


def test_a_disk_that_was_there_before_its_server_is_kept(
    requester: Requester, tenant: Tenant
) -> None:
    made = tenant.connection.block_storage.post(
        "/volumes",
        json={"volume": {"size": 2, "volume_type": "SATA", "imageRef": tenant.image}},
        microversion=VOLUME,
    )
    volume_id = made.json()["volume"]["id"]
    tenant.later("block_storage", f"/volumes/{volume_id}")
    becomes(tenant, volume_id, "available")
    time.sleep(1.1)  # both clocks are of whole seconds
    server_id = tenant.make_server(
        block_device_mapping_v2=[
            {
                "boot_index": 0,
                "uuid": volume_id,
                "source_type": "volume",
                "destination_type": "volume",
            }
        ]
    )
    result, _ = carried_out(requester, paid("unsubscribe", server_id))
    assert product_of(result)["kept"] == {"volumes": [volume_id]}
    becomes(tenant, volume_id, "available")


def test_what_is_gone_already_is_done(requester: Requester, tenant: Tenant) -> None:
    server_id, living = tenant.make_server(disk=None), tenant.make_server(disk=None)
    first, _ = carried_out(requester, paid("unsubscribe", server_id))
    assert first.body["code"] == 200
    # By itself, also where the order does not say whose it was; and beside one that lives.
    for order in (paid("unsubscribe", server_id), paid("unsubscribe", server_id, tenant=None)):
        result, statuses = carried_out(requester, order)
        assert reported(result) == (200, "success", False)
        assert product_of(result)["instanceStatus"] == "DELETE"
        assert statuses == ["accepted", "validating", "succeeded"]
    result, _ = carried_out(requester, paid("unsubscribe", UNKNOWN, living))
    assert reported(result) == (200, "success", True)
    assert living not in records(tenant).servers


def test_another_tenants_server_is_not_gone(requester: Requester, tenant: Tenant) -> None:
    server_id, own = tenant.make_server(disk=None), tenant.make_server(disk=None)
    result, _ = carried_out(requester, paid("unsubscribe", server_id, tenant="tenant-b"))
    assert (result.body["code"], result.body["message"]) == (
        "101.001033",
        f"云服务器{server_id}不存在",
    )
    assert reported(result)[1:] == ("fail", False)
    assert {server_id, own} <= records(tenant).servers


@pytest.mark.parametrize("by", ["tenant", "admin"])
def test_a_locked_server_goes_as_well(
    requester: Requester, tenant: Tenant, admin: Tenant, by: str
) -> None:
    server_id = tenant.make_server(disk=2)
    (tenant if by == "tenant" else admin).act(server_id, {"lock": None})
    result, _ = carried_out(requester, paid("unsubscribe", server_id))
    assert reported(result) == (200, "success", True)
    assert server_id not in records(tenant).servers


def test_a_server_in_error_goes_as_well(
    requester: Requester, tenant: Tenant, admin: Tenant
) -> None:
    before = records(tenant)
    server_id = tenant.make_server(disk=2)
    admin.act(server_id, {"os-resetState": {"state": "error"}})
    assert tenant.server(server_id)["status"] == "ERROR"
    result, _ = carried_out(requester, paid("unsubscribe", server_id))
    assert reported(result) == (200, "success", True)
    assert records(tenant) - before == NOTHING


def test_a_resize_is_waited_for(requester: Requester, tenant: Tenant, cloud: Any) -> None:
    before = records(tenant)
    server_id = tenant.make_server(disk=2)
    cloud.fault("virt.finish_migration", match=server_id, delay=3)
    tenant.act(server_id, {"resize": {"flavorRef": tenant.flavors["S1.medium.2"]}})
    message_id = publish(requester, paid("unsubscribe", server_id))
    result = requester.order_result_of(message_id, 120)
    assert reported(result) == (200, "success", True)
    told = [
        one.body["status"]
        for one in requester.updates_of(message_id)
        if one.body["resource"] == "server"
    ]
    assert "RESIZE" not in told
    assert records(tenant) - before == NOTHING


def test_a_server_that_does_not_go_is_told(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    server_id, other = tenant.make_server(disk=2), tenant.make_server(disk=2)
    cloud.fault("virt.destroy", match=server_id, error="it does not go", times=9)
    order = paid("unsubscribe", server_id, other)
    result, statuses = carried_out(requester, order)
    cloud.clear_faults()
    assert (result.body["code"], result.body["data"]["reason"]) == ("101.001040", "delete_failed")
    assert reported(result)[1:] == ("fail", True)
    assert [product_of(result, number)["instanceStatus"] for number in range(2)] == [
        "ERROR",
        "DELETE",
    ]
    assert statuses == ["accepted", "validating", "deleting", "failed"]
    # A later order finishes it.
    result, _ = carried_out(requester, paid("unsubscribe", server_id, other))
    assert reported(result) == (200, "success", True)


def test_an_order_that_comes_often_is_carried_out_once(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=2)
    order = paid("unsubscribe", server_id)
    messages = [publish(requester, order) for _ in range(8)]
    results = {requester.order_result_of(one, 120).raw for one in messages}
    assert len(results) == 1
    assert b'"resourceChanged":true' in results.pop()

"""Images of servers that were booted from a volume: they hold no data, only the names of snapshots
in Cinder.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester, Source
from tests.openstack.test_views import ask
from tests.support.new_orders import NOTHING, Records, delete_all, new, records
from tests.support.orders import carried_out, publish, reported
from tests.support.tenant import COMPUTE, VOLUME, Tenant
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

#: GiB of the server's system disk, and of its data disk. Its flavor says 10, which is the image's
#: `min_disk`.
SYSTEM, DATA = 3, 2


@pytest.fixture
def before(tenant: Tenant) -> Iterator[Records]:
    """Provide what the tenant had; what comes is taken away after the test, snapshots first: they
    keep their volumes.
    """
    found = records(tenant)
    yield found
    cinder = tenant.connection.block_storage

    def none_is_left() -> bool:
        listed = cinder.get("/snapshots", microversion=VOLUME).json()["snapshots"]
        for one in listed:
            cinder.delete(f"/snapshots/{one['id']}", microversion=VOLUME)
        return not listed

    eventually(none_is_left, 60)
    delete_all(tenant, records(tenant) - found)


@pytest.fixture
def image(before: Records, requester: Requester, tenant: Tenant) -> str:
    """The id of an image of a server with a system disk and a data disk."""
    server_id = tenant.make_server(disk=SYSTEM, data=(("SSD", DATA),))
    body = {"createImage": {"name": "mine", "description": ""}}
    answer = ask(requester, "server.action", server_id=server_id, body=body)
    assert answer["code"] == 201, answer
    image_id: str = answer["data"]["image_id"]
    tenant.later("image", f"/images/{image_id}")
    return image_id


@pytest.fixture
def admin(cloud: Any) -> Iterator[Tenant]:
    found = Tenant(cloud.clouds_yaml, "admin")
    yield found
    found.close()


def snapshot_of(tenant: Tenant, image_id: str) -> str:
    body = tenant.connection.image.get(f"/images/{image_id}").json()
    return next(
        one["snapshot_id"]
        for one in json.loads(body["block_device_mapping"])
        if one["boot_index"] == 0
    )


def items(size: int, kind: str = "SATA") -> tuple[tuple[str, str], ...]:
    return (("std_1C1G", "S1.small.1"), (f"sys_EBS_{kind}", str(size)))


def is_refused(requester: Requester, tenant: Tenant, order: dict[str, Any], subject: str) -> bool:
    """Tell whether the order is refused naming this, with nothing made; and the plan of it says the
    same.
    """
    before = records(tenant)
    planned = ask(requester, "order.plan", order=order, tenant_id=tenant.project_id)
    result, statuses = carried_out(requester, order)
    assert statuses == ["accepted", "validating", "failed"]
    assert reported(result)[1:] == ("fail", False)
    assert records(tenant) - before == NOTHING
    told = (result.body["code"], result.body["message"])
    assert (planned["data"]["code"], planned["data"]["message"]) == told, planned
    return told == ("101.001002", f"参数{subject}不符合规范")


@pytest.mark.long_on_real
def test_a_disk_smaller_than_the_images_own_volume_is_refused_and_one_as_large_is_made_from_its_snapshot(
    requester: Requester, tenant: Tenant, image: str
) -> None:
    assert is_refused(
        requester, tenant, new(tenant, *items(SYSTEM - 1), image=image), "sys_EBS_SATA"
    )
    result, _ = carried_out(requester, new(tenant, *items(SYSTEM), image=image))
    assert result.body["code"] == 200, result.body
    (product,) = result.body["data"]["productSetList"][0]["productList"]
    (system,) = tenant.volumes(product["instanceId"])
    assert (system["size"], system["bootable"], system["status"]) == (SYSTEM, "true", "in-use")
    assert system["snapshot_id"] == snapshot_of(tenant, image)


def test_a_larger_disk_of_another_type_in_a_zone_is_made_from_the_images_snapshot(
    requester: Requester, tenant: Tenant, image: str
) -> None:
    order = new(tenant, *items(SYSTEM + 1, "SSD"), image=image, chosen={"availableZone": "nova"})
    result, _ = carried_out(requester, order)
    assert result.body["code"] == 200, result.body
    (product,) = result.body["data"]["productSetList"][0]["productList"]
    (system,) = tenant.volumes(product["instanceId"])
    assert (system["size"], system["volume_type"]) == (SYSTEM + 1, "SSD")
    assert system["snapshot_id"] == snapshot_of(tenant, image)


@pytest.mark.long_on_real
def test_an_image_whose_snapshot_is_gone_or_broken_is_refused_and_one_that_is_being_made_is_waited_for(
    requester: Requester, tenant: Tenant, image: str, admin: Tenant
) -> None:
    snapshot = f"/snapshots/{snapshot_of(tenant, image)}"

    def become(status: str) -> None:
        body = {"os-reset_status": {"status": status}}
        answer = admin.connection.block_storage.post(
            f"{snapshot}/action", json=body, microversion=VOLUME
        )
        assert answer.status_code == 202, answer.text

    become("error")
    assert is_refused(requester, tenant, new(tenant, *items(SYSTEM), image=image), "image_Linux")
    become("creating")
    message_id = publish(requester, new(tenant, *items(SYSTEM), image=image))
    requester.wait(
        lambda one: (
            one.source is Source.STATUS
            and (one.body["message_id"], one.body["status"]) == (message_id, "waiting_retry")
        )
    )
    become("available")
    assert requester.order_result_of(message_id, 120).body["code"] == 200
    tenant.connection.block_storage.delete(snapshot, microversion=VOLUME)
    eventually(
        lambda: (
            tenant.connection.block_storage.get(snapshot, microversion=VOLUME).status_code == 404
        )
    )
    assert is_refused(requester, tenant, new(tenant, *items(SYSTEM), image=image), "image_Linux")


@pytest.mark.parametrize(
    ("fields", "subject"),
    [
        (
            {
                "block_device_mapping": '[{"source_type": "volume", "boot_index": 0, "volume_id": "x"}]'
            },
            "image_Linux",
        ),
        (
            {
                "block_device_mapping": '[{"source_type": "snapshot", "boot_index": 0, "snapshot_id": "../x"}]'
            },
            "image_Linux",
        ),
        ({"min_ram": 2048}, "image_Linux"),
        ({"min_disk": 3}, "sys_EBS_SATA"),
    ],
)
def test_what_an_image_asks_for_is_known_before_anything_is_made(
    requester: Requester, tenant: Tenant, before: Records, fields: dict[str, Any], subject: str
) -> None:
    image_id = tenant.make_image("asks-for-more", **fields)
    tenant.later("image", f"/images/{image_id}")
    assert is_refused(requester, tenant, new(tenant, *items(2), image=image_id), subject)


@contextmanager
def host_taken_out(admin: Tenant) -> Iterator[None]:
    """Without its only host, Nova's zone is there, and not available."""
    listed = admin.connection.compute.get(
        "/os-services?binary=nova-compute", microversion=COMPUTE
    ).json()
    ids = [one["id"] for one in listed["services"]]

    def change(status: str) -> None:
        for one in ids:
            path, body = f"/os-services/{one}", {"status": status}
            answer = admin.connection.compute.put(path, json=body, microversion=COMPUTE)
            assert answer.status_code == 200, answer.text

    change("disabled")
    try:
        yield
    finally:
        change("enabled")


def test_a_zone_that_is_not_available_is_refused(
    requester: Requester, tenant: Tenant, admin: Tenant
) -> None:
    order = new(tenant, chosen={"availableZone": "nova"})
    with host_taken_out(admin):
        assert is_refused(requester, tenant, order, "availableZone")


def test_disks_are_made_in_the_servers_zone_where_cinder_has_it(
    requester: Requester, tenant: Tenant, before: Records, cloud: Any
) -> None:
    """`edge` is a zone of Nova's alone, as the zones of many clouds are."""
    for zone in ("nova", "edge") if isinstance(cloud, SimulatedOpenStack) else ("nova",):
        result, _ = carried_out(requester, new(tenant, chosen={"availableZone": zone}))
        assert result.body["code"] == 200, result.body
        (product,) = result.body["data"]["productSetList"][0]["productList"]
        server_id = product["instanceId"]
        assert tenant.server(server_id)["OS-EXT-AZ:availability_zone"] == zone
        assert [one["availability_zone"] for one in tenant.volumes(server_id)] == ["nova", "nova"]

"""The calls with which servers come and go, answered alike by the simulated cloud and the real one."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.new_orders import ports_of, quota, used, volume
from tests.support.tenant import COMPUTE, VOLUME, Tenant
from tests.support.waiting import eventually

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def admin(cloud: Any) -> Iterator[Tenant]:
    found = Tenant(cloud.clouds_yaml, "admin")
    yield found
    found.close()


@pytest.fixture
def network(tenant: Tenant) -> dict[str, Any]:
    listed = tenant.connection.network.get("/networks?router:external=False").json()["networks"]
    found: dict[str, Any] = next(one for one in listed if one["name"] == "tenant-a-net")
    return found


def error_of(answer: Any) -> tuple[int, str]:
    inner = next(iter(answer.json().values()))
    return answer.status_code, inner["message"]


def post_volume(tenant: Tenant, **fields: Any) -> Any:
    body = {"volume": {"size": 1, "volume_type": "SATA", **fields}}
    return tenant.connection.block_storage.post("/volumes", json=body, microversion=VOLUME)


def make_volume(tenant: Tenant, **fields: Any) -> str:
    answer = post_volume(tenant, **fields)
    assert answer.status_code == 202, answer.text
    volume_id: str = answer.json()["volume"]["id"]
    tenant.later("block_storage", f"/volumes/{volume_id}")
    settled(tenant, volume_id)
    return volume_id


def settled(tenant: Tenant, volume_id: str) -> str:
    """A volume's status once nothing is under way with it; empty when it is gone."""
    status = ""

    def is_settled() -> bool:
        nonlocal status
        answer = tenant.connection.block_storage.get(f"/volumes/{volume_id}", microversion=VOLUME)
        status = "" if answer.status_code == 404 else answer.json()["volume"]["status"]
        return status not in ("creating", "downloading", "deleting", "detaching", "attaching")

    eventually(is_settled, 60)
    return status


def post_server(tenant: Tenant, *disks: str, networks: Any = "none", **fields: Any) -> Any:
    body = {
        "name": f"calls-{uuid.uuid4().hex[:6]}",
        "flavorRef": tenant.flavors["S1.small.1"],
        "networks": networks,
        "block_device_mapping_v2": [
            {
                "boot_index": -1 if index else 0,
                "uuid": one,
                "source_type": "volume",
                "destination_type": "volume",
                "delete_on_termination": True,
            }
            for index, one in enumerate(disks)
        ],
        **fields,
    }
    return tenant.connection.compute.post("/servers", json={"server": body}, microversion=COMPUTE)


def make_server(tenant: Tenant, *disks: str, **fields: Any) -> str:
    answer = post_server(tenant, *disks, **fields)
    assert answer.status_code == 202, answer.text
    server_id: str = answer.json()["server"]["id"]
    tenant.adopt(server_id)
    tenant.wait(
        server_id, lambda one: one["status"] != "BUILD" and not one["OS-EXT-STS:task_state"], 120
    )
    return server_id


def gone(tenant: Tenant, server_id: str) -> None:
    answer = tenant.connection.compute.delete(f"/servers/{server_id}", microversion=COMPUTE)
    assert answer.status_code == 204, answer.text
    path = f"/servers/{server_id}"
    eventually(
        lambda: tenant.connection.compute.get(path, microversion=COMPUTE).status_code == 404, 60
    )


# Volumes.


def test_a_volume_is_found_by_its_metadata(tenant: Tenant) -> None:
    mark = uuid.uuid4().hex
    answer = post_volume(
        tenant,
        name="marked",
        imageRef=tenant.image,
        metadata={"ecs_request": mark, "ecs_part": "1.0"},
    )
    made = answer.json()["volume"]
    tenant.later("block_storage", f"/volumes/{made['id']}")
    assert (answer.status_code, made["status"], made["bootable"]) == (202, "creating", "false")
    for wanted, found in (({"ecs_request": mark}, [made["id"]]), ({"ecs_request": "nobody's"}, [])):
        query = {"metadata": json.dumps(wanted)}
        listed = tenant.connection.block_storage.get(
            "/volumes/detail", params=query, microversion=VOLUME
        )
        assert [one["id"] for one in listed.json()["volumes"]] == found
    assert settled(tenant, made["id"]) == "available"
    ready = volume(tenant, made["id"])
    assert (ready["bootable"], ready["volume_image_metadata"]["image_id"]) == ("true", tenant.image)
    assert ready["metadata"] == {"ecs_request": mark, "ecs_part": "1.0"}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"volume_type": "GOLD"}, (404, "Volume type with name GOLD could not be found.")),
        (
            {"imageRef": UNKNOWN},
            (400, "Invalid image identifier or unable to access requested image."),
        ),
    ],
)
def test_a_volume_that_cannot_be_made_is_refused(
    tenant: Tenant, fields: dict[str, Any], error: Any
) -> None:
    assert error_of(post_volume(tenant, **fields)) == error


@pytest.mark.parametrize(
    ("point", "image"), [("volume.create_volume", False), ("volume.clone_image", True)]
)
def test_a_volume_that_fails_is_in_error_and_can_be_deleted(
    tenant: Tenant, cloud: Any, point: str, image: bool
) -> None:
    name = f"failing-{uuid.uuid4().hex[:6]}"
    cloud.fault(point, match=name, error="full", times=20)
    volume_id = make_volume(tenant, name=name, **({"imageRef": tenant.image} if image else {}))
    assert settled(tenant, volume_id) == "error"
    assert (
        tenant.connection.block_storage.delete(
            f"/volumes/{volume_id}", microversion=VOLUME
        ).status_code
        == 202
    )
    assert settled(tenant, volume_id) == ""


def test_a_volume_that_does_not_go_says_so(tenant: Tenant, admin: Tenant, cloud: Any) -> None:
    name = f"staying-{uuid.uuid4().hex[:6]}"
    cloud.fault("volume.delete_volume", match=name, error="stuck", times=20)
    volume_id = make_volume(tenant, name=name)
    path, storage = f"/volumes/{volume_id}", tenant.connection.block_storage
    assert storage.delete(path, microversion=VOLUME).status_code == 202
    assert settled(tenant, volume_id) == "error_deleting"
    assert error_of(storage.delete(path, microversion=VOLUME))[0] == 400
    cloud.clear_faults()
    admin.connection.block_storage.post(
        f"{path}/action", json={"os-reset_status": {"status": "available"}}, microversion=VOLUME
    )


def test_volume_types_and_quotas_are_shown(tenant: Tenant) -> None:
    storage = tenant.connection.block_storage
    listed = storage.get("/types", microversion=VOLUME).json()["volume_types"]
    assert {"SATA", "SSD"} <= {one["name"] for one in listed}
    path = f"/os-quota-sets/{tenant.project_id}?usage=True"
    before = storage.get(path, microversion=VOLUME).json()["quota_set"]
    make_volume(tenant)
    after = storage.get(path, microversion=VOLUME).json()["quota_set"]
    for name in ("volumes", "gigabytes", "volumes_SATA", "gigabytes_SATA"):
        assert (
            after[name]["in_use"] + after[name]["reserved"]
            == 1 + before[name]["in_use"] + before[name]["reserved"]
        )
    assert {"limit", "in_use", "reserved"} <= after["per_volume_gigabytes"].keys()


# Quotas, in the services' own words.


def test_what_goes_beyond_a_quota_of_cinders_is_refused(tenant: Tenant, admin: Tenant) -> None:
    with quota(tenant, admin, "block_storage", volumes=used(tenant, "block_storage", "volumes")):
        status, message = error_of(post_volume(tenant))
        assert (status, "VolumeLimitExceeded" in message, "quota" in message) == (413, True, True)
    for name in ("gigabytes", "gigabytes_SATA"):
        with quota(tenant, admin, "block_storage", **{name: used(tenant, "block_storage", name)}):
            status, message = error_of(post_volume(tenant))
            assert (status, f"exceeds allowed {name} quota" in message) == (413, True)
    with quota(tenant, admin, "block_storage", per_volume_gigabytes=2):
        assert error_of(post_volume(tenant, size=3))[0] == 413


def test_what_goes_beyond_a_quota_of_novas_is_refused(tenant: Tenant, admin: Tenant) -> None:
    disk = make_volume(tenant, imageRef=tenant.image, size=2)
    with quota(tenant, admin, "compute", instances=0):
        status, message = error_of(post_server(tenant, disk))
    assert (
        status,
        message.startswith("Quota exceeded for instances: Requested 1, but already used"),
    ) == (403, True)
    assert volume(tenant, disk)["status"] == "available"


# Servers.


def test_a_server_is_listed_with_its_metadata_as_soon_as_it_is_accepted(
    tenant: Tenant, admin: Tenant, network: dict[str, Any]
) -> None:
    mark, disk, data = (
        uuid.uuid4().hex,
        make_volume(tenant, imageRef=tenant.image, size=2),
        make_volume(tenant),
    )
    answer = post_server(
        tenant,
        disk,
        data,
        networks=[{"uuid": network["id"]}],
        metadata={"ecs_request": mark},
        adminPass="sEcret-1",
        user_data="IyBhCg==",
        security_groups=[{"name": "default"}],
        tags=["a", "b"],
        availability_zone="nova",
    )
    assert (answer.status_code, answer.json()["server"]["adminPass"]) == (202, "sEcret-1")
    server_id = answer.json()["server"]["id"]
    tenant.adopt(server_id)
    listed = tenant.connection.compute.get("/servers/detail", microversion=COMPUTE).json()[
        "servers"
    ]
    assert [one["id"] for one in listed if one["metadata"] == {"ecs_request": mark}] == [server_id]
    assert volume(tenant, disk)["status"] in ("reserved", "attaching", "in-use")
    server = tenant.wait(server_id, lambda one: one["status"] != "BUILD", 120)
    assert (server["status"], sorted(server["tags"])) == ("ACTIVE", ["a", "b"])
    flags = {
        one["id"]: one["delete_on_termination"]
        for one in server["os-extended-volumes:volumes_attached"]
    }
    assert flags == {disk: True, data: True}
    assert server["created"] <= server["updated"]
    assert admin.server(server_id)["OS-EXT-SRV-ATTR:user_data"] == "IyBhCg=="
    (port,) = ports_of(tenant, server_id)
    gone(tenant, server_id)
    assert (settled(tenant, disk), settled(tenant, data)) == ("", "")
    assert tenant.connection.network.get(f"/ports?id={port['id']}").json()["ports"] == []
    # An admin still finds whose it was.
    path = f"/servers/detail?all_tenants=1&deleted=true&uuid={server_id}"
    (former,) = admin.connection.compute.get(path, microversion=COMPUTE).json()["servers"]
    assert (former["id"], former["status"], former["tenant_id"]) == (
        server_id,
        "DELETED",
        tenant.project_id,
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"availability_zone": "mars"}, "The requested availability zone is not available"),
        ({"key_name": "nobody's"}, "Invalid key_name provided."),
        (
            {"security_groups": [{"name": "nobody"}], "networks": "net"},
            "Unable to find security_group with name or id 'nobody'",
        ),
        ({"networks": [{"uuid": UNKNOWN}]}, f"Network {UNKNOWN} could not be found."),
    ],
)
def test_a_server_that_cannot_be_made_is_refused(
    tenant: Tenant, network: dict[str, Any], fields: dict[str, Any], message: str
) -> None:
    disk = make_volume(tenant, imageRef=tenant.image, size=2)
    if fields.get("networks") == "net":
        fields = fields | {"networks": [{"uuid": network["id"]}]}
    assert error_of(post_server(tenant, disk, **fields)) == (400, message)
    assert volume(tenant, disk)["status"] == "available"


def test_a_volume_that_is_not_there_or_is_used_boots_nothing(tenant: Tenant) -> None:
    missing = (400, f"Block Device Mapping is Invalid: failed to get volume {UNKNOWN}.")
    assert error_of(post_server(tenant, UNKNOWN)) == missing
    server_id = tenant.make_server(disk=2)
    (system,) = tenant.volumes(server_id)
    status, message = error_of(post_server(tenant, system["id"]))
    assert (status, "but the current status is in-use" in message) == (400, True)
    assert (
        error_of(
            tenant.connection.block_storage.delete(f"/volumes/{system['id']}", microversion=VOLUME)
        )[0]
        == 400
    )


def test_a_server_that_fails_on_its_host_gives_back_what_it_had(
    tenant: Tenant, network: dict[str, Any], cloud: Any
) -> None:
    name = f"failing-{uuid.uuid4().hex[:6]}"
    cloud.fault("virt.spawn", match=name, error="no disk", times=20)
    disk = make_volume(tenant, imageRef=tenant.image, size=2)
    server_id = make_server(tenant, disk, name=name, networks=[{"uuid": network["id"]}])
    server = tenant.wait(server_id, lambda one: "fault" in one)
    assert (server["status"], server["fault"]["message"][:34]) == (
        "ERROR",
        "Exceeded maximum number of retries",
    )
    assert settled(tenant, disk) == "available"
    assert ports_of(tenant, server_id) == []
    gone(tenant, server_id)
    assert settled(tenant, disk) == ""


def test_a_server_that_finds_no_host_holds_its_volume(tenant: Tenant) -> None:
    disk = make_volume(tenant, imageRef=tenant.image, size=2)
    server_id = make_server(tenant, disk, flavorRef=tenant.flavors["too-big-for-any-host"])
    # ERROR comes first, and why a moment later.
    server = tenant.wait(server_id, lambda one: "fault" in one)
    assert (server["status"], server["fault"]["message"]) == ("ERROR", "No valid host was found. ")
    assert volume(tenant, disk)["status"] == "reserved"
    gone(tenant, server_id)
    assert settled(tenant, disk) == ""


def test_a_server_that_does_not_go_ends_in_error(tenant: Tenant, cloud: Any) -> None:
    server_id = tenant.make_server(disk=2)
    cloud.fault("virt.destroy", match=server_id, error="stuck", times=9)
    assert (
        tenant.connection.compute.delete(f"/servers/{server_id}", microversion=COMPUTE).status_code
        == 204
    )
    # The real Nova says so for a moment before it has given the task up.
    server = tenant.wait(
        server_id, lambda one: "fault" in one and one["OS-EXT-STS:task_state"] is None
    )
    assert server["status"] == "ERROR"
    assert server["fault"]["message"] == "stuck"
    cloud.clear_faults()
    gone(tenant, server_id)


def test_a_locked_server_does_not_go_and_an_admins_lock_is_an_admins(
    tenant: Tenant, admin: Tenant
) -> None:
    server_id = tenant.make_server(disk=None)

    def act(who: Tenant, action: str) -> Any:
        path = f"/servers/{server_id}/action"
        return who.connection.compute.post(path, json={action: None}, microversion=COMPUTE)

    assert act(tenant, "lock").status_code == 202
    refused = tenant.connection.compute.delete(f"/servers/{server_id}", microversion=COMPUTE)
    assert error_of(refused) == (409, f"Instance {server_id} is locked")
    assert act(tenant, "unlock").status_code == 202
    assert act(admin, "lock").status_code == 202
    assert error_of(act(tenant, "unlock"))[0] == 403
    assert act(admin, "unlock").status_code == 202
    gone(tenant, server_id)


def test_zones_and_key_pairs_are_shown(tenant: Tenant) -> None:
    compute = tenant.connection.compute
    zones = compute.get("/os-availability-zone", microversion=COMPUTE).json()[
        "availabilityZoneInfo"
    ]
    assert ("nova", True) in [(one["zoneName"], one["zoneState"]["available"]) for one in zones]
    found = tenant.connection.block_storage.get("/os-availability-zone", microversion=VOLUME).json()
    assert found["availabilityZoneInfo"] == [{"zoneName": "nova", "zoneState": {"available": True}}]
    assert error_of(compute.get("/os-keypairs/nobody%27s", microversion=COMPUTE))[0] == 404


# Ports and floating IPs.


def test_a_port_in_a_subnet_is_found_by_its_description_and_outlives_its_server(
    tenant: Tenant, network: dict[str, Any]
) -> None:
    described, subnet = f"ecs_request={uuid.uuid4().hex}", network["subnets"][0]
    body = {
        "network_id": network["id"],
        "fixed_ips": [{"subnet_id": subnet}],
        "name": "one",
        "description": described,
    }
    made = tenant.connection.network.post("/ports", json={"port": body})
    assert made.status_code == 201, made.text
    port = made.json()["port"]
    tenant.later("network", f"/ports/{port['id']}")
    assert [one["subnet_id"] for one in port["fixed_ips"]] == [subnet]
    query = {"description": described, "project_id": tenant.project_id}
    listed = tenant.connection.network.get("/ports", params=query).json()["ports"]
    assert [one["id"] for one in listed] == [port["id"]]
    server_id = make_server(
        tenant, make_volume(tenant, imageRef=tenant.image, size=2), networks=[{"port": port["id"]}]
    )
    assert [(one["id"], one["device_owner"]) for one in ports_of(tenant, server_id)] == [
        (port["id"], "compute:nova")
    ]
    gone(tenant, server_id)
    (kept,) = tenant.connection.network.get(f"/ports?id={port['id']}").json()["ports"]
    assert (kept["device_id"], kept["device_owner"]) == ("", "")
    assert tenant.connection.network.delete(f"/ports/{port['id']}").status_code == 204
    assert error_of(tenant.connection.network.delete(f"/ports/{port['id']}"))[0] == 404


@pytest.mark.parametrize(
    "fields",
    [
        {"network_id": UNKNOWN},
        {"fixed_ips": [{"subnet_id": UNKNOWN}]},
        {"security_groups": [UNKNOWN]},
    ],
)
def test_a_port_of_what_is_not_there_is_refused(
    tenant: Tenant, network: dict[str, Any], fields: dict[str, Any]
) -> None:
    body = {"network_id": network["id"], **fields}
    status, message = error_of(tenant.connection.network.post("/ports", json={"port": body}))
    assert (status, UNKNOWN in message) == (404, True)


def test_a_floating_ip_is_released_as_often_as_one_likes(
    tenant: Tenant, network: dict[str, Any]
) -> None:
    connection = tenant.connection.network
    public = next(
        one["id"]
        for one in connection.get("/networks").json()["networks"]
        if one["router:external"]
    )
    port = connection.post("/ports", json={"port": {"network_id": network["id"]}}).json()["port"][
        "id"
    ]
    tenant.later("network", f"/ports/{port}")
    body = {"floatingip": {"floating_network_id": public, "port_id": port}}
    floating_ip = connection.post("/floatingips", json=body).json()["floatingip"]
    tenant.later("network", f"/floatingips/{floating_ip['id']}")
    assert floating_ip["port_id"] == port
    for _ in range(2):
        released = connection.put(
            f"/floatingips/{floating_ip['id']}", json={"floatingip": {"port_id": None}}
        )
        assert (released.status_code, released.json()["floatingip"]["port_id"]) == (200, None)
    assert (
        error_of(connection.put(f"/floatingips/{UNKNOWN}", json={"floatingip": {"port_id": None}}))[
            0
        ]
        == 404
    )


def test_the_quota_of_ports_and_the_security_groups_are_shown(tenant: Tenant) -> None:
    connection = tenant.connection.network
    shown = connection.get(f"/quotas/{tenant.project_id}/details.json").json()["quota"]["port"]
    assert shown.keys() == {"limit", "used", "reserved"}
    query = {"project_id": tenant.project_id}
    groups = connection.get("/security-groups", params=query).json()["security_groups"]
    assert "default" in [one["name"] for one in groups]

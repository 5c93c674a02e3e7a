"""The calls that the handlers make, answered alike by the simulated cloud and the real one."""

from collections.abc import Iterator
from typing import Any

import pytest

from handlers.openstack.cinder import list_volumes
from handlers.openstack.cloud import Cloud
from handlers.openstack.neutron import list_few_ports
from handlers.openstack.nova import SortBy, host_id, list_flavors, list_part, list_servers
from handlers.openstack.sessions import CloudSettings
from tests.support.tenant import COMPUTE, VOLUME, Tenant

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def own(cloud: Any) -> Iterator[Tenant]:
    found = Tenant(cloud.clouds_yaml, "tenant-a")
    yield found
    found.close()


@pytest.fixture(scope="module")
def server_id(own: Tenant) -> str:
    return own.make_server(name="calls", data=(("SSD", 1),))


def act(own: Tenant, server_id: str, body: Any) -> Any:
    return own.connection.compute.post(
        f"/servers/{server_id}/action", json=body, microversion=COMPUTE
    )


def error_of(answer: Any) -> tuple[int, str, str]:
    key, inner = next(iter(answer.json().items()))
    return answer.status_code, key, inner["message"]


def test_a_server_has_the_fields_that_are_read(own: Tenant, server_id: str) -> None:
    server = own.server(server_id)
    assert server["status"] == "ACTIVE"
    assert server["OS-EXT-STS:task_state"] is None
    assert server["tenant_id"] == own.project_id
    assert server["image"] == ""
    assert server["metadata"] == {"charge_type": "monthly"}
    assert server["flavor"].keys() >= {"original_name", "vcpus", "ram", "disk"}
    assert server["flavor"]["original_name"] == "S1.small.1"
    assert len(server["os-extended-volumes:volumes_attached"]) == 2
    assert server["locked"] is False
    assert len(server["updated"]) == len("2026-11-23T10:00:00Z")


def test_volumes_have_the_fields_that_are_read(own: Tenant, server_id: str) -> None:
    system, data = own.volumes(server_id)
    assert (system["size"], system["volume_type"], system["bootable"]) == (10, "SATA", "true")
    assert system["status"] == "in-use"
    assert (data["size"], data["volume_type"], data["bootable"]) == (1, "SSD", "false")
    assert system["attachments"][0]["server_id"] == server_id
    assert system["attachments"][0]["device"] == "/dev/sda"
    assert system["volume_image_metadata"]["image_id"] == own.image


def test_changes_since_lists_what_changed_and_what_is_gone(own: Tenant) -> None:
    server_id = own.make_server(disk=None)
    updated = own.server(server_id)["updated"]
    path = f"/servers/detail?changes-since={updated}"
    assert server_id in [
        one["id"]
        for one in own.connection.compute.get(path, microversion=COMPUTE).json()["servers"]
    ]
    own.connection.compute.delete(f"/servers/{server_id}")
    for _ in range(200):
        listed = own.connection.compute.get(path, microversion=COMPUTE).json()["servers"]
        if "DELETED" in [one["status"] for one in listed if one["id"] == server_id]:
            break
    else:
        pytest.fail("the deletion is not listed")
    for _ in range(200):
        if (
            own.connection.compute.get(f"/servers/{server_id}", microversion=COMPUTE).status_code
            == 404
        ):
            return
    pytest.fail("the server can still be seen")


def test_a_list_goes_on_by_its_marker(own: Tenant, server_id: str) -> None:
    other = own.make_server(disk=None)
    first = own.connection.compute.get("/servers/detail?limit=1", microversion=COMPUTE).json()
    assert [one["id"] for one in first["servers"]] == [other]
    assert first["servers_links"][0]["rel"] == "next"
    path = f"/servers/detail?limit=100&marker={other}"
    rest = own.connection.compute.get(path, microversion=COMPUTE).json()
    assert server_id in [one["id"] for one in rest["servers"]]
    assert "servers_links" not in rest


def listed(own: Tenant, query: str) -> list[dict[str, Any]]:
    answer = own.connection.compute.get(f"/servers{query}", microversion=COMPUTE)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["servers"]
    return found


def test_plain_and_detailed_lists_have_the_same_order(own: Tenant) -> None:
    made = [own.make_server(name=name, disk=None) for name in ("sort-b", "sort-a", "sort-b")]
    order = "sort_key=display_name&sort_dir=desc&sort_key=uuid&sort_dir=asc"
    plain = [one for one in listed(own, f"?{order}") if one["id"] in made]
    assert [one["id"] for one in plain] == [*sorted((made[0], made[2])), made[1]]
    assert all(one.keys() == {"id", "name", "links"} for one in plain)
    part = listed(own, f"/detail?{order}&limit=1&marker={plain[0]['id']}")
    assert [one["id"] for one in part] == [plain[1]["id"]]
    newest = [
        one["id"]
        for one in listed(own, "?sort_key=created_at&sort_dir=desc&sort_key=uuid&sort_dir=asc")
    ]
    created = {one: str(own.server(one)["created"]) for one in made}
    assert [one for one in newest if one in made] == sorted(
        sorted(made), key=lambda one: created[one], reverse=True
    )
    gone = own.connection.compute.get(
        f"/servers/detail?limit=1&marker={UNKNOWN}", microversion=COMPUTE
    )
    assert error_of(gone) == (400, "badRequest", f"marker [{UNKNOWN}] not found")


def test_servers_are_filtered_by_name_status_and_image(own: Tenant, server_id: str) -> None:
    other = own.make_server(name="Filter.1", disk=None)

    def found(query: str) -> set[str]:
        return {one["id"] for one in listed(own, query)} & {server_id, other}

    assert found("/detail?name=[fF][iI][lL][tT][eE][rR].*1") == {other}
    assert found("/detail?name=[cC][aA][lL][lL][sS]") == {server_id}
    assert found("/detail?status=ACTIVE") == {server_id, other}
    assert found("/detail?status=SHUTOFF") == set()
    assert found(f"?image={own.image}") == {other}


def test_an_admin_is_told_the_hosts_of_which_a_tenant_sees_the_ids(
    own: Tenant, server_id: str, cloud: Any
) -> None:
    path = "/os-services?binary=nova-compute"
    assert own.connection.compute.get(path, microversion=COMPUTE).status_code == 403
    admin = Tenant(cloud.clouds_yaml, "admin")
    hosts = [
        one["host"]
        for one in admin.connection.compute.get(path, microversion=COMPUTE).json()["services"]
    ]
    (host,) = [
        one for one in hosts if host_id(own.project_id, one) == own.server(server_id)["hostId"]
    ]
    assert admin.server(server_id)["OS-EXT-SRV-ATTR:host"] == host
    admin.close()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"os-start": None},
            (
                409,
                "conflictingRequest",
                "Cannot 'start' instance {} while it is in vm_state active",
            ),
        ),
        (
            {"confirmResize": None},
            (
                409,
                "conflictingRequest",
                "Cannot 'confirmResize' instance {} while it is in vm_state active",
            ),
        ),
        ({"resize": {"flavorRef": "nope"}}, (400, "badRequest", "Flavor nope could not be found.")),
        ({"os-start": None, "os-stop": None}, (400, "badRequest", "Malformed request body")),
    ],
)
def test_actions_are_refused_in_the_same_words(
    own: Tenant, server_id: str, body: Any, expected: Any
) -> None:
    status, key, message = expected
    assert error_of(act(own, server_id, body)) == (status, key, message.format(server_id))


def test_the_same_flavor_is_refused(own: Tenant, server_id: str) -> None:
    refused = error_of(act(own, server_id, {"resize": {"flavorRef": own.flavors["S1.small.1"]}}))
    assert refused == (400, "badRequest", "When resizing, instances must change flavor!")


def test_what_does_not_exist_is_404(own: Tenant, server_id: str) -> None:
    compute, volume = own.connection.compute, own.connection.block_storage
    assert error_of(compute.get(f"/servers/{UNKNOWN}", microversion=COMPUTE)) == (
        404,
        "itemNotFound",
        f"Instance {UNKNOWN} could not be found.",
    )
    assert error_of(volume.get(f"/volumes/{UNKNOWN}", microversion=VOLUME)) == (
        404,
        "itemNotFound",
        f"Volume {UNKNOWN} could not be found.",
    )
    action = compute.get(
        f"/servers/{server_id}/os-instance-actions/req-{UNKNOWN}", microversion=COMPUTE
    )
    assert error_of(action)[:2] == (404, "itemNotFound")


def test_another_tenants_server_is_not_seen(own: Tenant, server_id: str, cloud: Any) -> None:
    other = Tenant(cloud.clouds_yaml, "tenant-b")
    answer = other.connection.compute.get(f"/servers/{server_id}", microversion=COMPUTE)
    assert error_of(answer) == (404, "itemNotFound", f"Instance {server_id} could not be found.")
    assert error_of(act(other, server_id, {"os-stop": None}))[0] == 404
    other.close()


def test_a_locked_server_is_left_alone(own: Tenant, server_id: str) -> None:
    own.act(server_id, {"lock": None})
    assert own.server(server_id)["locked"] is True
    refused = error_of(act(own, server_id, {"os-stop": None}))
    assert refused == (409, "conflictingRequest", f"Instance {server_id} is locked")
    own.act(server_id, {"unlock": None})


def test_metadata_are_set_and_taken_away_one_by_one(own: Tenant) -> None:
    server_id = own.make_server(disk=None)
    compute, path = own.connection.compute, f"/servers/{server_id}/metadata"
    answer = compute.post(path, json={"metadata": {"soft_down": "stopped"}}, microversion=COMPUTE)
    assert (answer.status_code, answer.json()["metadata"]["charge_type"]) == (200, "monthly")
    removed = compute.delete(f"{path}/soft_down", microversion=COMPUTE)
    assert (removed.status_code, own.server(server_id)["metadata"]) == (
        204,
        {"charge_type": "monthly"},
    )
    again = error_of(compute.delete(f"{path}/soft_down", microversion=COMPUTE))
    assert again == (404, "itemNotFound", "Metadata item was not found")


def test_metadata_of_a_server_that_is_locked_or_in_error_stay_as_they_are(
    own: Tenant, cloud: Any
) -> None:
    server_id, admin = own.make_server(disk=None), Tenant(cloud.clouds_yaml, "admin")

    def refused() -> tuple[int, str, str]:
        path, items = f"/servers/{server_id}/metadata", {"metadata": {"a": "b"}}
        return error_of(own.connection.compute.post(path, json=items, microversion=COMPUTE))

    own.act(server_id, {"lock": None})
    assert refused() == (409, "conflictingRequest", f"Instance {server_id} is locked")
    own.act(server_id, {"unlock": None})
    admin.act(server_id, {"os-resetState": {"state": "error"}})
    assert own.server(server_id)["status"] == "ERROR"
    assert refused() == (
        409,
        "conflictingRequest",
        f"Cannot 'update metadata' instance {server_id} while it is in vm_state error",
    )
    admin.act(server_id, {"os-resetState": {"state": "active"}})
    assert own.server(server_id)["status"] == "ACTIVE"
    admin.close()


def test_an_action_is_found_by_the_request_id_of_its_call(own: Tenant, server_id: str) -> None:
    answer = act(own, server_id, {"reboot": {"type": "HARD"}})
    assert answer.status_code == 202
    request_id = answer.headers["x-openstack-request-id"]
    path = f"/servers/{server_id}/os-instance-actions/{request_id}"
    action = own.connection.compute.get(path, microversion=COMPUTE).json()["instanceAction"]
    assert (action["action"], action["request_id"]) == ("reboot", request_id)
    own.wait(
        server_id,
        lambda server: server["status"] == "ACTIVE" and not server["OS-EXT-STS:task_state"],
    )
    action = own.connection.compute.get(path, microversion=COMPUTE).json()["instanceAction"]
    (event,) = action["events"]
    assert (event["event"], event["result"], action["message"]) == (
        "compute_reboot_instance",
        "Success",
        None,
    )
    assert event["finish_time"] is not None


def test_a_resize_is_verified_extended_and_confirmed(own: Tenant) -> None:
    server_id = own.make_server()
    own.act(server_id, {"resize": {"flavorRef": own.flavors["S1.medium.2"]}})
    own.wait(server_id, lambda server: server["status"] == "VERIFY_RESIZE")
    assert own.server(server_id)["flavor"]["original_name"] == "S1.medium.2"
    metadata = own.connection.compute.post(
        f"/servers/{server_id}/metadata", json={"metadata": {"a": "b"}}, microversion=COMPUTE
    )
    assert error_of(metadata)[:2] == (409, "conflictingRequest")
    (volume,) = own.volumes(server_id)
    extended = own.connection.block_storage.post(
        f"/volumes/{volume['id']}/action", json={"os-extend": {"new_size": 12}}, microversion=VOLUME
    )
    assert extended.status_code == 202
    for _ in range(300):
        (volume,) = own.volumes(server_id)
        if volume["status"] != "extending":
            break
    assert (volume["status"], volume["size"]) == ("in-use", 12)
    confirmed = act(own, server_id, {"confirmResize": None})
    assert confirmed.status_code == 204
    server = own.wait(server_id, lambda server: server["status"] != "VERIFY_RESIZE")
    assert (server["status"], server["flavor"]["original_name"]) == ("ACTIVE", "S1.medium.2")
    assert own.actions(server_id) == ["create", "resize", "confirmResize"]
    assert "extend_volume" in own.all_actions(server_id)


def test_a_resize_without_a_host_leaves_only_its_action_log(own: Tenant, server_id: str) -> None:
    answer = act(own, server_id, {"resize": {"flavorRef": own.flavors["too-big-for-any-host"]}})
    assert answer.status_code == 202
    server = own.wait(server_id, lambda server: not server["OS-EXT-STS:task_state"])
    assert (server["status"], server["flavor"]["original_name"]) == ("ACTIVE", "S1.small.1")
    assert "fault" not in server
    path = f"/servers/{server_id}/os-instance-actions/{answer.headers['x-openstack-request-id']}"
    # The log is closed a moment after the server is free again.
    for _ in range(100):
        action = own.connection.compute.get(path, microversion=COMPUTE).json()["instanceAction"]
        if all(one["finish_time"] for one in action["events"]):
            break
    assert action["message"] == "Error"
    failed = {one["event"] for one in action["events"] if one["result"] == "Error"}
    assert failed == {"cold_migrate", "conductor_migrate_server"}


def test_a_resize_that_fails_on_the_host_ends_in_error_and_the_admin_resets_it(
    own: Tenant, cloud: Any
) -> None:
    server_id = own.make_server(name="unlucky", disk=None)
    cloud.fault("virt.finish_migration", match=server_id, error="disk is full", times=1)
    own.act(server_id, {"resize": {"flavorRef": own.flavors["S1.medium.2"]}})
    server = own.wait(server_id, lambda server: server["status"] == "ERROR" and "fault" in server)
    assert "disk is full" in server["fault"]["message"]
    assert error_of(act(own, server_id, {"os-resetState": {"state": "active"}}))[:2] == (
        403,
        "forbidden",
    )
    admin = Tenant(cloud.clouds_yaml, "admin")
    admin.act(server_id, {"os-resetState": {"state": "active"}})
    assert own.server(server_id)["status"] == "ACTIVE"
    admin.close()


def test_a_volume_that_fails_to_grow_says_so(own: Tenant, server_id: str, cloud: Any) -> None:
    _, data = own.volumes(server_id)
    cloud.fault("volume.extend_volume", match=data["id"], error="no space", times=1)
    path = f"/volumes/{data['id']}/action"
    volumes = own.connection.block_storage
    assert (
        volumes.post(path, json={"os-extend": {"new_size": 2}}, microversion=VOLUME).status_code
        == 202
    )
    for _ in range(300):
        _, data = own.volumes(server_id)
        if data["status"] != "extending":
            break
    assert (data["status"], data["size"]) == ("error_extending", 1)
    reset = {"os-reset_status": {"status": "in-use"}}
    assert volumes.post(path, json=reset, microversion=VOLUME).status_code == 403
    admin = Tenant(cloud.clouds_yaml, "admin")
    assert (
        admin.connection.block_storage.post(path, json=reset, microversion=VOLUME).status_code
        == 202
    )
    admin.close()
    assert own.volumes(server_id)[1]["status"] == "in-use"
    smaller = volumes.post(path, json={"os-extend": {"new_size": 1}}, microversion=VOLUME)
    assert error_of(smaller)[:2] == (400, "badRequest")
    assert "New size for extend must be greater than current size" in error_of(smaller)[2]


def test_consoles_are_opened_by_type(own: Tenant, server_id: str) -> None:
    def opened(kind: str) -> Any:
        body = {"remote_console": {"protocol": "vnc", "type": kind}}
        path = f"/servers/{server_id}/remote-consoles"
        return own.connection.compute.post(path, json=body, microversion=COMPUTE)

    console = opened("novnc").json()["remote_console"]
    assert console["type"] == "novnc"
    assert "token" in console["url"]
    assert error_of(opened("xvpvnc")) == (400, "badRequest", "Invalid console type xvpvnc")


def test_flavors_and_limits_have_what_is_read(own: Tenant) -> None:
    flavors = own.connection.compute.get("/flavors/detail", microversion=COMPUTE).json()["flavors"]
    sizes = {one["name"]: (one["vcpus"], one["ram"], one["disk"]) for one in flavors}
    assert sizes["S1.medium.2"] == (2, 4096, 20)
    nova = own.connection.compute.get("/limits", microversion=COMPUTE).json()["limits"]["absolute"]
    assert nova.keys() >= {"maxTotalCores", "totalCoresUsed", "maxTotalRAMSize", "totalRAMUsed"}
    cinder = own.connection.block_storage.get("/limits", microversion=VOLUME).json()["limits"][
        "absolute"
    ]
    assert cinder.keys() >= {"maxTotalVolumeGigabytes", "totalGigabytesUsed"}


def test_changed_volumes_are_listed(own: Tenant, server_id: str) -> None:
    _, data = own.volumes(server_id)
    path = f"/volumes/detail?updated_at=gte:{data['updated_at'][:19]}"
    listed = own.connection.block_storage.get(path, microversion=VOLUME).json()["volumes"]
    assert data["id"] in [one["id"] for one in listed]
    later = own.connection.block_storage.get(
        "/volumes/detail?updated_at=gte:2100-01-01T00:00:00", microversion=VOLUME
    )
    assert later.json()["volumes"] == []


def test_an_injected_error_comes_with_its_status(own: Tenant, server_id: str, cloud: Any) -> None:
    cloud.fault("api.nova", match=f"GET .*{server_id}", error="overloaded", status=503, times=1)
    answer = own.connection.compute.get(f"/servers/{server_id}", microversion=COMPUTE)
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "overloaded")
    assert own.server(server_id)["status"] == "ACTIVE"


async def test_lists_are_read_to_their_last_page(
    cloud: Any, own: Tenant, server_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = {server_id, own.make_server(disk=None), own.make_server(disk=None)}
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(cloud.clouds_yaml))
    calls: list[str] = []
    found = Cloud(
        CloudSettings("ecs-worker", page_size=1), lambda _service, method, *_: calls.append(method)
    )
    project = await found.project(own.project_id)
    assert servers <= {server.id for server in await list_servers(project)}
    assert len(calls) >= 3
    assert {volume.id for volume in await list_volumes(project)} >= {
        one["id"] for one in own.volumes(server_id)
    }
    assert len(await list_flavors(project)) >= 2
    await found.close()


async def test_a_part_of_a_list_tells_whether_there_may_be_more(
    cloud: Any, own: Tenant, server_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = {server_id, own.make_server(disk=None), own.make_server(disk=None)}
    subnet = next(
        one
        for one in own.connection.network.get("/subnets").json()["subnets"]
        if one["id"] == own.subnet()
    )
    body = {"network_id": subnet["network_id"], "name": "few"}
    ports = {own.connection.network.post("/ports", json={"port": body}).json()["port"]["id"]}
    for one in ports:
        own.later("network", f"/ports/{one}")
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(cloud.clouds_yaml))
    found = Cloud(CloudSettings("ecs-worker"), lambda *_: None)
    project, newest = await found.project(own.project_id), SortBy("created_at", descending=True)
    part, more = await list_part(project, newest, 2, None)
    assert (len(part), more) == (2, True)
    whole, more = await list_part(project, newest, 900, None)
    assert (servers <= {one.id for one in whole}, more) == (True, False)
    assert await list_few_ports(project, 1) is None
    listed = await list_few_ports(project, 900)
    assert listed is not None
    assert ports <= {one["id"] for one in listed}
    await found.close()

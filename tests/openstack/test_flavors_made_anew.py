"""Flavors that were deleted and made anew under their old names, on the simulated cloud and on the
real one.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.requester import Requester
from tests.support.orders import carried_out, paid, planned, product_of, reported
from tests.support.tenant import COMPUTE, Tenant

pytestmark = pytest.mark.slow

#: vCPUs, MiB, GiB.
Size = tuple[int, int, int]
OLD: Size = (1, 512, 10)


class OwnFlavor:
    """A flavor of one test's own; an admin may make it anew."""

    def __init__(self, admin: Tenant) -> None:
        self._admin = admin
        self.name = f"remade-{uuid.uuid4().hex[:8]}"
        self.id = ""

    def make(self, size: Size, *, public: bool = True) -> None:
        vcpus, ram, disk = size
        wanted = {
            "name": self.name,
            "vcpus": vcpus,
            "ram": ram,
            "disk": disk,
            "os-flavor-access:is_public": public,
        }
        answer = self._admin.connection.compute.post(
            "/flavors", json={"flavor": wanted}, microversion=COMPUTE
        )
        assert answer.status_code == 200, answer.text
        self.id = answer.json()["flavor"]["id"]

    def give_to(self, tenant: Tenant) -> None:
        body = {"addTenantAccess": {"tenant": tenant.project_id}}
        answer = self._admin.connection.compute.post(
            f"/flavors/{self.id}/action", json=body, microversion=COMPUTE
        )
        assert answer.status_code == 200, answer.text

    def remove(self) -> None:
        answer = self._admin.connection.compute.delete(f"/flavors/{self.id}", microversion=COMPUTE)
        assert answer.status_code == 202, answer.text

    def make_anew(self, size: Size, *, public: bool = True) -> None:
        self.remove()
        self.make(size, public=public)


@pytest.fixture
def flavor(cloud: Any) -> Iterator[OwnFlavor]:
    admin = Tenant(cloud.clouds_yaml, "admin")
    found = OwnFlavor(admin)
    found.make(OLD)
    yield found
    found.remove()
    admin.close()


def make_server(tenant: Tenant, flavor: OwnFlavor, disk: int | None = 10) -> str:
    return tenant.make_server(disk=disk, flavorRef=flavor.id)


def size_of(tenant: Tenant, server_id: str) -> Size:
    found = tenant.server(server_id)["flavor"]
    return found["vcpus"], found["ram"], found["disk"]


def change(server_id: str, *items: tuple[str, str]) -> dict[str, Any]:
    order = paid("changeConfigure", server_id)
    order["productList"][0]["itemList"] = [
        {"code": code, "value": value, "name": code} for code, value in items
    ]
    return order


@pytest.mark.once_on_real
@pytest.mark.parametrize("new", [(2, 512, 10), (1, 1024, 10), (1, 512, 20)])
def test_a_flavor_made_anew_under_its_old_name_is_a_resize(
    requester: Requester, tenant: Tenant, flavor: OwnFlavor, new: Size
) -> None:
    server_id = make_server(tenant, flavor)
    flavor.make_anew(new)
    steps = planned(requester, change(server_id, ("std", flavor.name)))["steps"]
    assert [one["name"] for one in steps] == ["resize", "confirm", "feeData"]
    assert steps[0]["before"] != steps[0]["after"]
    # By its name, and then by its id: then there is nothing left to do.
    for word, changed in ((flavor.name, True), (flavor.id, False)):
        result, _ = carried_out(requester, change(server_id, ("std", word), ("CPU", str(new[0]))))
        assert reported(result) == (200, "success", changed)
        assert size_of(tenant, server_id) == new
    assert tenant.actions(server_id) == ["create", "resize", "confirmResize"]


def test_a_flavor_made_anew_just_as_it_was_is_the_same(
    requester: Requester, tenant: Tenant, flavor: OwnFlavor
) -> None:
    server_id = make_server(tenant, flavor, disk=None)
    flavor.make_anew(OLD)
    result, _ = carried_out(requester, change(server_id, ("std", flavor.name)))
    assert reported(result) == (200, "success", False)
    assert tenant.actions(server_id) == ["create"]


def test_a_flavor_made_anew_for_some_tenants_only_is_there_for_them(
    requester: Requester, tenant: Tenant, flavor: OwnFlavor
) -> None:
    server_id = make_server(tenant, flavor)
    flavor.make_anew((2, 1024, 10), public=False)
    for word in (flavor.name, flavor.id):
        result, _ = carried_out(requester, change(server_id, ("std", word)))
        assert (result.body["code"], result.body["message"]) == ("101.001002", "参数std不符合规范")
    assert size_of(tenant, server_id) == OLD
    flavor.give_to(tenant)
    result, _ = carried_out(requester, change(server_id, ("std", flavor.name)))
    assert reported(result) == (200, "success", True)
    assert size_of(tenant, server_id) == (2, 1024, 10)


def test_an_order_without_a_flavor_is_judged_by_what_the_server_has(
    requester: Requester, tenant: Tenant, flavor: OwnFlavor
) -> None:
    server_id = make_server(tenant, flavor, disk=None)
    flavor.make_anew((2, 1024, 10))
    result, _ = carried_out(requester, change(server_id, ("CPU", "1")))
    assert reported(result) == (200, "success", False)
    result, _ = carried_out(requester, change(server_id, ("CPU", "2")))
    assert (result.body["code"], result.body["message"]) == ("101.001002", "参数CPU不符合规范")
    assert size_of(tenant, server_id) == OLD


def test_a_resize_to_the_old_name_that_finds_no_host_changes_nothing(
    requester: Requester, tenant: Tenant, flavor: OwnFlavor
) -> None:
    server_id = make_server(tenant, flavor)
    flavor.make_anew((2000, 512, 10))
    result, statuses = carried_out(
        requester, change(server_id, ("std", flavor.name), ("sys_EBS_SATA", "20"))
    )
    assert (result.body["code"], result.body["data"]["reason"]) == ("101.001040", "no_host")
    assert reported(result)[1:] == ("fail", False)
    assert statuses[-2:] == ["reverting", "failed"]
    assert size_of(tenant, server_id) == OLD
    assert [one["size"] for one in tenant.volumes(server_id)] == [10]


def test_a_resize_to_the_old_name_is_reverted_where_a_disk_does_not_grow(
    requester: Requester, tenant: Tenant, flavor: OwnFlavor, cloud: Any
) -> None:
    server_id = make_server(tenant, flavor)
    flavor.make_anew((2, 1024, 10))
    (volume,) = tenant.volumes(server_id)
    cloud.fault("volume.extend_volume", match=volume["id"], error="no space", times=1)
    result, _ = carried_out(
        requester, change(server_id, ("std", flavor.name), ("sys_EBS_SATA", "20"))
    )
    assert (result.body["code"], result.body["data"]["reason"]) == ("101.001040", "extend_failed")
    assert reported(result)[1:] == ("fail", False)
    assert product_of(result)["instanceStatus"] == "ACTIVE"
    assert size_of(tenant, server_id) == OLD
    assert "revertResize" in tenant.actions(server_id)

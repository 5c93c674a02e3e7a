"""Whoever names what is another tenant's is told that it does not exist, and nothing is done to it;
on both clouds.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sandbox.broker import PrivateBroker
from sandbox.control_plane import ControlPlane
from sandbox.documents import change_configure
from sandbox.issuer import USER, Issuer
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.openstack.test_images import patch, queued_image
from tests.support.new_orders import new
from tests.support.orders import paid, soft_down
from tests.support.tenant import VOLUME, Tenant
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

NOT_OWNED, UNKNOWN, IMAGE_UNKNOWN, PARAMETER = (
    "101.001013",
    "101.001033",
    "101.003033",
    "101.001002",
)
Cloud = SimulatedOpenStack | ControlPlane


@dataclass(frozen=True, slots=True)
class Victim:
    """Holds what tenant-b has: a paid server with a disk for its system and one for data, and an
    image of its own.
    """

    tenant: Tenant
    server_id: str
    volume_id: str
    image_id: str

    def looks(self) -> Any:
        """All that could have been changed, as the services show it."""
        server = self.tenant.server(self.server_id)
        kept = ("name", "status", "metadata", "tags", "flavor", "OS-EXT-STS:task_state", "updated")
        return (
            {name: server.get(name) for name in kept},
            self.tenant.actions(self.server_id),
            [
                (one["id"], one["size"], one["status"])
                for one in self.tenant.volumes(self.server_id)
            ],
            self.tenant.connection.image.get(f"/images/{self.image_id}").json(),
        )


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
def shop_of_bearers(
    broker: PrivateBroker, cloud: Cloud, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    """A worker that asks for tokens."""
    folder = tmp_path_factory.mktemp("bearers")
    url = broker.add_vhost(folder.name)
    declare(url, topology())
    with Workshop(url, cloud, folder) as found:
        key_set = str(issuer.write(folder / "keys.json"))
        found.worker(ECS_TRUST_PUBLISHERS="false", ECS_JWT_JWKS=key_set)
        yield found


@pytest.fixture(scope="module")
def victim(shop_of_bearers: Workshop) -> Victim:
    return make_victim(shop_of_bearers.tenant("tenant-b"))


def make_victim(tenant: Tenant) -> Victim:
    server_id = tenant.make_server(disk=10, data=(("SSD", 1),))
    image_id = queued_image(tenant)
    patch(tenant, image_id, "name", "victims-image")
    tenant.connection.image.put(f"/images/{image_id}/tags/ECS")
    return Victim(tenant, server_id, tenant.volumes(server_id)[1]["id"], image_id)


@pytest.fixture
def asker(shop_of_bearers: Workshop) -> Iterator[Requester]:
    with Requester(shop_of_bearers.broker_url) as found:
        yield found


@pytest.fixture(scope="module")
def own_server(shop_of_bearers: Workshop) -> str:
    """A server of tenant-a."""
    return shop_of_bearers.tenant().make_server(disk=10, data=(("SSD", 1),))


def ask(asker: Requester, issuer: Issuer, operation: str, **fields: Any) -> Any:
    """The answer to the user of tenant-a."""
    token = issuer.token(project="tenant-a")
    message_id = asker.command(operation, tenant=None, user_id=USER, token=token, **fields)
    return asker.result_of(message_id).body


def changes(cloud: Cloud) -> list[str]:
    """Every call to the simulated cloud that could have changed something; of the real one there is
    no such list.
    """
    listed = cloud.calls() if isinstance(cloud, SimulatedOpenStack) else []
    return [one for one in listed if one.split()[1] != "GET" and not one.startswith("keystone")]


ACTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "os-start": ({"os-start": None}, UNKNOWN),
    "os-stop": ({"os-stop": {"type": "HARD"}}, NOT_OWNED),
    "reboot SOFT": ({"reboot": {"type": "SOFT"}}, UNKNOWN),
    "reboot HARD": ({"reboot": {"type": "HARD"}}, UNKNOWN),
    "os-getVNCConsole": ({"os-getVNCConsole": {"type": "novnc"}}, UNKNOWN),
    "createImage": ({"createImage": {"name": "stolen", "description": ""}}, UNKNOWN),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_no_action_reaches_anothers_server(
    cloud: Cloud, asker: Requester, issuer: Issuer, victim: Victim, action: str
) -> None:
    body, code = ACTIONS[action]
    before, called = victim.looks(), changes(cloud)
    for server_id in (victim.server_id, victim.server_id.upper()):
        answer = ask(asker, issuer, "server.action", server_id=server_id, body=body)
        assert (answer["code"], answer["data"]) == (code, None)
    assert victim.looks() == before
    assert changes(cloud) == called


@pytest.mark.parametrize(
    ("action", "code"), [("os-start", UNKNOWN), ("os-stop", NOT_OWNED), ("reboot", UNKNOWN)]
)
def test_a_batch_with_anothers_server_touches_none(
    cloud: Cloud,
    asker: Requester,
    issuer: Issuer,
    victim: Victim,
    own_server: str,
    action: str,
    code: str,
) -> None:
    before, called = victim.looks(), changes(cloud)
    servers = [{"id": own_server}, {"id": victim.server_id}]
    answer = ask(asker, issuer, "server.batch_action", body={action: {"servers": servers}})
    assert answer["code"] == code
    assert {one["id"]: one["code"] for one in answer["data"]["servers"]}[victim.server_id] == code
    assert victim.looks() == before
    assert changes(cloud) == called


@pytest.mark.parametrize(
    ("operation", "fields"),
    [("server.show", {}), ("server.tags.list", {}), ("server.tags.update", {"tags": "mine"})],
)
def test_anothers_server_is_neither_shown_nor_tagged(
    cloud: Cloud,
    asker: Requester,
    issuer: Issuer,
    victim: Victim,
    operation: str,
    fields: dict[str, Any],
) -> None:
    before, called = victim.looks(), changes(cloud)
    answer = ask(asker, issuer, operation, server_id=victim.server_id, **fields)
    assert answer == {"code": UNKNOWN, "message": f"云服务器{victim.server_id}不存在", "data": None}
    assert victim.looks() == before
    assert changes(cloud) == called


def test_no_list_shows_what_is_anothers(
    asker: Requester, issuer: Issuer, victim: Victim, own_server: str
) -> None:
    everything = ask(asker, issuer, "server.list", pageSize=100)["data"]
    assert own_server in json.dumps(everything)
    for text in (
        json.dumps(everything),
        json.dumps(
            ask(asker, issuer, "server.list", searchField="uuid", searchValue=victim.server_id)[
                "data"
            ]
        ),
        json.dumps(ask(asker, issuer, "image.list", pageSize=100)["data"]),
        json.dumps(ask(asker, issuer, "image.list", searchValue=victim.image_id)["data"]),
        json.dumps(ask(asker, issuer, "image.list", visibility="private")["data"]),
        json.dumps(ask(asker, issuer, "image.list_private", tag="ECS")["data"]),
    ):
        for secret in (victim.server_id, victim.volume_id, victim.image_id, "victims-image"):
            assert secret not in text


@pytest.mark.parametrize(
    ("operation", "fields"),
    [
        ("image.show", {}),
        ("image.delete", {}),
        ("image.update", {"body": [{"op": "replace", "path": "/name", "value": "mine"}]}),
    ],
)
def test_no_operation_reaches_anothers_image(
    cloud: Cloud,
    asker: Requester,
    issuer: Issuer,
    victim: Victim,
    operation: str,
    fields: dict[str, Any],
) -> None:
    before, called = victim.looks(), changes(cloud)
    answer = ask(asker, issuer, operation, image_id=victim.image_id, **fields)
    assert answer == {
        "code": IMAGE_UNKNOWN,
        "message": f"镜像{victim.image_id}不存在",
        "data": None,
    }
    assert victim.looks() == before
    assert changes(cloud) == called


def test_a_batch_deletes_no_image_of_anothers(
    cloud: Cloud, asker: Requester, issuer: Issuer, victim: Victim
) -> None:
    before, called = victim.looks(), changes(cloud)
    answer = ask(asker, issuer, "image.batch_delete", body={"images": [{"id": victim.image_id}]})
    assert [one["code"] for one in answer["data"]["images"]] == [IMAGE_UNKNOWN]
    assert victim.looks() == before
    assert changes(cloud) == called


def order_result(asker: Requester, issuer: Issuer, order: dict[str, Any]) -> Any:
    message_id = asker.order(json.dumps(order | {"token": issuer.token(project="tenant-a")}))
    return asker.order_result_of(message_id, 120).body


def test_no_order_changes_anothers_server(
    cloud: Cloud, asker: Requester, issuer: Issuer, victim: Victim
) -> None:
    before, called = victim.looks(), changes(cloud)
    answer = order_result(
        asker, issuer, json.loads(change_configure(victim.server_id, victim.tenant.image))
    )
    assert answer["code"] == UNKNOWN
    (product_set,) = answer["data"]["productSetList"]
    assert (product_set["productSetStatus"], product_set["resourceChanged"]) == ("fail", False)
    assert product_set["productList"][0]["instanceStatus"] is None, "nothing is told of it"
    assert victim.looks() == before
    assert changes(cloud) == called


@pytest.mark.parametrize("order_type", ["renew", "unsubscribe"])
def test_no_other_order_reaches_anothers_server(
    cloud: Cloud, asker: Requester, issuer: Issuer, victim: Victim, order_type: str
) -> None:
    before, called = victim.looks(), changes(cloud)
    answer = order_result(asker, issuer, paid(order_type, victim.server_id, tenant=None))
    assert answer["code"] == UNKNOWN
    assert answer["data"]["productSetList"][0]["resourceChanged"] is False
    assert victim.looks() == before
    assert changes(cloud) == called


@pytest.mark.parametrize("order_type", ["changeConfigure", "renew", "unsubscribe", "softDown"])
def test_no_plan_tells_of_anothers_server(
    cloud: Cloud, asker: Requester, issuer: Issuer, victim: Victim, order_type: str
) -> None:
    called = changes(cloud)
    order = paid(order_type, victim.server_id, tenant=None)
    if order_type == "softDown":
        order = soft_down((victim.server_id, "delete"))
    answer = ask(asker, issuer, "order.plan", order=order)
    assert answer["data"]["verdict"] == "refused" or answer["data"]["steps"] == []
    for told in ("S1.small.1", victim.volume_id, "ACTIVE"):
        assert told not in json.dumps(answer["data"])
    assert changes(cloud) == called


@pytest.mark.parametrize("what", ["networkId", "subnetId", "image_Linux"])
def test_no_new_server_is_made_with_what_is_anothers(
    cloud: Cloud,
    asker: Requester,
    issuer: Issuer,
    victim: Victim,
    shop_of_bearers: Workshop,
    what: str,
) -> None:
    """Nor of an image or into a network of his."""
    listed = victim.tenant.connection.network.get("/networks").json()["networks"]
    network = next(one for one in listed if one["name"] == "tenant-b-net")
    named = {
        "networkId": network["id"],
        "subnetId": network["subnets"][0],
        "image_Linux": victim.image_id,
    }[what]
    order = new(shop_of_bearers.tenant(), chosen={} if what == "image_Linux" else {what: named})
    for item in order["productList"][0]["itemList"]:
        if item["code"] == what:
            item["value"] = named
    called = changes(cloud)
    answer = order_result(asker, issuer, order)
    assert (answer["code"], answer["message"]) == (PARAMETER, f"参数{what}不符合规范")
    assert changes(cloud) == called


def test_no_order_for_two_servers_changes_one_where_the_other_is_anothers(
    cloud: Cloud,
    asker: Requester,
    issuer: Issuer,
    victim: Victim,
    own_server: str,
    shop_of_bearers: Workshop,
) -> None:
    before, called = victim.looks(), changes(cloud)
    order = json.loads(change_configure(own_server, victim.tenant.image))
    order["productList"].append(order["productList"][0] | {"instanceId": victim.server_id})
    assert order_result(asker, issuer, order)["code"] == UNKNOWN
    assert victim.looks() == before
    assert changes(cloud) == called
    assert shop_of_bearers.tenant().actions(own_server) == ["create"]


@pytest.mark.parametrize("whose", ["attached to another's", "of nobody's server"])
def test_no_order_grows_anothers_volume(
    cloud: Cloud, asker: Requester, issuer: Issuer, victim: Victim, own_server: str, whose: str
) -> None:
    volume_id = victim.volume_id if whose.startswith("attached") else free_volume(victim.tenant)
    before, called = victim.looks(), changes(cloud)
    order = json.loads(change_configure(own_server, victim.tenant.image))
    items = [{"code": "data_EBS_SSD", "value": "2", "name": "", "instanceId": volume_id}]
    order["productList"][0]["itemList"] = items
    answer = order_result(asker, issuer, order)
    assert (answer["code"], answer["message"]) == (PARAMETER, "参数data_EBS_SSD不符合规范")
    assert victim.looks() == before
    assert changes(cloud) == called
    assert volume(victim.tenant, volume_id)["size"] == 1


def free_volume(tenant: Tenant) -> str:
    made = tenant.connection.block_storage.post(
        "/volumes", json={"volume": {"size": 1, "volume_type": "SSD"}}, microversion=VOLUME
    )
    assert made.status_code == 202, made.text
    volume_id: str = made.json()["volume"]["id"]
    tenant.later("block_storage", f"/volumes/{volume_id}")
    return volume_id


def volume(tenant: Tenant, volume_id: str) -> dict[str, Any]:
    found: dict[str, Any] = tenant.connection.block_storage.get(f"/volumes/{volume_id}").json()[
        "volume"
    ]
    return found


def test_what_is_named_by_a_token_of_its_own_tenant_is_reached(
    asker: Requester, issuer: Issuer, victim: Victim
) -> None:
    """All of the above would hold where nothing worked."""
    token = issuer.token(project="tenant-b")
    message_id = asker.command(
        "server.show", tenant=None, user_id=USER, token=token, server_id=victim.server_id
    )
    assert asker.result_of(message_id).body["code"] == 200
    message_id = asker.command(
        "image.show", tenant=None, user_id=USER, token=token, image_id=victim.image_id
    )
    assert asker.result_of(message_id).body["code"] == 200

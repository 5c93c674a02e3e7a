"""Names, tags and descriptions: the worker takes what the services behind it take, and refuses the
rest beforehand.

Each rule of `messages/` is held against the services themselves, on the simulated cloud and on the
real one.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from messages.commands import checked_tags
from messages.fields import WrongValue, resource_name, stored_line
from sandbox.requester import Requester
from tests.openstack.test_views import ask
from tests.support.new_orders import NOTHING, Records, delete_all, new, records
from tests.support.orders import carried_out, publish, reported
from tests.support.tenant import COMPUTE, VOLUME, Tenant

_PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
TEXTS = (
    "web",
    "云服务器",
    "a\u3000b",
    "\ufffd",
    "heart\ufe0f",
    "'; DROP TABLE",
    "x" * 255,
    "smile\U0001f600",
    "\U00020bb7",
    "a\u200bb",
    "a\u200db",
    "\u202eabc",
    "a\u00adb",
    "\ue000",
    "a\u0378b",
    "\uffff",
)


@pytest.fixture
def before(tenant: Tenant) -> Iterator[Records]:
    found = records(tenant)
    yield found
    delete_all(tenant, records(tenant) - found)


def takes(rule: Callable[[], Any]) -> bool:
    try:
        rule()
    except WrongValue:
        return False
    return True


def answered(response: Any, *taken: int) -> bool:
    """Tell whether the service took it; what it does not take is 400, or 500 where only its
    database knows.
    """
    assert response.status_code in (*taken, 400, 500), response.text
    return response.status_code in taken


def test_nova_takes_the_names_of_servers_that_the_worker_takes(tenant: Tenant) -> None:
    body = {"flavorRef": "no-such-flavor", "networks": "none", "imageRef": tenant.image}
    for text in TEXTS:
        wanted = {"server": body | {"name": text}}
        response = tenant.connection.compute.post("/servers", json=wanted, microversion=COMPUTE)
        assert response.status_code == 400
        is_taken = "Flavor no-such-flavor could not be found" in response.text
        assert takes(lambda text=text: resource_name(text)) is is_taken, ascii(text)


def test_neutron_takes_the_names_of_ports_that_the_worker_takes(tenant: Tenant) -> None:
    network = tenant.connection.network
    listed = network.get("/networks").json()["networks"]
    own = next(one["id"] for one in listed if one["name"].startswith("tenant-"))
    for text in TEXTS:
        made = network.post("/ports", json={"port": {"network_id": own, "name": text}})
        if made.status_code == 201:
            network.delete(f"/ports/{made.json()['port']['id']}")
        is_taken = answered(made, 201)
        assert takes(lambda text=text: resource_name(text)) is is_taken, ascii(text)


def test_glance_takes_the_names_and_descriptions_that_the_worker_takes(tenant: Tenant) -> None:
    """Glance takes controls and characters that do not exist, too; the worker takes lines of text."""
    image_id = tenant.make_image("names")
    tenant.later("image", f"/images/{image_id}")
    for text in TEXTS:
        for path in ("/name", "/description"):
            operations = [{"op": "add", "path": path, "value": text}]
            response = tenant.connection.image.patch(
                f"/images/{image_id}", json=operations, headers=_PATCH
            )
            if takes(lambda text=text: stored_line(text)):
                assert response.status_code == 200, ascii(text)
            else:
                assert not answered(response, 200) or text in ("a\u0378b", "\uffff"), ascii(text)


def test_nova_takes_the_tags_that_the_worker_takes(tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=None)
    for tags in (
        ("web", "云服务器", "a\u200bb"),
        ("heart\ufe0f", "heart"),
        ("a\u0301", "a"),
        ("Straße", "Strasse"),
        ("smile\U0001f600",),
        ("Web", "web"),
        ("café", "cafe"),
        ("ÀB", "ab"),
        ("x" * 61,),
    ):
        path = f"/servers/{server_id}/tags"
        response = tenant.connection.compute.put(path, json={"tags": tags}, microversion=COMPUTE)
        assert takes(lambda tags=tags: checked_tags(tags)) is answered(response, 200), tags


def test_cinder_holds_neither_emoji_nor_names_of_more_than_255_characters(tenant: Tenant) -> None:
    for fields in (
        {"name": "smile\U0001f600"},
        {"metadata": {"order_id": "\U0001f600"}},
        {"name": "x" * 256},
    ):
        wanted = {"volume": {"size": 1, "volume_type": "SATA", **fields}}
        response = tenant.connection.block_storage.post(
            "/volumes", json=wanted, microversion=VOLUME
        )
        assert not answered(response, 202), fields


@pytest.mark.parametrize(
    ("chosen", "subject"),
    [
        ({"instanceName": "web-\U0001f600"}, "instanceName"),
        ({"instanceName": "we\u200bb"}, "instanceName"),
        ({"instanceName": "x" * 249}, "instanceName"),
        ({"keyName": "key\u200b"}, "keyName"),
        ({"tags": ["Web", "web"]}, "tags"),
    ],
)
def test_a_new_order_with_a_name_that_no_service_takes_is_refused_at_once(
    requester: Requester, tenant: Tenant, before: Records, chosen: dict[str, Any], subject: str
) -> None:
    result = requester.order_result_of(publish(requester, new(tenant, chosen=chosen)))
    assert (result.body["code"], result.body["message"]) == (
        "101.001002",
        f"参数{subject}不符合规范",
    )
    assert reported(result)[1:] == ("fail", False)
    assert records(tenant) - before == NOTHING


def test_the_longest_name_is_that_of_the_server_and_of_its_disks(
    requester: Requester, tenant: Tenant, before: Records
) -> None:
    name, chosen = "云" * 248, {"tags": ["heart\ufe0f"], "subnetId": tenant.subnet()}
    result, _ = carried_out(requester, new(tenant, chosen={"instanceName": name, **chosen}))
    assert result.body["code"] == 200, result.body
    (server_id,) = (records(tenant) - before).servers
    assert tenant.server(server_id)["name"] == name
    names = [one["name"] for one in tenant.volumes(server_id)]
    assert names == [f"{name}-system", f"{name}-data1"]


@pytest.mark.parametrize(
    ("body", "subject"),
    [
        ({"createImage": {"name": "a\U0001f600", "description": ""}}, "name"),
        ({"createImage": {"name": "a\u200bb", "description": ""}}, "name"),
        ({"createImage": {"name": "a", "description": "\U0001f600"}}, "description"),
        (
            {"createImage": {"name": "a", "description": "", "metadata": {"k": "\U0001f600"}}},
            "metadata",
        ),
    ],
)
def test_an_image_with_a_name_that_nova_does_not_take_is_refused_at_once(
    requester: Requester, tenant: Tenant, body: dict[str, Any], subject: str
) -> None:
    server_id = "00000000-0000-4000-8000-000000000000"
    answer = ask(requester, "server.action", server_id=server_id, body=body)
    assert (answer["code"], answer["message"]) == ("101.001002", f"参数{subject}不符合规范")

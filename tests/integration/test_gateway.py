"""The gateway: a real process, asked over a socket, before a real broker, worker and journal."""

import contextlib
import json
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from openapi_spec_validator import validate

from gateway.openapi import document
from gateway.routes import ROUTES
from messages.commands import Operation
from sandbox.broker import PrivateBroker
from sandbox.documents import change_configure, new_order_id
from sandbox.gateway import GatewayProcess
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support import REPOSITORY
from tests.support.http import IDENTITY, PARAMETER, Site, as_json, gateways, port_of, refused
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology


@pytest.fixture(scope="module")
def site(
    broker: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """One for all tests that leave it well."""
    folder = tmp_path_factory.mktemp("gateway")
    url = broker.add_vhost(folder.name)
    declare(url, topology())
    with Workshop(url, simulated, folder) as workshop, gateways(workshop) as start:
        workshop.worker()
        yield Site(workshop, start())


@pytest.fixture
def start(workshop: Workshop) -> Iterator[Callable[..., GatewayProcess]]:
    """Starts gateways of one test."""
    with gateways(workshop) as found:
        yield found


def test_the_document_is_openapi_and_has_every_operation() -> None:
    validate(document())
    assert {route.operation for route in ROUTES} == set(Operation)


def test_a_servers_life_over_http(site: Site) -> None:
    name = f"http-{uuid.uuid4().hex[:8]}"
    server = site.tenant.make_server(name=name)
    url = f"/v1/servers/{server}"

    page = site.done("GET", f"/v1/servers/1/10?searchField=name&searchValue={name}")
    assert (page["totalCount"], page["servers"][0]["id"]) == (1, server)
    assert site.done("GET", url)["server"]["status"] == "active"

    site.done("POST", f"{url}/tags", params={"tags": "web, 生产"})
    assert set(site.done("GET", f"{url}/tags")["tags"]) == {"web", "生产"}
    site.done("POST", f"{url}/tags", data={"tags": ""})
    assert site.done("GET", f"{url}/tags")["tags"] == []

    site.done("POST", f"{url}/action", json={"os-stop": {}})
    site.tenant.wait(server, lambda one: one["status"] == "SHUTOFF")
    refused(site.ask("POST", f"{url}/action", json={"os-stop": {}}), 400, "101.001012", None)
    site.done("POST", "/v1/servers/action", json={"os-start": {"servers": [{"id": server}]}})
    site.tenant.wait(server, lambda one: one["status"] == "ACTIVE")
    site.done("POST", f"{url}/action", json={"reboot": {"type": "SOFT"}})
    site.tenant.wait(server, lambda one: one["OS-EXT-STS:task_state"] is None)
    shown = site.done("POST", f"{url}/action", json={"os-getVNCConsole": {"type": "novnc"}})
    assert shown["console"]["type"] == "novnc"

    asked = {"createImage": {"name": name, "description": "over HTTP"}}
    made = site.ask("POST", f"{url}/action", json=asked).json()
    assert made["code"] == 201
    image = f"/v1/images/{made['data']['image_id']}"
    eventually(lambda: bool(site.done("GET", image)["status"] == "active"), 60)
    listed = site.done("GET", "/v1/images", json={"searchValue": name, "page": 1, "pageSize": 10})
    assert [one["name"] for one in listed["images"]] == [name]
    private = "/v1/images/private?tag=ECS"
    eventually(lambda: bool(site.done("GET", private)["totalCount"]), 30)
    patch = [{"op": "add", "path": "/description", "value": "another"}]
    assert site.done("PATCH", image, json=patch) == ""
    assert site.done("GET", image)["description"] == "another"
    assert site.done("DELETE", image) == ""
    batch = {"images": [{"id": str(uuid.uuid4())}]}
    for path in ("/v1/images/delete", "/v1/images/action/delete"):
        assert site.done("POST", path, json=batch)["status"] == "删除成功0台,删除失败1台"


def test_an_order_is_planned_submitted_and_followed(site: Site) -> None:
    server = site.tenant.make_server()
    order_id = new_order_id()
    order = change_configure(server, site.tenant.image, order_id=order_id)
    plan = site.done("POST", "/v1/orders/plan", data=order.encode(), headers=as_json())
    assert (plan["verdict"], plan["orderId"]) == ("carried_out", order_id)
    answer = site.ask("POST", "/v1/orders", data=order.encode(), headers=as_json())
    assert answer.status_code == 202
    assert answer.json()["data"]["key"] == order_id
    where = answer.headers["Location"]
    assert where == f"/v1/orders/{order_id}"

    def is_done() -> bool:
        shown = site.ask("GET", where).json()["data"]
        return shown is not None and shown.get("state") == "done"

    eventually(is_done, 60)
    assert site.done("GET", where)["result"]["code"] == 200


def test_an_order_of_another_tenant_or_of_no_kind_is_refused_and_not_published(site: Site) -> None:
    server = site.tenant.make_server()
    order = json.loads(change_configure(server, site.tenant.image).encode())
    project = site.tenant.project_id
    other = site.workshop.tenant("tenant-b").project_id
    for claimed in ("tenant-b", other, "nobody"):
        foreign = site.ask("POST", "/v1/orders", json=order | {"tenant_id": claimed})
        refused(foreign, 401, IDENTITY, None)
    for own in ("tenant-a", project):
        accepted = site.ask("POST", "/v1/orders", json=order | {"tenant_id": own})
        assert accepted.status_code == 202, accepted.text
    for kind in ({}, {"orderType": 5}, {"orderType": "x" * 300}):
        unpaid = {"orderId": new_order_id(), "orderStatus": "unpaid", **kind}
        refused(site.ask("POST", "/v1/orders", json=unpaid), 400, PARAMETER, "orderType")


def test_an_order_for_another_region_or_of_no_project_is_refused_and_not_published(
    site: Site,
) -> None:
    order = json.loads(change_configure(str(uuid.uuid4()), site.tenant.image).encode())
    product = order["productList"][0]
    with Requester(site.workshop.broker_url, order_results=False) as requester:
        dead = requester.depth("ecs.dead")
        for elsewhere in (
            {"region": "another"},
            {"productList": [product | {"region": "another"}]},
        ):
            foreign = site.ask("POST", "/v1/orders", json=order | elsewhere)
            refused(foreign, 400, PARAMETER, "region")
            assert foreign.json()["data"] == {"reason": "region"}
        stranger = site.ask("POST", "/v1/orders", json=order, headers={"X-Tenant-Id": "nobody"})
        refused(stranger, 400, PARAMETER, "tenant_id")
        answered = {one["message_id"]: one for one in _answered(site)}
        told = answered[stranger.headers["X-Request-Id"]]
        assert (told["status"], told["tenant"]) == (400, None)
        # Unpaid ones ask for nothing, wherever.
        unpaid = order | {"region": "another", "orderStatus": "unpaid"}
        assert site.ask("POST", "/v1/orders", json=unpaid).status_code == 202
        time.sleep(1)
        assert requester.depth("ecs.dead") == dead


@pytest.mark.parametrize("fault", [{"held": True}, {"status": 503, "error": "down"}])
def test_an_order_is_taken_although_keystone_is_down(
    workshop: Workshop, start: Callable[..., GatewayProcess], fault: dict[str, Any]
) -> None:
    declare(workshop.broker_url, topology())
    gateway = start()
    order = change_configure(str(uuid.uuid4()), str(uuid.uuid4()))
    url, headers = f"{gateway.url}/v1/orders", as_json(**{"X-Tenant-Id": "tenant-a"})
    workshop.cloud.fault("api.keystone", **fault)
    try:
        answer = requests.post(url, data=order.encode(), headers=headers, timeout=20)
    finally:
        workshop.cloud.clear_faults()
    assert answer.status_code == 202, answer.text
    with Requester(workshop.broker_url, order_results=False) as requester:
        assert requester.depth("ecs.orders") == 1


def test_the_permissions_that_the_page_names_are_enough(
    broker: PrivateBroker, workshop: Workshop, start: Callable[..., GatewayProcess]
) -> None:
    page = (REPOSITORY / "docs" / "operations" / "gateway.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| (`\^ecs-client.*) \|$", page, re.MULTILINE)
    permissions = [one.strip("` ").replace("\\|", "|") for one in re.split(r"(?<!\\)\|", row)]
    user, vhost = f"user-{uuid.uuid4().hex}", workshop.broker_url.rpartition("/")[2]
    broker.rabbitmqctl("add_user", user, "secret")
    broker.rabbitmqctl("set_permissions", "--vhost", vhost, user, *permissions)
    url = workshop.broker_url.replace("guest:guest", f"{user}:secret")
    assert url != workshop.broker_url
    workshop.worker(ECS_REPLY_QUEUES=r"ecs-client\..*")
    site = Site(workshop, start(ECS_BROKER_URL=url))
    assert requests.get(f"{site.gateway.url}/readyz", timeout=10).json()["problems"] == []
    assert site.done("GET", "/v1/servers/1/10")["totalCount"] >= 0
    order = change_configure(str(uuid.uuid4()), site.tenant.image)
    answer = site.ask("POST", "/v1/orders", data=order.encode(), headers=as_json())
    assert answer.status_code == 202, answer.text


def test_an_order_with_other_content_under_a_known_id_is_accepted_and_refused_by_the_worker(
    site: Site,
) -> None:
    server = site.tenant.make_server()
    order_id = new_order_id()
    order = json.loads(change_configure(server, site.tenant.image, order_id=order_id).encode())
    with Requester(site.workshop.broker_url, order_results=False) as requester:
        dead = requester.depth("ecs.dead")
        assert site.ask("POST", "/v1/orders", json=order).status_code == 202
        shown = f"/v1/orders/{order_id}"
        eventually(lambda: site.ask("GET", shown).status_code == 200, 30)
        other = site.ask("POST", "/v1/orders", json=order | {"remark": "another"})
        assert other.status_code == 202
        eventually(lambda: requester.depth("ecs.dead") == dead + 1, 30)
        eventually(lambda: bool(site.done("GET", shown)["state"] == "done"), 60)
        assert site.done("GET", shown)["result"]["code"] == 200
    mine = [one for one in _answered(site) if one.get("order") == order_id]
    assert [one["status"] for one in mine] == [202, 202]


def test_the_same_idempotency_key_gets_the_same_result_and_does_nothing_twice(site: Site) -> None:
    server = site.tenant.make_server()
    key = as_json(**{"Idempotency-Key": f"k-{uuid.uuid4()}"})
    path = f"/v1/servers/{server}/action"
    first = site.ask("POST", path, data=json.dumps({"os-stop": {}}), headers=key)
    again = site.ask("POST", path, data=json.dumps({"os-stop": {}}), headers=key)
    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    assert first.headers["X-Request-Id"] == again.headers["X-Request-Id"] == key["Idempotency-Key"]
    other = site.ask("POST", path, data=json.dumps({"os-start": {}}), headers=key)
    assert other.json()["data"]["reason"] == "conflicting_duplicate"


# What is wrong.


def test_what_is_wrong_is_answered_by_an_envelope_that_names_it(site: Site) -> None:
    action = f"/v1/servers/{uuid.uuid4()}/action"
    wrong = [
        (b"", "body"),
        (b"{", "body"),
        (b'{"os-start": {}, "os-start": {}}', "body"),
        (b'{"os-start": NaN}', "body"),
        (b'\xef\xbb\xbf{"os-start": {}}', "body"),
        (b'{"os-start": {}}, "token": "x"', "body"),
        (b"[" * 40 + b"]" * 40, "body"),
        (b'{"os-start": {}, "os-stop": {}}', "body"),
    ]
    for body, name in wrong:
        refused(site.ask("POST", action, data=body, headers=as_json()), 400, PARAMETER, name)
    form = site.ask("POST", action, data={"os-start": "{}"})
    refused(form, 400, PARAMETER, "content_type")
    packed = as_json(**{"Content-Encoding": "gzip"})
    refused(
        site.ask("POST", action, data=b"{}", headers=packed), 400, PARAMETER, "content_encoding"
    )
    asked = "/v1/servers/2/10"
    for query, name in (
        ("sortOrder=up", "sortOrder"),
        ("pageSize=20", "pageSize"),
        ("page=3", "page"),
        ("searchValue=a&searchValue=b", "searchValue"),
        ("searchValue=%FF", "query"),
        ("searchValue=%00", "searchValue"),
    ):
        refused(site.ask("GET", f"{asked}?{query}"), 400, PARAMETER, name)
    assert site.ask("GET", f"{asked}?pageSize=10&page=2&pageNo=2&unknown=1").status_code == 200
    refused(site.ask("GET", asked, headers={"X-Tenant-Id": None}), 400, PARAMETER, "X-Tenant-Id")
    refused(site.ask("GET", asked, headers={"X-Tenant-Id": "nobody"}), 400, PARAMETER, "tenant_id")
    for key in ("a b", "\u00e9", "x" * 256, ""):
        answer = site.ask("GET", asked, headers={"Idempotency-Key": key})
        refused(answer, 400, PARAMETER, "Idempotency-Key")
        assert answer.headers["X-Request-Id"] != key


def test_another_url_is_404_and_another_method_405(site: Site) -> None:
    for path in (
        "/",
        "/v1",
        "/v1/servers",
        "/v1/servers/1/10/",
        "/v2/images",
        "/static-offline-docs/x",
    ):
        refused(site.ask("GET", path), 404, PARAMETER, "url")
    for method, path, allowed in (
        ("GET", "/v1/servers/action", "POST"),
        ("GET", f"/v1/servers/{uuid.uuid4()}/action", "POST"),
        ("PUT", "/v1/servers/1/10", "GET"),
        ("PUT", f"/v1/images/{uuid.uuid4()}", "DELETE, GET, PATCH"),
        ("DELETE", "/v1/images/private", "GET"),
        ("GET", "/v1/orders", "POST"),
        ("POST", "/v1/orders/178549870045495296", "GET"),
        ("POST", "/openapi.json", "GET"),
        ("DELETE", "/livez", "GET, HEAD"),
    ):
        answer = site.ask(method, path)
        refused(answer, 405, PARAMETER, "method")
        assert set(answer.headers["Allow"].split(", ")) >= set(allowed.split(", "))


def test_a_body_of_more_than_a_mebibyte_is_413_however_it_comes(site: Site) -> None:
    action = f"/v1/servers/{uuid.uuid4()}/action"
    body = b'{"os-start": {}, "more": "' + b"x" * (1024 * 1024) + b'"}'
    refused(site.ask("POST", action, data=body, headers=as_json()), 413, PARAMETER, "body")
    chunks = iter([body[: len(body) // 2], body[len(body) // 2 :]])
    refused(site.ask("POST", action, data=chunks, headers=as_json()), 413, PARAMETER, "body")
    # As large as it may be: the text in it is too long, which is another matter.
    fits = b'{"os-start": {}, "more": "' + b"x" * (1024 * 1024 - 1000) + b'"}'
    refused(site.ask("POST", action, data=fits, headers=as_json()), 400, PARAMETER, "body")


def sent(gateway: GatewayProcess, data: bytes, seconds: float = 30.0) -> bytes:
    """Return what comes back for these bytes, until the gateway closes."""
    with socket.create_connection(("127.0.0.1", port_of(gateway)), timeout=seconds) as one:
        with contextlib.suppress(ConnectionError):
            one.sendall(data)
        found = b""
        with contextlib.suppress(ConnectionError):
            while chunk := one.recv(65536):
                found += chunk
        return found


def test_what_is_no_http_and_headers_without_end_are_answered_and_cut_off(site: Site) -> None:
    for data, status, name in (
        (b"NONSENSE\r\n\r\n", 400, "request"),
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431, "headers"),
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * 400_000, 431, "headers"),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n", 431, "headers"),
    ):
        head, _, body = sent(site.gateway, data).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status), head[:100]
        assert b"X-Request-Id: " in head
        assert json.loads(body)["message"] == f"参数{name}不符合规范"


def test_the_pages_of_the_api_load_what_the_gateway_serves_and_nothing_else(site: Site) -> None:
    served = requests.get(f"{site.gateway.url}/openapi.json", timeout=10).json()
    assert served == json.loads(json.dumps(document()))
    for path in ("/docs", "/redoc"):
        page = requests.get(site.gateway.url + path, timeout=10)
        named = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
        assert named
        assert all(one.startswith("/") for one in named), named
        for one in named:
            assert requests.get(site.gateway.url + one, timeout=10).status_code == 200, one
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]


def test_health_is_told_and_requests_are_counted_without_what_they_say(site: Site) -> None:
    site.ask("GET", f"/v1/servers/{uuid.uuid4()}")
    for path in ("/livez", "/readyz"):
        assert requests.head(site.gateway.url + path, timeout=10).status_code == 200
    shown = site.gateway.metrics()
    assert (
        'ecs_gateway_requests_total{method="GET",route="/v1/servers/{server_id}",status="400"}'
        in shown
    )
    assert "ecs_gateway_broker_up 1.0" in shown
    assert "tenant-a" not in shown
    told = _answered(site)
    assert {"message_id", "operation", "tenant", "status", "seconds"} <= told[-1].keys()


def _answered(site: Site) -> list[dict[str, Any]]:
    """Return what the gateway's log says of answers."""
    told = site.gateway.log.read_text().splitlines()
    lines = [json.loads(one) for one in told if one.startswith("{")]
    return [one for one in lines if one["event"] == "gateway.answered"]

"""The gateway: a real process, asked over a socket, before a real broker, worker and journal."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from gateway.openapi import document
from gateway.routes import ROUTES
from messages.commands import Operation
from sandbox.broker import PrivateBroker
from sandbox.documents import change_configure, new_order_id
from sandbox.gateway import GatewayProcess
from sandbox.openstack import SimulatedOpenStack
from tests.support.workshop import Workshop, eventually
from workers.amqp.topology import declare, topology

PARAMETER, FAILED = "101.001002", "101.001040"


class Site:
    """A worker and a gateway that trust their publishers."""

    def __init__(self, workshop: Workshop, gateway: GatewayProcess) -> None:
        self.workshop = workshop
        self.gateway = gateway
        self.tenant = workshop.tenant()

    def ask(
        self, method: str, path: str, *, tenant: str = "tenant-a", **options: Any
    ) -> requests.Response:
        """Ask as a tenant; the answer is one that the API's document declares."""
        options["headers"] = {"X-Tenant-Id": tenant} | options.get("headers", {})
        answer = requests.request(method, self.gateway.url + path, timeout=60, **options)
        declared(answer, method)
        return answer

    def done(self, method: str, path: str, **options: Any) -> Any:
        """Ask for what succeeds, and return its data."""
        answer = self.ask(method, path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


def declared(answer: requests.Response, method: str) -> None:
    """Check that status, headers and body are as /openapi.json says."""
    path = answer.request.path_url.partition("?")[0]
    found = operation_at(path, method.lower())
    if found is not None:
        said = found["responses"][str(answer.status_code)]
        if "$ref" in said:
            said = document()["components"]["responses"][said["$ref"].rpartition("/")[2]]
        schema = said["content"]["application/json"]["schema"]
    else:
        schema = {"$ref": "#/components/schemas/Failure"}
    whole = schema | {"components": document()["components"]}
    Draft202012Validator(whole).validate(answer.json())
    assert answer.headers["X-Request-Id"]
    assert answer.headers["Content-Type"] == "application/json"


def operation_at(path: str, method: str) -> Any:
    """What the document says of a URL; None where it has none."""
    asked = path.split("/")
    for template, methods in document()["paths"].items():
        parts = template.split("/")
        if len(parts) == len(asked) and all(map(fits, parts, asked)) and method in methods:
            return methods[method]
    return None


def fits(part: str, asked: str) -> bool:
    return part.startswith("{") or part == asked


@pytest.fixture(scope="module")
def site(
    broker: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("gateway")
    url = broker.add_vhost(folder.name)
    declare(url, topology())
    with Workshop(url, simulated, folder) as workshop:
        workshop.worker()
        gateway = GatewayProcess(workshop.settings, folder).start()
        try:
            yield Site(workshop, gateway)
        finally:
            gateway.stop()


def refused(answer: requests.Response, status: int, code: str, parameter: str | None) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json()["code"] == code
    if parameter is not None:
        assert answer.json()["message"] == f"参数{parameter}不符合规范"


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


def as_json(**headers: str) -> dict[str, str]:
    return {"Content-Type": "application/json", **headers}


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

"""What tests ask a gateway with, over a socket."""

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import requests
from jsonschema import Draft202012Validator

from gateway.openapi import document
from sandbox.gateway import GatewayProcess
from tests.support.workshop import Workshop

PARAMETER, FAILED, IDENTITY = "101.001002", "101.001040", "101.001401"


class Site:
    """A worker and a gateway; `own` are the headers that say who asks."""

    own: Mapping[str, str] = {"X-Tenant-Id": "tenant-a"}

    def __init__(self, workshop: Workshop, gateway: GatewayProcess) -> None:
        self.workshop = workshop
        self.gateway = gateway
        self.tenant = workshop.tenant()

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """Ask; the answer is one that the API's document declares."""
        given = {**self.own} | options.get("headers", {})
        options["headers"] = {name: value for name, value in given.items() if value is not None}
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


@contextlib.contextmanager
def gateways(workshop: Workshop) -> Iterator[Callable[..., GatewayProcess]]:
    """Starts gateways, and ends them."""
    with contextlib.ExitStack() as stack:

        def start(*, wait: bool = True, **settings: str) -> GatewayProcess:
            name = f"gateway-{uuid.uuid4().hex[:8]}"
            gateway = GatewayProcess(workshop.settings | settings, workshop.folder, name)
            stack.callback(gateway.stop)
            return gateway.start(wait=wait)

        yield start


def refused(answer: requests.Response, status: int, code: str, parameter: str | None) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json()["code"] == code
    if parameter is not None:
        assert answer.json()["message"] == f"参数{parameter}不符合规范"


def as_json(**headers: str) -> dict[str, str]:
    return {"Content-Type": "application/json", **headers}


def port_of(gateway: GatewayProcess) -> int:
    return int(gateway.url.rpartition(":")[2])

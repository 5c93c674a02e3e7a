"""Holds what tests ask a gateway with, over a socket."""

import contextlib
import json
import socket
import threading
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
    """Return what the document says of a URL; None where it has none."""
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


class EventReader:
    """A stream of events, read in a thread; a context manager."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.answer = requests.get(url, headers=headers, stream=True, timeout=(10, 60))
        #: (event, id, data) in the order in which they came; a comment is the event None.
        self.heard: list[tuple[str | None, str | None, Any]] = []
        self.has_ended = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def updates(self) -> list[dict[str, Any]]:
        """The updates so far."""
        return [data for event, _, data in self.heard if event == "update"]

    def ids(self) -> list[str | None]:
        """The ids of the updates so far."""
        return [one for event, one, _ in self.heard if event == "update"]

    def notices(self, name: str) -> list[str]:
        """The reasons of these events."""
        return [data["reason"] for event, _, data in self.heard if event == name]

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(Exception):
            self.answer.raw._fp.fp.raw._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self.answer.close()

    def _read(self) -> None:
        fields: dict[str, str] = {}
        with contextlib.suppress(requests.RequestException, AttributeError, OSError):
            for line in self.answer.iter_lines(chunk_size=1, decode_unicode=False):
                name, _, value = line.decode().partition(": ")
                if name == "" and value:
                    self.heard.append((None, None, value))
                elif name:
                    fields[name] = value
                elif "data" in fields:
                    data = json.loads(fields["data"])
                    self.heard.append((fields.get("event"), fields.get("id"), data))
                    fields = {}
        self.has_ended = True

    def __enter__(self) -> "EventReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

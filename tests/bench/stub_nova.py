"""Keystone and Nova that answer at once and do nothing: what is measured beside them is the caller.

python -m tests.bench.stub_nova PORT
"""

import json
import re
import sys
import time
from typing import Any

import uvicorn

PROJECT = "0" * 31 + "1"
_ACTION = re.compile(r"/compute/v2\.1/servers/([0-9a-f-]{36})/action")
_SERVER = re.compile(r"/compute/v2\.1/servers/([0-9a-f-]{36})")


class StubNova:
    """An ASGI application. A server exists as soon as somebody asks for it; it is ACTIVE and never
    busy.
    """

    def __init__(self, url: str) -> None:
        self._acted: dict[str, float] = {}
        self._token = json.dumps(_token(url)).encode()
        self._flat = {
            "/identity/v3": json.dumps(_keystone(url)).encode(),
            "/compute/v2.1": json.dumps(_nova(url)).encode(),
            "/identity/v3/auth/projects": json.dumps({"projects": [_PROJECT]}).encode(),
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        status, body, headers = self._answer(scope["method"], scope["path"].rstrip("/"))
        headers += [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, method: str, path: str) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        headers = [(b"x-openstack-request-id", b"req-00000000-0000-4000-8000-000000000000")]
        if path == "/identity/v3/auth/tokens":
            return 201, self._token, [*headers, (b"x-subject-token", b"stub")]
        if method == "POST" and (found := _ACTION.fullmatch(path)):
            self._acted[found[1]] = time.monotonic()
            return 202, b"", headers
        if path == "/compute/v2.1/servers/detail":
            return 200, json.dumps({"servers": self._changed()}).encode(), headers
        if found := _SERVER.fullmatch(path):
            return 200, json.dumps({"server": _server(found[1])}).encode(), headers
        return (200, self._flat[path], headers) if path in self._flat else (404, b"{}", headers)

    def _changed(self) -> list[dict[str, Any]]:
        """What was acted on in the last seconds."""
        oldest = time.monotonic() - 3
        self._acted = {one: at for one, at in self._acted.items() if at > oldest}
        return [_server(one) for one in self._acted]


_PROJECT = {"id": PROJECT, "name": "tenant-a", "domain_id": "default"}


def _server(server_id: str) -> dict[str, Any]:
    return {
        "id": server_id,
        "name": "stub",
        "status": "ACTIVE",
        "tenant_id": PROJECT,
        "user_id": PROJECT,
        "created": "2026-11-23T10:00:00Z",
        "updated": "2026-11-23T10:00:00Z",
        "hostId": "",
        "image": "",
        "flavor": {
            "vcpus": 1,
            "ram": 1024,
            "disk": 10,
            "ephemeral": 0,
            "swap": 0,
            "original_name": "S1.small.1",
            "extra_specs": {},
        },
        "metadata": {"charge_type": "monthly"},
        "addresses": {},
        "key_name": None,
        "locked": False,
        "tags": [],
        "links": [{"rel": "self", "href": "http://127.0.0.1/"}],
        "description": None,
        "config_drive": "",
        "OS-EXT-STS:task_state": None,
        "OS-EXT-STS:vm_state": "active",
        "OS-EXT-STS:power_state": 1,
        "OS-DCF:diskConfig": "MANUAL",
        "OS-EXT-AZ:availability_zone": "nova",
        "accessIPv4": "",
        "accessIPv6": "",
        "os-extended-volumes:volumes_attached": [],
    }


def _token(url: str) -> dict[str, Any]:
    def service(kind: str, path: str) -> dict[str, Any]:
        endpoint = {
            "id": kind,
            "interface": "public",
            "region": "RegionOne",
            "region_id": "RegionOne",
        }
        return {
            "id": kind,
            "type": kind,
            "name": kind,
            "endpoints": [endpoint | {"url": url + path}],
        }

    return {
        "token": {
            "methods": ["password"],
            "is_domain": False,
            "roles": [{"id": "m", "name": "member"}],
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "expires_at": "2099-01-01T00:00:00.000000Z",
            "user": {
                "id": "u",
                "name": "ecs-worker",
                "domain": {"id": "default", "name": "Default"},
            },
            "project": {
                "id": PROJECT,
                "name": "tenant-a",
                "domain": {"id": "default", "name": "Default"},
            },
            "catalog": [service("identity", "/identity/v3"), service("compute", "/compute/v2.1")],
        }
    }


def _keystone(url: str) -> dict[str, Any]:
    links = [{"rel": "self", "href": f"{url}/identity/v3/"}]
    return {"version": {"id": "v3.14", "status": "stable", "links": links}}


def _nova(url: str) -> dict[str, Any]:
    links = [{"rel": "self", "href": f"{url}/compute/v2.1/"}]
    return {
        "version": {
            "id": "v2.1",
            "status": "CURRENT",
            "version": "2.104",
            "min_version": "2.1",
            "links": links,
        }
    }


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(
        StubNova(f"http://127.0.0.1:{port}"),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
        lifespan="off",
    )

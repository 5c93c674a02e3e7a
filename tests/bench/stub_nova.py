"""Keystone and Nova that answer at once, or after so many seconds, and do nothing: what is measured
beside them is the caller. The other services have nothing to show.

A server exists as soon as somebody asks for it, ACTIVE and never busy, until it is resized: that
goes on for ever. `GET /calls` counts the calls so far, and those servers. Projects are named `tenant-a`, and
`tenant-0` and so on.

python -m tests.bench.stub_nova PORT [SECONDS]
"""

import asyncio
import json
import re
import sys
import time
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Any
from urllib.parse import parse_qs

import uvicorn

_ACTION = re.compile(r"/compute/v2\.1/servers/([0-9a-f-]{36})/action")
_SERVER = re.compile(r"/compute/v2\.1/servers/([0-9a-f-]{36})")
#: Seconds for which a server that was rebooted is listed as changed.
_RECENT = 120.0
#: Servers in one page of a list, as in Nova.
_PAGE = 1000
#: Projects beside `tenant-a`.
_PROJECTS = 1000


class StubNova:
    """An ASGI application."""

    def __init__(self, url: str, seconds: float = 0.0) -> None:
        #: When each server was acted on (Unix seconds), and its project, in that order.
        self._acted: dict[str, tuple[float, str]] = {}
        self._resizing: set[str] = set()
        self._stopped: set[str] = set()
        #: That every answer takes, but Keystone's.
        self._seconds = seconds
        self._calls = 0
        self._url = url
        self._flat = {
            "/identity/v3": json.dumps(_keystone(url)).encode(),
            "/compute/v2.1": json.dumps(_nova(url)).encode(),
            "/identity/v3/auth/projects": json.dumps({"projects": _projects()}).encode(),
            "/compute/v2.1/flavors/detail": json.dumps({"flavors": _FLAVORS}).encode(),
            "/compute/v2.1/limits": b'{"limits": {"rate": [], "absolute": {}}}',
            "/volume/v3": json.dumps(_cinder(url)).encode(),
            "/image": json.dumps(_versions(f"{url}/image/v2/", "v2.9")).encode(),
            "/network": json.dumps(_versions(f"{url}/network/v2.0/", "v2.0")).encode(),
        }
        for path, name in _EMPTY.items():
            self._flat[path] = json.dumps({name: []}).encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        content = b""
        while True:
            event = await receive()
            content += event.get("body", b"")
            if not event.get("more_body"):
                break
        status, body, headers = self._answer(scope, content)
        if self._seconds and not scope["path"].startswith(("/identity", "/calls")):
            await asyncio.sleep(self._seconds)
        headers += [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, scope: Any, content: bytes) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        method, path = scope["method"], scope["path"].rstrip("/")
        if path == "/calls":
            counts = {"calls": self._calls, "resizing": len(self._resizing)}
            return 200, json.dumps(counts).encode(), []
        self._calls += 1
        headers = [(b"x-openstack-request-id", b"req-00000000-0000-4000-8000-000000000000")]
        # The token is the project's id.
        project = next(
            (value.decode() for key, value in scope["headers"] if key == b"x-auth-token"), ""
        )
        if path == "/identity/v3/auth/tokens":
            scope_of = json.loads(content)["auth"].get("scope", {}).get("project", {})
            project = scope_of.get("id") or _id_of(scope_of.get("name", "tenant-a"))
            token = json.dumps(_token(self._url, project)).encode()
            return 201, token, [*headers, (b"x-subject-token", project.encode())]
        if method == "POST" and (found := _ACTION.fullmatch(path)):
            self._act(found[1], project, content)
            return 202, b"", headers
        if path == "/compute/v2.1/servers/detail":
            query = parse_qs(scope["query_string"].decode())
            return 200, json.dumps(self._listed(project, query)).encode(), headers
        if found := _SERVER.fullmatch(path):
            body = json.dumps({"server": self._server(found[1], project)})
            return 200, body.encode(), headers
        return (200, self._flat[path], headers) if path in self._flat else (404, b"{}", headers)

    def _act(self, server_id: str, project: str, content: bytes) -> None:
        oldest = time.time() - _RECENT
        for one, (at, _) in tuple(islice(self._acted.items(), 2)):
            if at < oldest and one not in self._resizing:
                del self._acted[one]
        self._acted.pop(server_id, None)
        self._acted[server_id] = time.time(), project
        if b'"resize"' in content:
            self._resizing.add(server_id)
        if b'"os-stop"' in content:
            self._stopped.add(server_id)

    def _listed(self, project: str, query: dict[str, list[str]]) -> dict[str, Any]:
        """Return a page of what was acted on, as Nova does: since a time, after a marker."""
        since = (
            datetime.fromisoformat(query["changes-since"][0]).timestamp()
            if "changes-since" in query
            else 0.0
        )
        newer = takewhile(lambda item: item[1][0] >= since, reversed(self._acted.items()))
        names = [one for one, (_, of) in newer if of == project][::-1]
        if "marker" in query:
            names = names[names.index(query["marker"][0]) + 1 :]
        page = {"servers": [self._server(one, project) for one in names[:_PAGE]]}
        if len(names) > _PAGE:
            page["servers_links"] = [{"rel": "next", "href": f"{self._url}/"}]
        return page

    def _server(self, server_id: str, project: str) -> dict[str, Any]:
        at, _ = self._acted.get(server_id, (0.0, ""))
        server = _SERVER_BODY | {"id": server_id, "tenant_id": project}
        if at:
            server["updated"] = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if server_id in self._stopped:
            server["status"] = "SHUTOFF"
        if server_id in self._resizing:
            server |= {"status": "RESIZE", "OS-EXT-STS:task_state": "resize_migrating"}
        return server


def _id_of(name: str) -> str:
    number = name.removeprefix("tenant-")
    return f"{1 if number == 'a' else int(number) + 2:032d}"


def _projects() -> list[dict[str, str]]:
    names = ["tenant-a", *(f"tenant-{one}" for one in range(_PROJECTS))]
    return [{"id": _id_of(one), "name": one, "domain_id": "default"} for one in names]


_FLAVORS = [
    {
        "id": name,
        "name": name,
        "vcpus": vcpus,
        "ram": ram,
        "disk": 10,
        "OS-FLV-EXT-DATA:ephemeral": 0,
        "swap": "",
        "os-flavor-access:is_public": True,
        "extra_specs": {},
    }
    for name, vcpus, ram in (("S1.small.1", 1, 1024), ("S1.medium.1", 2, 2048))
]

#: Lists with nothing in them, by their paths.
_EMPTY = {
    "/volume/v3/volumes/detail": "volumes",
    "/image/v2/images": "images",
    "/network/v2.0/ports": "ports",
    "/network/v2.0/routers": "routers",
    "/network/v2.0/subnets": "subnets",
    "/network/v2.0/floatingips": "floatingips",
}

_SERVER_BODY: dict[str, Any] = {
    "name": "stub",
    "status": "ACTIVE",
    "user_id": "u",
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


def _token(url: str, project: str) -> dict[str, Any]:
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
                "id": project,
                "name": project,
                "domain": {"id": "default", "name": "Default"},
            },
            "catalog": [
                service("identity", "/identity/v3"),
                service("compute", "/compute/v2.1"),
                service("block-storage", "/volume/v3"),
                service("image", "/image"),
                service("network", "/network"),
            ],
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


def _cinder(url: str) -> dict[str, Any]:
    links = [{"rel": "self", "href": f"{url}/volume/v3/"}]
    return {
        "version": {
            "id": "v3.0",
            "status": "CURRENT",
            "version": "3.70",
            "min_version": "3.0",
            "links": links,
        }
    }


def _versions(url: str, name: str) -> dict[str, Any]:
    links = [{"rel": "self", "href": url}]
    return {"versions": [{"id": name, "status": "CURRENT", "links": links}]}


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(
        StubNova(f"http://127.0.0.1:{port}", *map(float, sys.argv[2:3])),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
        lifespan="off",
    )

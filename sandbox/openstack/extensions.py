"""Extensions and microversions that the simulated cloud can be told to be without.

Its answers then are those of the real services.
"""

import re

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sandbox.openstack.state import World

#: What Neutron's extensions add, by their aliases: collections, and fields of what there is anyway.
_PATHS = {
    "router": re.compile(r"/v2\.0/(routers|floatingips)\b"),
    "qos": re.compile(r"/v2\.0/qos/"),
    "security-group": re.compile(r"/v2\.0/security-group"),
    "quota_details": re.compile(r"/v2\.0/quotas/[^/]+/details"),
}
_FIELDS = {
    "external-net": "router:external",
    "standard-attr-tag": "tags",
    "standard-attr-timestamp": "created_at",
    "security-group": "security_groups",
}
#: The microversions of what is simulated: the oldest and the newest.
_VERSIONS = {"nova": ("2.1", "2.104"), "cinder": ("3.0", "3.71")}
_HEADER = "openstack-api-version"
NOT_FOUND = {"type": "HTTPNotFound", "message": "The resource could not be found.", "detail": ""}


def refusal(world: World, service: str, request: Request) -> Response | None:
    """Answer a call of something that the cloud is without; None where it has it."""
    if service == "neutron":
        path = request.url.path
        is_missing = any(_PATHS[one].search(path) for one in world.without & _PATHS.keys())
        return JSONResponse({"NeutronError": NOT_FOUND}, 404) if is_missing else None
    if service in _VERSIONS:
        return _too_new(world, service, request)
    return None


def offered(world: World) -> list[dict[str, object]]:
    """List the extensions as Neutron does; the real control plane has no QoS, either."""
    aliases = {*_PATHS, *_FIELDS} - {"qos"} - world.without
    updated = "2012-01-01T10:00:00-00:00"
    shown: dict[str, object] = {"description": "", "updated": updated, "links": []}
    return [{"alias": one, "name": one, **shown} for one in sorted(aliases)]


def shown_fields(world: World, thing: dict[str, object]) -> dict[str, object]:
    """Show a thing as Neutron does without these extensions."""
    hidden = missing_fields(world)
    return {name: value for name, value in thing.items() if name not in hidden}


def missing_fields(world: World) -> set[str]:
    """Return the fields that the missing extensions would add."""
    return {field for one, field in _FIELDS.items() if one in world.without}


def newest(world: World, service: str) -> str:
    """Return the newest microversion of Nova or Cinder."""
    return world.newest.get(service, _VERSIONS[service][1])


def _too_new(world: World, service: str, request: Request) -> Response | None:
    wanted, limit = request.headers.get(_HEADER, "").split(" ")[-1], newest(world, service)
    if not re.fullmatch(r"\d+\.\d+", wanted) or _order(wanted) <= _order(limit):
        return None
    oldest = _VERSIONS[service][0]
    said = f"Version {wanted} is not supported by the API. "
    said += f"Minimum is {oldest} and maximum is {limit}."
    # Cinder calls it a fault of compute, too.
    return JSONResponse({"computeFault": {"code": 406, "message": said}}, 406)


def _order(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))

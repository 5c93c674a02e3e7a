"""Neutron: networks, subnets, ports, routers and floating IPs, as far as they are looked at and
made.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.openstack import extensions, quotas
from sandbox.openstack.nets import Nets, Thing
from sandbox.openstack.state import Project, World
from sandbox.openstack.texts import check_neutron_name
from sandbox.openstack.wire import ApiError, Caller, body_of, caller, page_of, root_of

#: Filters that a list understands; all else of a query is paging.
_FILTERS = (
    "id",
    "name",
    "description",
    "device_id",
    "device_owner",
    "network_id",
    "project_id",
    "port_id",
    "router:external",
)


class Neutron:
    """The part of the API that is called."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        """The handler of each call."""
        nets = self._world.nets
        return [
            Route("/", self.versions),
            *self._collection("networks", nets.networks),
            *self._collection("subnets", nets.subnets),
            *self._collection("ports", nets.ports),
            *self._collection("routers", nets.routers),
            *self._collection("floatingips", nets.floating_ips),
            *self._collection("security-groups", nets.security_groups),
            Route("/v2.0/floatingips/{floating_ip_id}", self.associate, methods=["PUT"]),
            Route("/v2.0/quotas/{project_id}/details.json", self.quotas),
            Route("/v2.0/quotas/{project_id}", self.set_quotas, methods=["PUT"]),
            Route("/v2.0/extensions", self.extensions),
            Route("/v2.0/{path:path}", self.unknown, methods=["GET", "POST", "PUT", "DELETE"]),
        ]

    async def versions(self, request: Request) -> Response:
        base = root_of(request)
        version = {
            "id": "v2.0",
            "status": "CURRENT",
            "links": [{"rel": "self", "href": f"{base}/v2.0/"}],
        }
        return JSONResponse({"versions": [version]})

    async def extensions(self, request: Request) -> Response:
        caller(request)
        return JSONResponse({"extensions": extensions.offered(self._world)})

    async def unknown(self, request: Request) -> Response:
        caller(request)
        return JSONResponse({"NeutronError": extensions.NOT_FOUND}, 404)

    async def associate(self, request: Request) -> Response:
        wanted = (await body_of(request))["floatingip"]
        found = self._world.nets.floating_ips.get(request.path_params["floating_ip_id"])
        if found is None or not _may_see(found, caller(request)):
            raise ApiError(
                404, f"Floating IP {request.path_params['floating_ip_id']} could not be found"
            )
        port = self._world.nets.ports.get(wanted["port_id"] or "")
        found["port_id"] = wanted["port_id"]
        found["fixed_ip_address"] = port["fixed_ips"][0]["ip_address"] if port else None
        return JSONResponse({"floatingip": found})

    async def quotas(self, request: Request) -> Response:
        project = self._world.projects[request.path_params["project_id"]]
        caller(request)
        return JSONResponse({"quota": {"port": quotas.port_quota(self._world, project)}})

    async def set_quotas(self, request: Request) -> Response:
        refusal = "rule:update_quota is disallowed by policy"
        return JSONResponse({"quota": await quotas.change(self._world, request, "quota", refusal)})

    def _make_port(self, project: Project, fields: dict[str, Any]) -> Thing:
        nets = self._world.nets
        if fields["network_id"] not in nets.networks:
            raise ApiError(404, f"Network {fields['network_id']} could not be found.")
        for one in fields.get("fixed_ips") or ():
            if one["subnet_id"] not in nets.subnets:
                raise ApiError(404, f"Subnet {one['subnet_id']} could not be found.")
        for group in fields.get("security_groups") or ():
            if group not in nets.security_groups:
                raise ApiError(404, f"Security group {group} does not exist")
        check_neutron_name(fields.get("name", ""))
        quotas.check_port(self._world, project)
        return nets.add_port(project.id, device_id="", owner="", **{"status": "DOWN", **fields})

    def _collection(self, name: str, things: dict[str, Thing]) -> list[Route]:
        return [
            Route(f"/v2.0/{name}", self._lister(name, things)),
            Route(
                f"/v2.0/{name}",
                self._maker(name.removesuffix("s").replace("-", "_")),
                methods=["POST"],
            ),
            Route(f"/v2.0/{name}/{{thing_id}}", self._remover(things), methods=["DELETE"]),
        ]

    def _lister(
        self, name: str, things: dict[str, Thing]
    ) -> Callable[[Request], Awaitable[Response]]:
        nets = self._world.nets

        async def listed(request: Request) -> Response:
            who = caller(request)
            nets.groups_of(who.project.id)
            if wrong := sorted(extensions.missing_fields(self._world) & set(request.query_params)):
                raise ApiError(400, f"{wrong} is invalid attribute for filtering")
            found = [
                one for one in things.values() if _may_see(one, who) and _is_wanted(one, request)
            ]
            page, marker = page_of(found, request)
            back = request.url.include_query_params(page_reverse="True")
            links = (
                [{"rel": "previous", "href": str(back)}]
                if page and "limit" in request.query_params
                else []
            )
            if marker:
                links.insert(
                    0, {"rel": "next", "href": str(request.url.include_query_params(marker=marker))}
                )
            called = name.replace("-", "_")
            shown = [extensions.shown_fields(self._world, one) for one in page]
            return JSONResponse({called: shown} | ({f"{called}_links": links} if links else {}))

        return listed

    def _maker(self, kind: str) -> Callable[[Request], Awaitable[Response]]:
        async def made(request: Request) -> Response:
            fields, project = (await body_of(request))[kind], caller(request).project
            nets = self._world.nets
            makers: dict[str, Callable[[], Thing]] = {
                "network": lambda: nets.add_network(project.id, fields.get("name", "")),
                "subnet": lambda: nets.add_subnet(
                    project.id, fields["network_id"], fields.get("name", ""), fields["cidr"]
                ),
                "port": lambda: self._make_port(caller(request).project, fields),
                "security_group": lambda: nets.add_group(project.id, fields["name"]),
                "floatingip": lambda: nets.add_floating_ip(
                    project.id,
                    fields["floating_network_id"],
                    fields.get("port_id"),
                    fields.get("description", ""),
                ),
            }
            if kind not in makers:
                raise ApiError(404, "The resource could not be found.")
            return JSONResponse({kind: makers[kind]()}, 201)

        return made

    def _remover(self, things: dict[str, Thing]) -> Callable[[Request], Awaitable[Response]]:
        async def removed(request: Request) -> Response:
            found = things.get(request.path_params["thing_id"])
            if found is None or not _may_see(found, caller(request)):
                raise ApiError(404, f"{request.path_params['thing_id']} could not be found")
            _check_unused(self._world.nets, found["id"])
            self._world.nets.remove(found["id"])
            return Response(status_code=204)

        return removed


def _check_unused(nets: Nets, network_id: str) -> None:
    ports = [one["id"] for one in nets.ports.values() if one["network_id"] == network_id]
    if network_id in nets.networks and ports:
        raise ApiError(
            409,
            f"Unable to complete operation on network {network_id}. There are one or more ports still in use on the "
            f"network, id for these ports is: {','.join(ports)}.",
            kind="NetworkInUse",
        )


def _may_see(thing: Thing, who: Caller) -> bool:
    return (
        who.is_admin or thing["project_id"] == who.project.id or bool(thing.get("router:external"))
    )


def _is_wanted(thing: Thing, request: Request) -> bool:
    wanted = {
        name: request.query_params.getlist(name)
        for name in _FILTERS
        if name in request.query_params
    }
    return all(_written(thing.get(name)) in values for name, values in wanted.items())


def _written(value: Any) -> Any:
    return str(value) if isinstance(value, bool) else value

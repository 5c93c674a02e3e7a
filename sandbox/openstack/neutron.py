"""Neutron: networks, subnets, ports, routers and floating IPs, as far as they are looked at and made."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.openstack.nets import Thing
from sandbox.openstack.state import World
from sandbox.openstack.wire import ApiError, Caller, body_of, caller, page_of, root_of

#: Filters that a list understands; all else of a query is paging.
_FILTERS = ("id", "name", "device_id", "device_owner", "network_id", "project_id", "port_id")


class Neutron:
    """The part of the API that is called."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        """Where each call goes."""
        nets = self._world.nets
        return [
            Route("/", self.versions),
            *self._collection("networks", nets.networks),
            *self._collection("subnets", nets.subnets),
            *self._collection("ports", nets.ports),
            *self._collection("routers", nets.routers),
            *self._collection("floatingips", nets.floating_ips),
        ]

    async def versions(self, request: Request) -> Response:
        base = root_of(request)
        version = {"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": f"{base}/v2.0/"}]}
        return JSONResponse({"versions": [version]})

    def _collection(self, name: str, things: dict[str, Thing]) -> list[Route]:
        return [
            Route(f"/v2.0/{name}", self._lister(name, things)),
            Route(f"/v2.0/{name}", self._maker(name.removesuffix("s")), methods=["POST"]),
            Route(f"/v2.0/{name}/{{thing_id}}", self._remover(things), methods=["DELETE"]),
        ]

    def _lister(self, name: str, things: dict[str, Thing]) -> Callable[[Request], Awaitable[Response]]:
        async def listed(request: Request) -> Response:
            who = caller(request)
            found = [one for one in things.values() if _may_see(one, who) and _is_wanted(one, request)]
            page, marker = page_of(found, request)
            back = request.url.include_query_params(page_reverse="True")
            links = [{"rel": "previous", "href": str(back)}] if page and "limit" in request.query_params else []
            if marker:
                links.insert(0, {"rel": "next", "href": str(request.url.include_query_params(marker=marker))})
            return JSONResponse({name: page} | ({f"{name}_links": links} if links else {}))

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
                "floatingip": lambda: nets.add_floating_ip(
                    project.id, fields["floating_network_id"], fields.get("port_id"), fields.get("description", "")
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
            self._world.nets.remove(found["id"])
            return Response(status_code=204)

        return removed


def _may_see(thing: Thing, who: Caller) -> bool:
    return who.is_admin or thing["project_id"] == who.project.id or bool(thing.get("router:external"))


def _is_wanted(thing: Thing, request: Request) -> bool:
    wanted = {name: request.query_params.getlist(name) for name in _FILTERS if name in request.query_params}
    return all(thing.get(name) in values for name, values in wanted.items())

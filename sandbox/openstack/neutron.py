"""Neutron: the networks there are."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.openstack.state import World
from sandbox.openstack.wire import caller, root_of


class Neutron:
    """The part of the API that is called."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        """Where each call goes."""
        return [Route("/", self.versions), Route("/v2.0/networks", self.networks)]

    async def versions(self, request: Request) -> Response:
        base = root_of(request)
        version = {"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": f"{base}/v2.0/"}]}
        return JSONResponse({"versions": [version]})

    async def networks(self, request: Request) -> Response:
        mine = caller(request).project.id
        found = [one for one in self._world.networks if one["project_id"] == mine or one["router:external"]]
        return JSONResponse({"networks": found})

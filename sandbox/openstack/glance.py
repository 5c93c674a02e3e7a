"""Glance: the images there are."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.openstack.state import Image, World, stamp
from sandbox.openstack.wire import ApiError, caller, root_of


class Glance:
    """The part of the API that is called."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        """Where each call goes."""
        return [
            Route("/", self.versions),
            Route("/v2/images", self.list_images),
            Route("/v2/images/{image_id}", self.show),
        ]

    async def versions(self, request: Request) -> Response:
        base = root_of(request)
        version = {"id": "v2.15", "status": "CURRENT", "links": [{"rel": "self", "href": f"{base}/v2/"}]}
        return JSONResponse({"versions": [version]}, 300)

    async def list_images(self, request: Request) -> Response:
        caller(request)
        images = [_shown(image) for image in self._world.images.values()]
        return JSONResponse({"images": images, "first": "/v2/images", "schema": "/v2/schemas/images"})

    async def show(self, request: Request) -> Response:
        caller(request)
        image = self._world.images.get(request.path_params["image_id"])
        if image is None:
            raise ApiError(404, f"No image found with ID {request.path_params['image_id']}")
        return JSONResponse(_shown(image))


def _shown(image: Image) -> dict[str, Any]:
    return {
        **image.properties, "id": image.id, "name": image.name, "owner": image.owner, "status": "active",
        "visibility": "public", "disk_format": "raw", "container_format": "bare", "size": 1048576, "min_disk": 1,
        "min_ram": 64, "protected": False, "tags": [], "created_at": stamp(image.created),
        "updated_at": stamp(image.created), "self": f"/v2/images/{image.id}", "schema": "/v2/schemas/image",
    }  # fmt: skip

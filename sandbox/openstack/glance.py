"""Glance: images that are listed, changed and deleted. Their data do not exist."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.openstack import quotas
from sandbox.openstack.state import Image, World, new_id, stamp
from sandbox.openstack.texts import check_glance_texts
from sandbox.openstack.wire import ApiError, Caller, body_of, caller, page_of, root_of

_PAGING = frozenset({"limit", "marker"})
_ATTRIBUTES = frozenset(
    {"name", "visibility", "tags", "disk_format", "container_format", "min_disk", "min_ram"}
)
_CHANGEABLE = frozenset({"name", "tags", "protected", "visibility", "min_disk", "min_ram"})


class Glance:
    """The part of the API that is called."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        """The handler of each call."""
        return [
            Route("/", self.versions),
            Route("/v2/images", self.list_images),
            Route("/v2/images", self.create, methods=["POST"]),
            Route("/v2/images/{image_id}", self.show),
            Route("/v2/images/{image_id}", self.change, methods=["PATCH"]),
            Route("/v2/images/{image_id}", self.delete, methods=["DELETE"]),
            Route("/v2/images/{image_id}/file", self.fill, methods=["PUT"]),
            Route("/v2/images/{image_id}/tags/{tag}", self.tag, methods=["PUT"]),
        ]

    async def versions(self, request: Request) -> Response:
        base = root_of(request)
        version = {
            "id": "v2.15",
            "status": "CURRENT",
            "links": [{"rel": "self", "href": f"{base}/v2/"}],
        }
        return JSONResponse({"versions": [version]}, 300)

    async def list_images(self, request: Request) -> Response:
        who = caller(request)
        newest_first = sorted(
            self._world.images.values(), key=lambda one: one.created, reverse=True
        )
        found = [
            shown
            for one in newest_first
            if _may_see(one, who) and _is_wanted(shown := _shown(one), request)
        ]
        page, marker = page_of(found, request)
        body: dict[str, Any] = {
            "images": page,
            "first": "/v2/images",
            "schema": "/v2/schemas/images",
        }
        return JSONResponse(body | ({"next": f"/v2/images?marker={marker}"} if marker else {}))

    async def create(self, request: Request) -> Response:
        wanted = await body_of(request)
        check_glance_texts(wanted)
        image = Image(
            new_id(),
            wanted.get("name", ""),
            caller(request).project.id,
            datetime.now(UTC),
            {name: value for name, value in wanted.items() if name not in _ATTRIBUTES},
            status="queued",
            visibility=wanted.get("visibility", "private"),
            tags=list(wanted.get("tags") or ()),
            min_disk=wanted.get("min_disk", 0),
            min_ram=wanted.get("min_ram", 0),
        )
        quotas.check_image(image)
        self._world.images[image.id] = image
        return JSONResponse(_shown(image), 201)

    async def show(self, request: Request) -> Response:
        return JSONResponse(_shown(self._image(request)))

    async def change(self, request: Request) -> Response:
        image = self._own(request, "modify_image")
        operations = json.loads(await request.body())
        properties, own = dict(image.properties), dict[str, Any]()
        for one in operations:
            _apply(one, image, properties, own)
        check_glance_texts(properties | {name: own[name] for name in own if name != "tags"})
        added, tags = not properties.keys() <= image.properties.keys(), own.get("tags", ())
        quotas.check_image(replace(image, properties=properties if added else {}, tags=list(tags)))
        # All of the operations, or none.
        image.properties = properties
        for name, value in own.items():
            setattr(image, name, value)
        image.updated = datetime.now(UTC)
        return JSONResponse(_shown(image))

    async def delete(self, request: Request) -> Response:
        image = self._own(request, "delete_image")
        if image.protected:
            raise ApiError(403, f"Image {image.id} is protected and cannot be deleted.")
        del self._world.images[image.id]
        return Response(status_code=204)

    async def fill(self, request: Request) -> Response:
        image = self._own(request, "upload_image")
        if image.status != "queued":
            raise ApiError(
                409, f"Image status transition from {image.status} to saving is not allowed"
            )
        image.status, image.size = "active", len(await request.body())
        image.updated = datetime.now(UTC)
        return Response(status_code=204)

    async def tag(self, request: Request) -> Response:
        image = self._own(request, "modify_image")
        tags = list(dict.fromkeys([*image.tags, request.path_params["tag"]]))
        quotas.check_image(replace(image, properties={}, tags=tags))
        image.tags = tags
        return Response(status_code=204)

    def _image(self, request: Request) -> Image:
        image = self._world.images.get(request.path_params["image_id"])
        if image is None or not _may_see(image, caller(request)):
            raise ApiError(404, f"No image found with ID {request.path_params['image_id']}")
        return image

    def _own(self, request: Request, action: str) -> Image:
        image = self._image(request)
        if image.owner != caller(request).project.id:
            raise ApiError(403, f"You are not authorized to complete {action} action.")
        return image


def _apply(
    operation: dict[str, Any], image: Image, properties: dict[str, str], own: dict[str, Any]
) -> None:
    name, value = operation["path"].removeprefix("/"), operation.get("value")
    if name in _CHANGEABLE and operation["op"] != "remove":
        if name == "name" and not isinstance(value, str):
            raise ApiError(
                400,
                f"Provided object does not match schema 'image': {value} is not of type 'string'",
            )
        own[name] = value
    elif hasattr(image, name):
        raise ApiError(403, f"Attribute '{name}' is read-only.")
    elif operation["op"] != "add" and name not in properties:
        raise ApiError(409, f"Property {name} does not exist.")
    elif operation["op"] == "remove":
        del properties[name]
    else:
        properties[name] = str(value)


def _may_see(image: Image, who: Caller) -> bool:
    return who.is_admin or image.visibility == "public" or image.owner == who.project.id


def _is_wanted(shown: dict[str, Any], request: Request) -> bool:
    """An attribute or a property must have the value; `id=in:` names several, `updated_at=gte:` a
    time.
    """
    for name, value in request.query_params.items():
        if name in _PAGING:
            continue
        if name == "tag":
            fits = value in shown["tags"]
        elif value.startswith("in:"):
            fits = shown.get(name) in value.removeprefix("in:").split(",")
        elif value.startswith("gte:"):
            fits = str(shown.get(name)) >= value.removeprefix("gte:")
        else:
            fits = shown.get(name) == value
        if not fits:
            return False
    return True


def _shown(image: Image) -> dict[str, Any]:
    there = image.status not in ("queued", "saving")
    return {
        **image.properties,
        "id": image.id,
        "name": image.name,
        "owner": image.owner,
        "status": image.status,
        "visibility": image.visibility,
        "disk_format": "raw" if there else None,
        "container_format": "bare" if there else None,
        "size": image.size if there else None,
        "checksum": hashlib.sha256(image.id.encode()).hexdigest()[:32] if there else None,
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "protected": image.protected,
        "tags": image.tags,
        "created_at": stamp(image.created),
        "updated_at": stamp(image.updated or image.created),
        "os_hidden": False,
        "self": f"/v2/images/{image.id}",
        "file": f"/v2/images/{image.id}/file",
        "schema": "/v2/schemas/image",
    }

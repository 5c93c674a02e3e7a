"""Glance: the calls that are made and the shapes that are read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from handlers.cloud import PAGE, Project, Reply, Service
from handlers.errors import NotFound

_PATCH = "application/openstack-images-v2.1-json-patch"
#: Ids in one call; a URL has an end.
_IDS = 100


@dataclass(frozen=True, slots=True)
class Image:
    """An image as Glance says it is; its properties stand beside its attributes in `body`."""

    id: str
    name: str
    status: str
    visibility: str
    owner: str | None
    protected: bool
    updated: str
    body: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_api(cls, body: Mapping[str, Any]) -> "Image":
        """An image from Glance's JSON."""
        return cls(
            id=body["id"],
            name=body.get("name") or "",
            status=body["status"],
            visibility=body["visibility"],
            owner=body.get("owner"),
            protected=bool(body.get("protected")),
            updated=body["updated_at"],
            body=body,
        )

    def may_be_seen_by(self, project_id: str) -> bool:
        """Whether it is a project's own or shown to others; an admin's role would show everybody's."""
        return self.owner == project_id or self.visibility != "private"


async def get_image(project: Project, image_id: str) -> Image:
    """One image, or `NotFound`."""
    image = Image.from_api((await project.get(Service.IMAGE, f"/images/{image_id}")).body)
    if not image.may_be_seen_by(project.id):
        raise NotFound(404, "another tenant's image", None)
    return image


async def list_images(project: Project, **filters: str) -> list[Image]:
    """All images that match and that the project may use; a call for each thousand."""
    found: list[Image] = []
    params: dict[str, Any] = {**filters, "limit": PAGE}
    while True:
        body = (await project.get(Service.IMAGE, "/images", params)).body
        page = [Image.from_api(image) for image in body["images"]]
        found += [image for image in page if image.may_be_seen_by(project.id)]
        if not page or not body.get("next"):
            return found
        params["marker"] = page[-1].id


async def find_images(project: Project, image_ids: Iterable[str]) -> dict[str, Image]:
    """Those of the images that there are; a call for each hundred, none for none."""
    wanted = sorted(set(image_ids))
    found: list[Image] = []
    for begin in range(0, len(wanted), _IDS):
        found += await list_images(project, id="in:" + ",".join(wanted[begin : begin + _IDS]))
    return {image.id: image for image in found}


async def delete_image(project: Project, image_id: str) -> Reply:
    """Delete an image."""
    return await project.delete(Service.IMAGE, f"/images/{image_id}")


async def patch_image(project: Project, image_id: str, operations: Sequence[Mapping[str, Any]]) -> Reply:
    """Change an image, in one step."""
    return await project.patch(Service.IMAGE, f"/images/{image_id}", operations, _PATCH)


async def tag_image(project: Project, image_id: str, tag: str) -> Reply:
    """Give an image a tag; it may have it already."""
    return await project.put(Service.IMAGE, f"/images/{image_id}/tags/{quote(tag, safe='')}", None)

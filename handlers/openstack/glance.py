"""Glance: the calls that are made and the shapes that are read."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any
from urllib.parse import quote

from handlers.effects.waits import ResourceState
from handlers.openstack.errors import NotFound
from handlers.openstack.project import Project
from handlers.openstack.sessions import Reply, Service
from messages.fields import is_uuid
from messages.record import record

_PATCH = "application/openstack-images-v2.1-json-patch"
#: Ids in one call; a URL has an end.
_IDS = 100


@record
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

    @property
    def state(self) -> ResourceState:
        """Its status."""
        return ResourceState("image", self.id, self.status)

    @classmethod
    def from_api(cls, body: Mapping[str, Any]) -> "Image":
        """Read an image from Glance's JSON."""
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

    @property
    def size(self) -> int:
        """Bytes of its data; 0 for one that consists of snapshots, and where they have not come."""
        return self.body.get("size") or 0

    @property
    def virtual_size(self) -> int:
        """Bytes of a disk that holds its data; 0 where Glance does not know."""
        return self.body.get("virtual_size") or 0

    @property
    def min_disk(self) -> int:
        """GiB of disk that a server of it needs."""
        return self.body.get("min_disk") or 0

    @property
    def min_ram(self) -> int:
        """MiB of memory that a server of it needs."""
        return self.body.get("min_ram") or 0

    @property
    def has_mapping(self) -> bool:
        """True for an image of a server booted from volumes: it has no data itself."""
        return bool(_mapping(self.body))

    @property
    def boot_snapshot_id(self) -> str | None:
        """The id of the volume snapshot that it consists of: the rule is Cinder's own.

        It is a property like any other, which its owner may have written.
        """
        return next(
            (
                one["snapshot_id"]
                for one in _mapping(self.body)
                if one.get("source_type") == "snapshot"
                and one.get("boot_index") == 0
                and is_uuid(str(one.get("snapshot_id")))
            ),
            None,
        )

    @property
    def snapshot_ids(self) -> frozenset[str]:
        """The ids of all volume snapshots that it consists of, those of data disks, too."""
        return frozenset(
            str(one["snapshot_id"]) for one in _mapping(self.body) if one.get("snapshot_id")
        )

    def may_be_seen_by(self, project_id: str) -> bool:
        """True where it is the project's own or shown to others; an admin's role would show all."""
        return self.owner == project_id or self.visibility != "private"


def _mapping(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Nova's property on an image of a server booted from volumes: an entry for each disk."""
    try:
        listed = json.loads(body.get("block_device_mapping") or "[]")
    except (TypeError, ValueError):
        return []
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


async def get_image(project: Project, image_id: str) -> Image:
    """Return one image, or raise `NotFound`."""
    image = Image.from_api((await project.get(Service.IMAGE, f"/images/{image_id}")).body)
    if not image.may_be_seen_by(project.id):
        raise NotFound(404, "another tenant's image", None)
    return image


async def list_images(project: Project, **filters: str) -> list[Image]:
    """List all images that match and that the project may use; a call for each thousand."""
    return [image async for page in image_pages(project, **filters) for image in page]


async def image_pages(project: Project, **filters: str) -> AsyncIterator[list[Image]]:
    """List all images that match and that the project may use, page by page."""
    params: dict[str, Any] = {**filters, "limit": project.page_size}
    while True:
        body = (await project.get(Service.IMAGE, "/images", params)).body
        page = [Image.from_api(image) for image in body["images"]]
        yield [image for image in page if image.may_be_seen_by(project.id)]
        if not page or not body.get("next"):
            return
        params["marker"] = page[-1].id


async def find_images(project: Project, image_ids: Iterable[str]) -> dict[str, Image]:
    """Return those of the images that there are, by id; a call for each hundred, none for none."""
    wanted = sorted(set(image_ids))
    found: list[Image] = []
    for begin in range(0, len(wanted), _IDS):
        found += await list_images(project, id="in:" + ",".join(wanted[begin : begin + _IDS]))
    return {image.id: image for image in found}


async def list_images_of_snapshots(project: Project) -> list[Image]:
    """List all images that consist of snapshots of volumes: Nova writes this property on them."""
    return await list_images(project, bdm_v2="True")


async def delete_image(project: Project, image_id: str) -> Reply:
    """Delete an image."""
    return await project.delete(Service.IMAGE, f"/images/{image_id}")


async def patch_image(
    project: Project, image_id: str, operations: Sequence[Mapping[str, Any]]
) -> Reply:
    """Change an image, in one step."""
    return await project.patch(Service.IMAGE, f"/images/{image_id}", operations, _PATCH)


async def tag_image(project: Project, image_id: str, tag: str) -> Reply:
    """Give an image a tag; it may have it already."""
    return await project.put(Service.IMAGE, f"/images/{image_id}/tags/{quote(tag, safe='')}", None)

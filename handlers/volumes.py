"""Cinder: the calls that are made and the shapes that are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from handlers.cloud import Project, Reply, Service


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as Cinder says it is. Size in GiB; `device` is where the server sees it."""

    id: str
    status: str
    size: int
    volume_type: str | None
    bootable: bool
    server_id: str | None
    device: str | None
    image_id: str | None
    updated: str
    name: str = ""
    #: What Cinder remembers of the image that it was made from.
    image: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def from_api(cls, body: Mapping[str, Any]) -> "Volume":
        """A volume from Cinder's JSON."""
        attachment: Mapping[str, Any] = next(iter(body.get("attachments") or ()), {})
        return cls(
            id=body["id"],
            status=body["status"],
            size=body["size"],
            volume_type=body.get("volume_type"),
            bootable=body.get("bootable") == "true",
            server_id=attachment.get("server_id"),
            device=attachment.get("device"),
            image_id=(body.get("volume_image_metadata") or {}).get("image_id"),
            updated=body.get("updated_at") or body["created_at"],
            name=body.get("name") or "",
            image=body.get("volume_image_metadata") or {},
        )


async def get_volume(project: Project, volume_id: str) -> Volume:
    """One volume, or `NotFound`."""
    reply = await project.get(Service.VOLUME, f"/volumes/{volume_id}")
    return Volume.from_api(reply.body["volume"])


async def list_volumes(project: Project, **filters: str) -> list[Volume]:
    """All of the project's volumes that match; a call for each thousand."""
    found = await project.get_all(Service.VOLUME, "/volumes/detail", "volumes", filters)
    return [Volume.from_api(volume) for volume in found]


async def extend(project: Project, volume_id: str, size: int) -> Reply:
    """Grow a volume, attached or not, to so many GiB; ends in the status it had, or in `error_extending`."""
    return await project.post(Service.VOLUME, f"/volumes/{volume_id}/action", {"os-extend": {"new_size": size}})


async def reset_status(admin: Project, volume_id: str, status: str) -> Reply:
    """Declare a volume to be in a status; only an admin may."""
    return await admin.post(Service.VOLUME, f"/volumes/{volume_id}/action", {"os-reset_status": {"status": status}})


async def gigabytes_left(project: Project) -> int | None:
    """What is left of the project's quota of gigabytes; None where there is no limit."""
    reply = await project.get(Service.VOLUME, "/limits")
    absolute = reply.body["limits"]["absolute"]
    most: int = absolute["maxTotalVolumeGigabytes"]
    return None if most < 0 else most - int(absolute["totalGigabytesUsed"])

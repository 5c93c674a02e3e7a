"""Cinder: the calls that are made and the shapes that are read."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import field
from typing import Any

from handlers.effects.waits import ResourceState
from handlers.openstack.errors import CloudRefusal, Forbidden, NotFound
from handlers.openstack.project import Project
from handlers.openstack.sessions import Reply, Service
from messages.record import record

_BAD_REQUEST = 400

#: Statuses that a volume leaves by itself: something is under way with it.
PASSING = frozenset(
    {
        "creating",
        "managing",
        "downloading",
        "attaching",
        "reserved",
        "detaching",
        "extending",
        "uploading",
        "retyping",
        "backing-up",
        "restoring-backup",
        "maintenance",
    }
)
#: Statuses in which Cinder grows a volume (3.42) and lets Nova move its attachment in a resize.
USABLE = frozenset({"available", "in-use"})
#: Values of `migration_status` while a volume is moved to another host: a copy that would not have
#: grown takes over.
_MIGRATING = frozenset({"starting", "migrating", "completing"})


@record
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
    created: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    #: Shown to admins only; None for everybody else.
    migration_status: str | None = None
    #: The snapshot that it was made from.
    snapshot_id: str | None = None
    #: The group that it belongs to: as long as it does it cannot be deleted.
    group_id: str | None = None
    #: All servers that it is attached to; several where it is shared (`multiattach`).
    server_ids: frozenset[str] = frozenset()
    #: What Cinder remembers of the image that it was made from.
    image: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def busy(self) -> bool:
        """True while something is under way with it that ends by itself."""
        return self.status in PASSING or self.migration_status in _MIGRATING

    @property
    def usable(self) -> bool:
        """True where it can be grown, and its server resized."""
        return self.status in USABLE and not self.busy

    @property
    def state(self) -> ResourceState:
        """Its migration while one is under way, else its status."""
        moves = self.migration_status if self.migration_status in _MIGRATING else None
        return ResourceState("volume", self.id, moves or self.status)

    @classmethod
    def from_api(cls, body: Mapping[str, Any]) -> "Volume":
        """Read a volume from Cinder's JSON."""
        attachments: Sequence[Mapping[str, Any]] = body.get("attachments") or ()
        attachment: Mapping[str, Any] = next(iter(attachments), {})
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
            created=body["created_at"],
            metadata=body.get("metadata") or {},
            migration_status=body.get("migration_status"),
            snapshot_id=body.get("snapshot_id"),
            group_id=body.get("group_id") or body.get("consistencygroup_id"),
            # One that a host has, and no server, is named without one.
            server_ids=frozenset(one["server_id"] for one in attachments if one.get("server_id")),
            image=body.get("volume_image_metadata") or {},
        )


async def get_volume(project: Project, volume_id: str) -> Volume:
    """Return one volume, or raise `NotFound`."""
    reply = await project.get(Service.VOLUME, f"/volumes/{volume_id}")
    return Volume.from_api(reply.body["volume"])


async def list_volumes(project: Project, **filters: str) -> list[Volume]:
    """List all of the project's volumes that match; a call for each thousand."""
    return [volume async for page in volume_pages(project, **filters) for volume in page]


async def volume_pages(project: Project, **filters: str) -> AsyncIterator[list[Volume]]:
    """List all of the project's volumes that match, page by page."""
    async for page in project.pages(Service.VOLUME, "/volumes/detail", "volumes", filters):
        yield [Volume.from_api(volume) for volume in page]


async def list_marked(project: Project, metadata: Mapping[str, str]) -> list[Volume]:
    """List all of the project's volumes with these items of metadata."""
    # A cloud may refuse this filter, or ignore it: its resource_filters.json tells which it takes.
    try:
        found = await list_volumes(project, metadata=json.dumps(dict(metadata)))
    except CloudRefusal as error:
        if error.status != _BAD_REQUEST:
            raise
        found = await list_volumes(project)
    return [one for one in found if metadata.items() <= one.metadata.items()]


async def has_snapshots(project: Project, volume_id: str) -> bool:
    """Return True where a volume has snapshots: while it has, Cinder does not delete it."""
    reply = await project.get(Service.VOLUME, "/snapshots", {"volume_id": volume_id, "limit": 1})
    return bool(reply.body["snapshots"])


async def create_volume(
    project: Project,
    *,
    name: str,
    size: int,
    volume_type: str,
    image_id: str | None,
    zone: str | None,
    metadata: Mapping[str, str],
) -> Reply:
    """Have a volume of so many GiB made, from an image where one is named; its id is
    `body["volume"]["id"]`.

    Of an image that consists of a snapshot, Cinder makes the volume from that snapshot.
    """
    wanted: dict[str, Any] = {
        "name": name,
        "size": size,
        "volume_type": volume_type,
        "metadata": dict(metadata),
    }
    if image_id is not None:
        wanted["imageRef"] = image_id
    if zone is not None:
        wanted["availability_zone"] = zone
    return await project.post(Service.VOLUME, "/volumes", {"volume": wanted})


async def delete_volume(project: Project, volume_id: str) -> Reply:
    """Delete a volume that nothing uses; it is gone (`NotFound`) some time later."""
    return await project.delete(Service.VOLUME, f"/volumes/{volume_id}")


@record
class Snapshot:
    """A snapshot of a volume, in GiB."""

    id: str
    status: str
    size: int


async def get_snapshot(project: Project, snapshot_id: str) -> Snapshot:
    """Return one snapshot, or raise `NotFound`."""
    body = (await project.get(Service.VOLUME, f"/snapshots/{snapshot_id}")).body["snapshot"]
    return Snapshot(body["id"], body["status"], body["size"])


async def list_zones(project: Project) -> dict[str, bool]:
    """Return Cinder's zones by name, True for an available one; none where Cinder does not tell."""
    try:
        reply = await project.get(Service.VOLUME, "/os-availability-zone")
    except (NotFound, Forbidden):
        return {}
    return {
        one["zoneName"]: bool(one["zoneState"]["available"])
        for one in reply.body["availabilityZoneInfo"]
    }


async def list_types(project: Project) -> set[str]:
    """Return the names of the volume types that the project may use."""
    found = await project.get_all(Service.VOLUME, "/types", "volume_types", {})
    return {one["name"] for one in found}


async def extend(project: Project, volume_id: str, size: int) -> Reply:
    """Grow a volume to so many GiB; ends in its former status, or in `error_extending`."""
    return await project.post(
        Service.VOLUME, f"/volumes/{volume_id}/action", {"os-extend": {"new_size": size}}
    )


async def reset_status(admin: Project, volume_id: str, status: str) -> Reply:
    """Declare a volume to be in a status; only an admin may."""
    return await admin.post(
        Service.VOLUME, f"/volumes/{volume_id}/action", {"os-reset_status": {"status": status}}
    )


#: A quota, and under which names `/limits` tells the most and what is taken.
_TOTALS = (
    ("volumes", "maxTotalVolumes", "totalVolumesUsed"),
    ("gigabytes", "maxTotalVolumeGigabytes", "totalGigabytesUsed"),
)


@record
class VolumeQuota:
    """The project's quotas by name, in all and by volume type (`gigabytes_SSD`); -1 is no limit.

    `used` includes what is reserved. What Cinder does not tell is missing.
    """

    limits: Mapping[str, int]
    used: Mapping[str, int]

    @classmethod
    def from_api(cls, quota_set: Mapping[str, Any]) -> "VolumeQuota":
        """Read the quotas of Cinder's JSON: objects where it tells the usage, else numbers."""
        limits: dict[str, int] = {}
        used: dict[str, int] = {}
        for name, one in quota_set.items():
            if isinstance(one, dict):
                limits[name] = one["limit"]
                used[name] = one.get("in_use", 0) + one.get("reserved", 0)
            elif isinstance(one, int):
                limits[name] = one
        return cls(limits, used)

    def with_totals(self, absolute: Mapping[str, int]) -> "VolumeQuota":
        """Return the same with the totals of `/limits`."""
        limits, used = dict(self.limits), dict(self.used)
        for name, most, taken in _TOTALS:
            if most in absolute and taken in absolute:
                limits[name], used[name] = absolute[most], absolute[taken]
        return VolumeQuota(limits, used)

    def left(self, name: str) -> int | None:
        """Return the rest of `volumes`, `gigabytes_SSD` ...; None where no limit is known."""
        most = self.limits.get(name, -1)
        return most - self.used[name] if most >= 0 and name in self.used else None

    @property
    def largest(self) -> int | None:
        """The most GiB of one volume; None where no limit is known."""
        most = self.limits.get("per_volume_gigabytes", -1)
        return most if most >= 0 else None


async def get_quota(project: Project) -> VolumeQuota:
    """Return the project's quotas and their usage.

    A cloud may forbid members to read quota sets, or leave out the usage: then the totals come
    from the limits.
    """
    try:
        path = f"/os-quota-sets/{project.id}"
        quota_set = (await project.get(Service.VOLUME, path, {"usage": "True"})).body["quota_set"]
    except CloudRefusal:
        quota_set = {}
    quota = VolumeQuota.from_api(quota_set)
    if "gigabytes" in quota.used:
        return quota
    try:
        limits = (await project.get(Service.VOLUME, "/limits")).body["limits"]["absolute"]
    except CloudRefusal:
        return quota
    return quota.with_totals(limits)

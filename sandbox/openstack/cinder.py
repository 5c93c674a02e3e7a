"""Cinder: volumes that are made, grown, looked at and deleted."""

import ast
import uuid
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.openstack import quotas, snapshots
from sandbox.openstack.extensions import newest
from sandbox.openstack.state import Image, Snapshot, Volume, World, new_id, stamp
from sandbox.openstack.texts import check_cinder_name, check_cinder_rows
from sandbox.openstack.wire import ApiError, Caller, body_of, caller, links, page_of, root_of

_GROWABLE = ("available", "in-use")
_DELETABLE = ("available", "error", "error_restoring", "error_extending", "error_managing")


class Cinder:
    """The part of the API that is called."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        """The handler of each call."""
        return [
            Route("/", self.versions),
            Route("/v3", self.versions),
            Route("/v3/", self.versions),
            Route("/v3/volumes/detail", self.list_volumes),
            Route("/v3/volumes", self.create, methods=["POST"]),
            Route("/v3/volumes/{volume_id}", self.show),
            Route("/v3/volumes/{volume_id}", self.delete, methods=["DELETE"]),
            Route("/v3/volumes/{volume_id}/action", self.act, methods=["POST"]),
            Route("/v3/snapshots/detail", self.list_snapshots),
            Route("/v3/snapshots", self.list_snapshots),
            Route("/v3/snapshots", self.create_snapshot, methods=["POST"]),
            Route("/v3/snapshots/{snapshot_id}", self.show_snapshot),
            Route("/v3/snapshots/{snapshot_id}", self.delete_snapshot, methods=["DELETE"]),
            Route("/v3/groups/{group_id}", self.change_group, methods=["PUT"]),
            Route("/v3/snapshots/{snapshot_id}/action", self.act_on_snapshot, methods=["POST"]),
            Route("/v3/os-availability-zone", self.zones),
            Route("/v3/limits", self.limits),
            Route("/v3/types", self.types),
            Route("/v3/types", self.add_type, methods=["POST"]),
            Route("/v3/types/{type_id}", self.remove_type, methods=["DELETE"]),
            Route("/v3/os-quota-sets/{project_id}", self.quotas),
            Route("/v3/os-quota-sets/{project_id}", self.set_quotas, methods=["PUT"]),
        ]

    async def versions(self, request: Request) -> Response:
        base = root_of(request)
        version = {
            "id": "v3.0",
            "status": "CURRENT",
            "version": newest(self._world, "cinder"),
            "min_version": "3.0",
            "media-types": [],
            "updated": "2023-08-31T00:00:00Z",
            "links": [{"rel": "self", "href": f"{base}/v3/"}],
        }
        return JSONResponse({"versions": [version]}, 300)

    async def list_volumes(self, request: Request) -> Response:
        project = caller(request).project
        newest_first = sorted(
            self._world.volumes.values(), key=lambda one: one.created, reverse=True
        )
        found = [
            shown(one)
            for one in newest_first
            if one.project is project and _changed_since(one, request) and _is_marked(one, request)
        ]
        page, marker = page_of(found, request)
        body: dict[str, Any] = {"volumes": page}
        return JSONResponse(body | ({"volumes_links": links(marker, request)} if marker else {}))

    async def show(self, request: Request) -> Response:
        return JSONResponse({"volume": shown(_volume(self._world, request))})

    async def create(self, request: Request) -> Response:
        wanted, project = (await body_of(request)).get("volume", {}), caller(request).project
        kind, size = wanted.get("volume_type") or "__DEFAULT__", wanted["size"]
        if kind not in self._world.types:
            raise ApiError(404, f"Volume type with name {kind} could not be found.")
        image = self._world.images.get(wanted.get("imageRef") or "")
        if image is None and wanted.get("imageRef"):
            raise ApiError(400, "Invalid image identifier or unable to access requested image.")
        snapshot = snapshots.source_of(self._world, wanted, image)
        if snapshot is not None:
            snapshots.check_source(snapshot, size)
            image = snapshot.volume.image
        elif image is not None:
            _check_image(image, size)
        quotas.check_volumes(self._world, project, kind, size, size, new=True)
        check_cinder_name(wanted.get("name") or "")
        check_cinder_rows((wanted.get("metadata") or {}).values())
        volume = Volume(
            new_id(),
            wanted.get("name") or "",
            project,
            size,
            kind,
            datetime.now(UTC),
            status="creating",
            image=image,
            metadata=dict(wanted.get("metadata") or {}),
            snapshot_id=snapshot.id if snapshot is not None else None,
            zone=snapshots.zone_of(self._world, wanted.get("availability_zone"), snapshot),
            shared=kind in self._world.shared_types,
        )
        self._world.volumes[volume.id] = volume
        self._world.run(_make(self._world, volume))
        return JSONResponse({"volume": shown(volume)}, 202)

    async def delete(self, request: Request) -> Response:
        volume = _volume(self._world, request)
        kept = volume.server_id or volume.group_id or snapshots.of_volume(self._world, volume)
        if kept or volume.status not in _DELETABLE:
            raise ApiError(
                400,
                "Invalid volume: Volume status must be available or error or error_restoring or error_extending or "
                "error_managing and must not be migrating, attached, belong to a group, have snapshots, awaiting a "
                "transfer, or be disassociated from snapshots after volume transfer.",
            )
        volume.become("deleting")
        self._world.run(_delete(self._world, volume))
        return Response(status_code=202)

    async def act(self, request: Request) -> Response:
        volume = _volume(self._world, request)
        action = await body_of(request)
        if "os-extend" in action:
            extend(self._world, volume, action["os-extend"].get("new_size"))
        elif "os-reset_status" in action:
            _reset(volume, action["os-reset_status"], caller(request))
        else:
            raise ApiError(400, f"There is no such action: {next(iter(action), '')}.")
        return Response(status_code=202)

    async def zones(self, request: Request) -> Response:
        caller(request)
        listed = [
            {"zoneName": name, "zoneState": {"available": is_available}}
            for name, is_available in self._world.volume_zones.items()
        ]
        return JSONResponse({"availabilityZoneInfo": listed})

    async def list_snapshots(self, request: Request) -> Response:
        project, of = caller(request).project, request.query_params.get("volume_id")
        newest_first = sorted(
            self._world.snapshots.values(), key=lambda one: one.created, reverse=True
        )
        found = [
            snapshots.shown(one)
            for one in newest_first
            if one.volume.project is project and of in (None, one.volume.id)
        ]
        page, marker = page_of(found, request)
        body: dict[str, Any] = {"snapshots": page}
        return JSONResponse(body | ({"snapshots_links": links(marker, request)} if marker else {}))

    async def create_snapshot(self, request: Request) -> Response:
        wanted = (await body_of(request)).get("snapshot", {})
        volume = self._world.volumes.get(wanted.get("volume_id", ""))
        if volume is None or volume.project is not caller(request).project:
            raise ApiError(404, f"Volume {wanted.get('volume_id')} could not be found.")
        made = snapshots.take(self._world, volume, wanted.get("name") or "")
        return JSONResponse({"snapshot": snapshots.shown(made)}, 202)

    async def show_snapshot(self, request: Request) -> Response:
        return JSONResponse({"snapshot": snapshots.shown(self._snapshot(request))})

    async def delete_snapshot(self, request: Request) -> Response:
        del self._world.snapshots[self._snapshot(request).id]
        return Response(status_code=202)

    async def act_on_snapshot(self, request: Request) -> Response:
        snapshot, wanted = self._snapshot(request), (await body_of(request))["os-reset_status"]
        if not caller(request).is_admin:
            what = "volume_extension:snapshot_admin_actions:reset_status"
            raise ApiError(403, f"Policy doesn't allow {what} to be performed.")
        snapshot.status = wanted["status"]
        return Response(status_code=202)

    def _snapshot(self, request: Request) -> Snapshot:
        found, who = self._world.snapshots.get(request.path_params["snapshot_id"]), caller(request)
        if found is None or not (found.volume.project is who.project or who.is_admin):
            raise ApiError(
                404, f"Snapshot {request.path_params['snapshot_id']} could not be found."
            )
        return found

    async def change_group(self, request: Request) -> Response:
        """Groups are known by their volumes alone."""
        wanted, group_id = (await body_of(request))["group"], request.path_params["group_id"]
        for name, group in (("add_volumes", group_id), ("remove_volumes", None)):
            for volume_id in filter(None, wanted.get(name, "").split(",")):
                self._world.volumes[volume_id].group_id = group
        return Response(status_code=202)

    async def limits(self, request: Request) -> Response:
        project = caller(request).project
        used = quotas.volume_usage(self._world, project)
        absolute = {
            "maxTotalVolumes": quotas.limit_of(self._world, project, "volumes"),
            "totalVolumesUsed": used["volumes"],
            "maxTotalVolumeGigabytes": quotas.limit_of(self._world, project, "gigabytes"),
            "totalGigabytesUsed": used["gigabytes"],
        }
        return JSONResponse({"limits": {"rate": [], "absolute": absolute}})

    async def types(self, request: Request) -> Response:
        caller(request)
        listed = [
            {"id": one, "name": name, "is_public": True} for name, one in self._world.types.items()
        ]
        return JSONResponse({"volume_types": listed})

    async def add_type(self, request: Request) -> Response:
        if not caller(request).is_admin:
            raise ApiError(
                403, "Policy doesn't allow volume_extension:type_create to be performed."
            )
        wanted = (await body_of(request))["volume_type"]
        name, specs = wanted["name"], wanted.get("extra_specs") or {}
        self._world.types[name] = new_id()
        if specs.get("multiattach") == "<is> True":
            self._world.shared_types.add(name)
        return JSONResponse(
            {"volume_type": {"id": self._world.types[name], "name": name, "extra_specs": specs}}
        )

    async def remove_type(self, request: Request) -> Response:
        if not caller(request).is_admin:
            raise ApiError(
                403, "Policy doesn't allow volume_extension:type_delete to be performed."
            )
        type_id = request.path_params["type_id"]
        self._world.types = {name: one for name, one in self._world.types.items() if one != type_id}
        self._world.shared_types &= self._world.types.keys()
        return Response(status_code=202)

    async def quotas(self, request: Request) -> Response:
        project = self._world.projects[request.path_params["project_id"]]
        if caller(request).project is not project and not caller(request).is_admin:
            raise ApiError(
                403, "Policy doesn't allow volume_extension:quotas:show to be performed."
            )
        return JSONResponse(
            {"quota_set": {"id": project.id, **quotas.volume_quotas(self._world, project)}}
        )

    async def set_quotas(self, request: Request) -> Response:
        refusal = "Policy doesn't allow volume_extension:quotas:update to be performed."
        return JSONResponse(
            {"quota_set": await quotas.change(self._world, request, "quota_set", refusal)}
        )


def shown(volume: Volume) -> dict[str, Any]:
    """A volume as the API shows it."""
    attachments = [
        {"id": volume.id, "volume_id": volume.id, "server_id": one, "device": volume.device}
        for one in (volume.server_id, *volume.others)
        if one is not None
    ]
    body: dict[str, Any] = {
        "id": volume.id,
        "name": volume.name,
        "status": volume.status,
        "size": volume.size,
        "volume_type": volume.type,
        "bootable": "true" if volume.bootable else "false",
        "attachments": attachments,
        "created_at": stamp(volume.created, "micro"),
        "metadata": volume.metadata,
        "multiattach": volume.shared,
        "encrypted": False,
        "snapshot_id": volume.snapshot_id,
        "availability_zone": volume.zone,
        "group_id": volume.group_id,
        "consistencygroup_id": None,
        "updated_at": stamp(volume.changed, "micro") if volume.changed else None,
        "description": None,
    }
    if volume.image is not None:
        body["volume_image_metadata"] = {
            **volume.image.properties,
            "image_id": volume.image.id,
            "image_name": volume.image.name,
            "min_disk": str(volume.image.min_disk),
            "min_ram": str(volume.image.min_ram),
            "size": str(volume.image.size),
        }
    return body


def extend(world: World, volume: Volume, size: Any) -> None:
    """Begin to grow a volume."""
    if not isinstance(size, int) or size <= volume.size:
        raise ApiError(
            400,
            "Invalid input received: New size for extend must be greater than current size. "
            f"(current: {volume.size}, extended: {size}).",
        )
    if volume.status not in _GROWABLE:
        raise ApiError(
            400,
            f"Invalid volume: Volume {volume.id} status must be '{{'status': 'available'}}' to extend, currently "
            f"{volume.status}.",
        )
    quotas.check_volumes(world, volume.project, volume.type, size - volume.size, size, new=False)
    before = volume.status
    volume.growing = size - volume.size
    volume.become("extending")
    world.run(_extend(world, volume, before, size))


async def _extend(world: World, volume: Volume, before: str, size: int) -> None:
    await world.lasts(0.8)
    failed = await world.faults.strike("volume.extend_volume", f"{volume.id} {volume.name}")
    volume.growing = 0
    if failed:
        volume.become("error_extending")
        return
    volume.size = size
    volume.become(before)
    if volume.server_id is not None:
        # Cinder tells Nova, which writes it down as an action of a call that the user never made.
        told = world.servers[volume.server_id].log("extend_volume", f"req-{uuid.uuid4()}", "cinder")
        with told.event("compute_extend_volume"):
            pass


def _check_image(image: Image, size: int) -> None:
    """`ApiError` where no volume of so many GiB can be made of an image; in Cinder's words."""
    wrong = None
    if image.status != "active":
        wrong = f"Image {image.id} is not active."
    elif (needed := -(-image.size // 1024**3)) > size:
        wrong = f"Size of specified image {needed}GB is larger than volume size {size}GB."
    elif size < image.min_disk:
        wrong = f"Volume size {size}GB cannot be smaller than the image minDisk size {image.min_disk}GB."
    if wrong is not None:
        raise ApiError(400, f"Invalid input received: {wrong}")


async def _make(world: World, volume: Volume) -> None:
    """The double's own words: what is made from an image is a clone of it."""
    await world.lasts(0.3)
    point = "volume.clone_image" if volume.image is not None else "volume.create_volume"
    if volume.snapshot_id is not None:
        point = "volume.create_volume_from_snapshot"
    failed = await world.faults.strike(point, f"{volume.id} {volume.name}")
    volume.bootable = volume.image is not None and failed is None
    volume.become("error" if failed else "available")


async def _delete(world: World, volume: Volume) -> None:
    await world.lasts(0.1)
    if await world.faults.strike("volume.delete_volume", f"{volume.id} {volume.name}"):
        volume.become("error_deleting")
    else:
        world.volumes.pop(volume.id, None)


def _reset(volume: Volume, wanted: dict[str, str], who: Caller) -> None:
    if not who.is_admin:
        raise ApiError(
            403,
            "Policy doesn't allow volume_extension:volume_admin_actions:reset_status to be performed.",
        )
    volume.become(wanted["status"])


def _volume(world: World, request: Request) -> Volume:
    found = world.volumes.get(request.path_params["volume_id"])
    who = caller(request)
    if found is None or not (found.project is who.project or who.is_admin):
        raise ApiError(404, f"Volume {request.path_params['volume_id']} could not be found.")
    return found


def _changed_since(volume: Volume, request: Request) -> bool:
    wanted = request.query_params.get("updated_at")
    if wanted is None:
        return True
    since = wanted.removeprefix("gte:")[:19]
    return volume.changed is not None and stamp(volume.changed)[:19] >= since


def _is_marked(volume: Volume, request: Request) -> bool:
    """Tell whether a volume has all the items of metadata that are asked for, as JSON or as Python
    would write it.
    """
    wanted = request.query_params.get("metadata")
    return wanted is None or ast.literal_eval(wanted).items() <= volume.metadata.items()

"""Snapshots of volumes, and volumes that are made from them."""

import json
from datetime import UTC, datetime
from typing import Any

from sandbox.openstack.state import ZONE, Image, Snapshot, Volume, World, new_id, stamp
from sandbox.openstack.wire import ApiError


def take(world: World, volume: Volume, name: str) -> Snapshot:
    """A snapshot of a volume, in use or not; `ApiError` where Cinder would take none."""
    if len(name) > 255:
        raise ApiError(
            400,
            f"Invalid input received: Invalid input for field/attribute name. Value: {name}. "
            f"'{name}' is too long",
        )
    if volume.status not in ("available", "in-use"):
        raise ApiError(
            400,
            f"Invalid volume: Volume {volume.id} status must be available, in-use, "
            f"but current status is: {volume.status}.",
        )
    snapshot = Snapshot(new_id(), name, volume, volume.size, datetime.now(UTC))
    world.snapshots[snapshot.id] = snapshot
    return snapshot


def of_volume(world: World, volume: Volume) -> list[Snapshot]:
    """The snapshots of a volume, for whose sake it cannot be deleted."""
    return [one for one in world.snapshots.values() if one.volume is volume]


def source_of(world: World, wanted: dict[str, Any], image: Image | None) -> Snapshot | None:
    """The snapshot that a volume is to be made from: named by itself, or by an image of a server's
    volumes.
    """
    snapshot_id = wanted.get("snapshot_id")
    if snapshot_id is None and image is not None:
        mapping = json.loads(image.properties.get("block_device_mapping", "[]"))
        boot = (
            one for one in mapping if one["source_type"] == "snapshot" and one["boot_index"] == 0
        )
        snapshot_id = next((one["snapshot_id"] for one in boot), None)
        if snapshot_id is not None and snapshot_id not in world.snapshots:
            told = f"Nova specific image is found, but boot volume snapshot id:{snapshot_id} not found."
            raise ApiError(404, told)
    if snapshot_id is None:
        return None
    if snapshot_id not in world.snapshots:
        raise ApiError(404, f"Snapshot {snapshot_id} could not be found.")
    return world.snapshots[snapshot_id]


def wishes_of(image: Image | None) -> list[dict[str, Any]]:
    """The disks that Nova makes of an image of a server's volumes; none of any other."""
    found: list[dict[str, Any]] = (
        json.loads(image.properties.get("block_device_mapping", "[]")) if image else []
    )
    return found


def check_source(snapshot: Snapshot, size: int) -> None:
    """`ApiError` where no volume of so many GiB can be made from a snapshot; in Cinder's words."""
    if snapshot.status != "available":
        told = "Originating snapshot status must be one of 'available' values"
        raise ApiError(400, f"Invalid snapshot: {told}")
    if size < snapshot.size:
        raise ApiError(
            400,
            f"Invalid input received: Volume size '{size}'GB cannot be smaller than the snapshot size "
            f"{snapshot.size}GB. They must be >= original snapshot size.",
        )


def zone_of(world: World, wanted: str | None, snapshot: Snapshot | None) -> str:
    """The zone of a volume to be made, which is that of the volume that a snapshot was taken of."""
    zone = wanted or (snapshot.volume.zone if snapshot is not None else ZONE)
    if not world.volume_zones.get(zone):
        raise ApiError(400, f"Availability zone '{zone}' is invalid.")
    if snapshot is not None and zone != snapshot.volume.zone:
        told = "Volume must be in the same availability zone as the snapshot"
        raise ApiError(400, f"Invalid input received: {told}")
    return zone


def mapping_of(snapshot: Snapshot, volume: Volume, number: int) -> dict[str, Any]:
    """Return Nova's record of a block device, by which an image names a volume of its server."""
    return {
        "snapshot_id": snapshot.id,
        "device_name": volume.device,
        "image_id": None,
        "volume_size": volume.size,
        "boot_index": -1 if number else 0,
        "destination_type": "volume",
        "volume_id": None,
        "volume_type": None,
        "delete_on_termination": volume.goes_with_server,
        "source_type": "snapshot",
        "guest_format": None,
        "disk_bus": None,
        "device_type": None,
        "no_device": None,
        "tag": None,
    }


def shown(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as the API shows it."""
    return {
        "id": snapshot.id,
        "name": snapshot.name,
        "status": snapshot.status,
        "size": snapshot.size,
        "volume_id": snapshot.volume.id,
        "created_at": stamp(snapshot.created, "micro"),
        "updated_at": None,
        "description": "",
        "metadata": {},
    }

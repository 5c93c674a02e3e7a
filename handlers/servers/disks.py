"""The system disk among a server's volumes, and the image that the server was made from."""

from collections.abc import Iterable, Mapping

from handlers.openstack.cinder import Volume
from handlers.openstack.nova import Server


def system_and_data(
    server: Server, attached: Iterable[Volume]
) -> tuple[Volume | None, list[Volume]]:
    """Return the system disk where it is a volume, and the others in the order of their devices."""
    # The shorter name first: /dev/vdz comes before /dev/vdaa.
    volumes = sorted(attached, key=lambda one: (len(one.device or ""), one.device or ""))
    if not volumes or (server.image_id is not None and not _is_root(volumes[0])):
        return None, volumes
    system = next((one for one in volumes if one.bootable), volumes[0])
    return system, [one for one in volumes if one is not system]


def _is_root(volume: Volume) -> bool:
    """True where a server with an image boots from the volume nevertheless.

    Nova names the image of a server that it has itself booted from an image of volumes, and makes
    these of snapshots.
    """
    return (
        volume.bootable and volume.snapshot_id is not None and (volume.device or "").endswith("da")
    )


def image_of(
    server: Server, system: Volume | None, images_of_snapshots: Mapping[str, str]
) -> str | None:
    """Return the id of the image that the server was made from; image ids by the snapshots that
    images consist of.

    Of a disk that was made from a snapshot Cinder names the image from which the first of its line
    was made.
    """
    if server.image_id is not None or system is None:
        return server.image_id
    return images_of_snapshots.get(system.snapshot_id or "") or system.image_id

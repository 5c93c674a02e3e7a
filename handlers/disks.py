"""Which of a server's volumes is its system disk."""

from collections.abc import Iterable

from handlers.compute import Server
from handlers.volumes import Volume


def system_and_data(server: Server, attached: Iterable[Volume]) -> tuple[Volume | None, list[Volume]]:
    """The system disk where it is a volume, and the others in the order of their devices."""
    # The shorter name first: /dev/vdz comes before /dev/vdaa.
    volumes = sorted(attached, key=lambda one: (len(one.device or ""), one.device or ""))
    if server.image_id is not None or not volumes:
        return None, volumes
    system = next((one for one in volumes if one.bootable), volumes[0])
    return system, [one for one in volumes if one is not system]


def image_of(server: Server, system: Volume | None) -> str | None:
    """The id of the image that the server was made from."""
    return server.image_id or (system.image_id if system is not None else None)

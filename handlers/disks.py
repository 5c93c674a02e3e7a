"""Which of a server's volumes is its system disk."""

from collections.abc import Iterable

from handlers.compute import Server
from handlers.volumes import Volume


def system_and_data(server: Server, attached: Iterable[Volume]) -> tuple[Volume | None, list[Volume]]:
    """The system disk where it is a volume, and the others in the order of their devices."""
    volumes = sorted(attached, key=lambda one: (not one.bootable, one.device or ""))
    if server.image_id is None and volumes:
        return volumes[0], volumes[1:]
    return None, volumes


def image_of(server: Server, system: Volume | None) -> str | None:
    """The id of the image that the server was made from."""
    return server.image_id or (system.image_id if system is not None else None)

"""The tenant's servers that use an image: made from it, or with a disk that was."""

import asyncio
from collections.abc import Collection, Iterable

from handlers.context import ProjectContext
from handlers.openstack.cinder import Volume, list_volumes
from handlers.openstack.glance import Image
from handlers.openstack.nova import Server, list_servers, name_of_user
from handlers.servers.guard import FEW, find_server


async def users_of(images: Collection[Image], context: ProjectContext) -> dict[str, str]:
    """Return the name of one of its users by the id of each of these images that has any."""
    volumes = context.retrying(lambda: list_volumes(context.project))
    if len(images) > FEW:
        servers = context.retrying(lambda: list_servers(context.project))
        return _by_image(images, *await asyncio.gather(servers, volumes))
    names, listed = await asyncio.gather(_made_from(images, context), volumes)
    for image in images:
        if (
            image.id not in names
            and (name := await _with_disk_of(image, listed, context)) is not None
        ):
            names[image.id] = name
    return names


async def _made_from(images: Iterable[Image], context: ProjectContext) -> dict[str, str]:
    """A few images: Nova finds each one's user, however many servers there are."""

    async def user(image_id: str) -> tuple[str, str | None]:
        return image_id, await context.retrying(lambda: name_of_user(context.project, image_id))

    found = await asyncio.gather(*(user(one.id) for one in images))
    return {image_id: name for image_id, name in found if name is not None}


async def _with_disk_of(
    image: Image, volumes: Iterable[Volume], context: ProjectContext
) -> str | None:
    for server_id in sorted(
        {one for volume in volumes if _is_of(volume, image) for one in volume.server_ids}
    ):
        if (server := await find_server(context, server_id)) is not None:
            return server.shown_name
    return None


def _is_of(volume: Volume, image: Image) -> bool:
    """True where a volume was made of an image: of its data, or of one of the snapshots that it
    consists of.

    Of the latter Cinder does not say so: it names the image where the line of snapshots began.
    """
    return volume.image_id == image.id or volume.snapshot_id in image.snapshot_ids


def _by_image(
    images: Iterable[Image], servers: Iterable[Server], volumes: Iterable[Volume]
) -> dict[str, str]:
    by_id = {server.id: server for server in servers}
    names = {
        server.image_id: server.shown_name
        for server in by_id.values()
        if server.image_id is not None
    }
    used = [(one, by_id[server]) for one in volumes for server in one.server_ids if server in by_id]
    found: dict[str, str] = {}
    for image in images:
        with_disk = (server.shown_name for volume, server in used if _is_of(volume, image))
        if (name := names.get(image.id) or next(with_disk, None)) is not None:
            found[image.id] = name
    return found

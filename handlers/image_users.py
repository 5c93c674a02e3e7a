"""Which of the tenant's servers uses an image: made from it, or with a disk that was."""

import asyncio
from collections.abc import Collection, Iterable

from handlers.compute import Server, list_servers, name_of_user
from handlers.context import Context
from handlers.servers import FEW, find_server
from handlers.volumes import Volume, list_volumes


async def users_of(image_ids: Collection[str], context: Context) -> dict[str, str]:
    """The name of one of its users by the id of each of these images that has any."""
    volumes = context.patiently(lambda: list_volumes(context.project))
    if len(image_ids) > FEW:
        servers = context.patiently(lambda: list_servers(context.project))
        return _by_image(image_ids, *await asyncio.gather(servers, volumes))
    names, listed = await asyncio.gather(_made_from(image_ids, context), volumes)
    for image_id in set(image_ids) - names.keys():
        if (name := await _with_disk_of(image_id, listed, context)) is not None:
            names[image_id] = name
    return names


async def _made_from(image_ids: Iterable[str], context: Context) -> dict[str, str]:
    """A few images: Nova finds each one's user, however many servers there are."""

    async def user(image_id: str) -> tuple[str, str | None]:
        return image_id, await context.patiently(lambda: name_of_user(context.project, image_id))

    found = await asyncio.gather(*map(user, image_ids))
    return {image_id: name for image_id, name in found if name is not None}


async def _with_disk_of(image_id: str, volumes: Iterable[Volume], context: Context) -> str | None:
    for server_id in sorted({one.server_id for one in volumes if one.image_id == image_id and one.server_id}):
        if (server := await find_server(context, server_id)) is not None:
            return server.shown_name
    return None


def _by_image(image_ids: Collection[str], servers: Iterable[Server], volumes: Iterable[Volume]) -> dict[str, str]:
    by_id = {server.id: server for server in servers}
    uses = [(server.image_id, server) for server in by_id.values()]
    uses += [(one.image_id, by_id[one.server_id]) for one in volumes if one.server_id in by_id]
    return {image_id: server.shown_name for image_id, server in uses if image_id and image_id in image_ids}

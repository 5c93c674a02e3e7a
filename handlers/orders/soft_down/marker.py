"""The mark that softDown leaves on a server that it has stopped: by it a renewal finds out that it
is to be started.
"""

from collections.abc import Awaitable, Callable

from handlers.context import ProjectContext
from handlers.openstack import nova
from handlers.openstack.cloud import Reply
from handlers.openstack.nova import Server
from handlers.orders.steps import change_metadata

ITEM, STOPPED = "soft_down", "stopped"


def is_marked(server: Server) -> bool:
    """Whether softDown has stopped it, and nobody has paid since."""
    return server.metadata.get(ITEM) == STOPPED


async def mark(server_id: str, context: ProjectContext, effect: str = "mark", **named: str) -> None:
    """Leave the mark; `named` is the item that names the order which has stopped the server."""
    items = {ITEM: STOPPED} | named
    await _change(
        server_id,
        f"{effect}:{server_id}",
        context,
        # Marked by an order before this one is not enough: this one is known again by its name.
        ends=lambda server: items.items() <= server.metadata.items(),
        do=lambda: nova.set_metadata(context.project, server_id, items),
    )


async def unmark(server_id: str, context: ProjectContext) -> None:
    """Take the mark away."""
    await _change(
        server_id,
        f"unmark:{server_id}",
        context,
        ends=lambda server: not is_marked(server),
        do=lambda: nova.remove_metadata(context.project, server_id, ITEM),
    )


async def _change(
    server_id: str,
    effect: str,
    context: ProjectContext,
    *,
    ends: Callable[[Server], bool],
    do: Callable[[], Awaitable[Reply]],
) -> None:
    async def is_so() -> str | None:
        server = await nova.get_server(context.project, server_id)
        return "" if ends(server) else None

    async def landed(_: object) -> str | None:
        return await is_so()

    await change_metadata(server_id, effect, do, landed, context, marked=is_so)

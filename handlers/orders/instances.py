"""The servers that an order names: there, and nothing else under way with them."""

from handlers.context import ProjectContext
from handlers.effects.backoff import Deadline
from handlers.openstack.nova import GONE, Server
from handlers.servers.guard import find_server, unknown_server, wait_until_idle
from messages.errors import Transient


async def idle_server(server_id: str, context: ProjectContext) -> Server:
    """The tenant's server once no task is under way. `Refused` where there is none, `Transient`
    where it stays busy.
    """
    with context.checks.of("instance", server_id):
        server = await find_remaining(server_id, context)
        if server is None:
            raise unknown_server(server_id, None)
        server = await wait_until_idle(
            context, server, min(context.times.hold, Deadline.after(context.times.wait_timeout))
        )
        if server.status in GONE:
            raise unknown_server(server_id, None)
        if server.busy:
            raise Transient("busy", detail=f"the server is busy with {server.task_state}")
    return server


async def find_remaining(server_id: str, context: ProjectContext) -> Server | None:
    """The tenant's server as long as it is there: one that the cloud keeps for a while after its
    deletion is gone.
    """
    server = await find_server(context, server_id)
    return server if server is not None and server.status not in GONE else None

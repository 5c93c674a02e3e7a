"""The servers that an order names: there, and nothing else under way with them."""

from handlers.compute import Server
from handlers.context import Context
from handlers.deadlines import Deadline
from handlers.servers import find_server, unknown_server, wait_until_idle
from messages.errors import Transient


async def idle_server(server_id: str, context: Context) -> Server:
    """The tenant's server once no task is under way. `Refused` where there is none, `Transient` where it stays busy."""
    with context.checks.of("instance", server_id):
        server = await find_server(context, server_id)
        if server is None:
            raise unknown_server(server_id, None)
        server = await wait_until_idle(context, server, min(context.hold, Deadline.after(context.wait_limit)))
        if server.busy:
            raise Transient("busy", detail=f"the server is busy with {server.task_state}")
    return server

"""The requester's servers: found, guarded, waited for."""

from collections.abc import Iterable

from handlers.compute import Server, get_server, list_servers
from handlers.context import Context
from handlers.deadlines import Deadline
from handlers.errors import NotFound
from messages.codes import Code
from messages.commands import Force, Power
from messages.errors import Refused
from messages.status import server_update

#: Up to so many servers (or volumes) are asked for singly: a list of all the tenant's would be the longer answer.
FEW = 4
#: The states that an action needs. A hard reboot takes what Nova takes.
STATES = {
    (Power.START, Force.SOFT): frozenset({"SHUTOFF"}),
    (Power.STOP, Force.SOFT): frozenset({"ACTIVE"}),
    (Power.STOP, Force.HARD): frozenset({"ACTIVE"}),
    (Power.REBOOT, Force.SOFT): frozenset({"ACTIVE"}),
    (Power.REBOOT, Force.HARD): frozenset({"ACTIVE", "ERROR", "PAUSED", "SHUTOFF", "SUSPENDED"}),
}
#: The metadata item without which a server counts as not paid for.
CHARGE_TYPE = "charge_type"


async def find_server(context: Context, server_id: str) -> Server | None:
    """The requester's server; None where it is another's, or there is none."""
    try:
        server = await context.patiently(lambda: get_server(context.project, server_id))
    except NotFound:
        return None
    return server if _is_there(server, context) else None


async def find_servers(context: Context, server_ids: Iterable[str]) -> dict[str, Server]:
    """Those of the requester's servers that there are, in a constant number of calls."""
    wanted = set(server_ids)
    if len(wanted) <= FEW:
        found = [server for one in wanted if (server := await find_server(context, one)) is not None]
    else:
        found = await context.patiently(lambda: list_servers(context.project))
    return {server.id: server for server in found if server.id in wanted and _is_there(server, context)}


def _is_there(server: Server, context: Context) -> bool:
    """An admin's role would show other tenants' servers, too; and Nova shows for a moment what it has just deleted."""
    return server.project_id == context.project.id and server.status != "DELETED"


def unknown_server(server_id: str, power: Power | None) -> Refused:
    """The refusal of a server that the requester does not have."""
    return Refused(Code.SERVER_NOT_OWNED) if power is Power.STOP else Refused(Code.SERVER_UNKNOWN, server_id)


def unpaid(server: Server, power: Power, context: Context) -> bool:
    """Whether the fee rule forbids it."""
    return power is Power.STOP and context.policy.require_fee_data and not server.metadata.get(CHARGE_TYPE)


def judge_state(server: Server, states: frozenset[str]) -> Refused | None:
    """The refusal of a server that is not in one of the states, or that is still busy or locked in them."""
    if server.status not in states:
        return Refused(Code.SERVER_STATE)
    if server.busy:
        return Refused(Code.FAILED, reason="busy", detail=f"the server is busy with {server.task_state}")
    if server.locked:
        return Refused(Code.FAILED, reason="locked", detail="the server is locked")
    return None


async def wait_until_idle(context: Context, server: Server, until: Deadline, power: Power | None = None) -> Server:
    """The server once no task is under way; as it is then, if the time is up before. `Refused` when it goes away."""
    if not server.busy:
        return server
    with context.watches.servers.follow(server.id) as feed:
        while server.busy:
            try:
                server = await feed.next(until)
            except TimeoutError:
                break
            except NotFound:
                raise unknown_server(server.id, power) from None
    return server


async def follow_to_end(
    context: Context, server_id: str, action: str, first: tuple[str, str | None], effect: str
) -> None:
    """Tell a server's course from an accepted action to its final state.

    `first` is its status and the task that Nova has set before it answered. A server without a task has ended: Nova
    sets the task before it accepts an action. At the limit of patience the last known state is the final one. It asks
    the watch alone, which waits out a cloud that does not answer: what was answered must have its end.
    """
    status, task = first
    await context.tell(server_update(server_id, action, status, task, final=False))
    with context.watches.servers.follow(server_id) as feed:
        while task is not None:
            try:
                server = await context.next(feed, effect)
            except TimeoutError:
                break
            except NotFound:
                status = "DELETED"
                break
            if server.busy and (server.status, server.task_state) != (status, task):
                await context.tell(server_update(server_id, action, server.status, server.task_state, final=False))
            status, task = server.status, server.task_state
    await context.tell(server_update(server_id, action, status, None, final=True))

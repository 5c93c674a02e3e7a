"""Guards of the requester's servers: find one, refuse one, wait until nothing is in the way."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from handlers.context import ProjectContext
from handlers.effects.backoff import Deadline, delays
from handlers.openstack.errors import CloudRefusal, Conflict, NotFound
from handlers.openstack.nova import Server, get_server, list_servers
from messages.codes import Code
from messages.commands import Power
from messages.errors import Refused, Transient

#: Up to so many servers (or volumes) are asked for singly: a list of all the tenant's would be the
#: longer answer.
FEW = 4
_NONE: frozenset[str] = frozenset()
#: The metadata item without which a server counts as not paid for.
CHARGE_TYPE = "charge_type"


async def find_server(context: ProjectContext, server_id: str) -> Server | None:
    """Return the requester's server; None where it is another's, or there is none."""
    try:
        server = await context.retrying(lambda: get_server(context.project, server_id))
    except NotFound:
        return None
    return server if _is_there(server, context) else None


async def require_server(
    context: ProjectContext, server_id: str, power: Power | None = None
) -> Server:
    """Return the requester's server, or raise the refusal of one that he does not have."""
    server = await find_server(context, server_id)
    if server is None:
        raise unknown_server(server_id, power)
    return server


async def find_servers(
    context: ProjectContext, server_ids: Sequence[str]
) -> tuple[dict[str, Server], dict[str, Refused]]:
    """Return those of the requester's servers that there are, in a constant number of calls, and by
    their ids why the cloud does not tell of others.
    """
    found: dict[str, Server] = {}
    unseen: dict[str, Refused] = {}

    async def find(server_id: str) -> None:
        try:
            if (server := await find_server(context, server_id)) is not None:
                found[server_id] = server
        except (Transient, CloudRefusal) as error:
            unseen[server_id] = Refused(Code.FAILED, reason=error.reason, detail=str(error))

    if len(server_ids) <= FEW:
        await asyncio.gather(*map(find, server_ids))
        return found, unseen
    try:
        listed = await context.retrying(lambda: list_servers(context.project))
    except (Transient, CloudRefusal) as error:
        refused = Refused(Code.FAILED, reason=error.reason, detail=str(error))
        return {}, dict.fromkeys(server_ids, refused)
    wanted = set(server_ids)
    return {one.id: one for one in listed if one.id in wanted and _is_there(one, context)}, {}


def _is_there(server: Server, context: ProjectContext) -> bool:
    """An admin's role shows other tenants' servers, and Nova a moment long what it has deleted."""
    return server.project_id == context.project.id and server.status != "DELETED"


def unknown_server(server_id: str, power: Power | None) -> Refused:
    """Return the refusal of a server that the requester does not have."""
    if power is Power.STOP:
        return Refused(Code.SERVER_NOT_OWNED)
    return Refused(Code.SERVER_UNKNOWN, server_id)


def state_refusal(
    server: Server, states: frozenset[str], tasks: frozenset[str] = _NONE
) -> Refused | None:
    """Return the refusal of a server that is not in one of the states, or that is busy or locked in
    them; None where it is right. `tasks` are those that are in nobody's way.
    """
    if server.status not in states:
        return Refused(Code.SERVER_STATE)
    if server.busy and server.task_state not in tasks:
        return Refused(
            Code.FAILED, reason="busy", detail=f"the server is busy with {server.task_state}"
        )
    if server.locked:
        return Refused(Code.FAILED, reason="locked", detail="the server is locked")
    return None


async def wait_until_idle(
    context: ProjectContext,
    server: Server,
    until: Deadline,
    power: Power | None = None,
    tasks: frozenset[str] = _NONE,
) -> Server:
    """Return the server once no task is under way but one of `tasks`; as it is then, where the time
    is up before. Raises `Refused` when it goes away.
    """
    if not server.busy or server.task_state in tasks:
        return server
    with context.watchers.servers.follow(server.id) as poller, context.waits.on(poller):
        while server.busy and server.task_state not in tasks:
            try:
                server = await poller.next(until)
            except TimeoutError:
                break
            except NotFound:
                raise unknown_server(server.id, power) from None
    return server


async def retrying_conflicts(
    act: Callable[[], Awaitable[None]],
    context: ProjectContext,
    refusal: Callable[[Conflict], Refused],
) -> None:
    """Repeat `act` while OpenStack answers that another task is in the way, within the time limit;
    then raise the refusal.

    `act` looks at the server each time anew: its state may have changed with the task.
    """
    for delay in delays(0.5, 4.0):
        try:
            await act()
        except Conflict as error:
            if delay > context.effects.retry_until.left:
                raise refusal(error) from error
            await asyncio.sleep(delay)
        else:
            return

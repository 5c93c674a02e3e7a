"""The requester's servers: found, guarded, waited for."""

import asyncio
from collections.abc import Sequence

from handlers.context import ProjectContext
from handlers.effects.backoff import Deadline
from handlers.effects.ledger import EffectId
from handlers.openstack.errors import CloudRefusal, NotFound
from handlers.openstack.nova import Server, get_server, list_servers
from messages.codes import Code
from messages.commands import Force, Power
from messages.errors import Refused, Transient
from messages.updates import server_update

#: Up to so many servers (or volumes) are asked for singly: a list of all the tenant's would be the
#: longer answer.
FEW = 4
#: The states that an action needs. A hard reboot takes what Nova takes, also in the middle of these
#: tasks.
STATES = {
    (Power.START, Force.SOFT): frozenset({"SHUTOFF"}),
    (Power.STOP, Force.SOFT): frozenset({"ACTIVE"}),
    (Power.STOP, Force.HARD): frozenset({"ACTIVE"}),
    (Power.REBOOT, Force.SOFT): frozenset({"ACTIVE"}),
    (Power.REBOOT, Force.HARD): frozenset(
        {"ACTIVE", "ERROR", "HARD_REBOOT", "PAUSED", "REBOOT", "SHUTOFF", "SUSPENDED"}
    ),
}
#: The tasks that an action need not wait for: Nova's own list.
TASKS = {
    (Power.REBOOT, Force.HARD): frozenset(
        {
            "rebooting",
            "reboot_pending",
            "reboot_started",
            "rebooting_hard",
            "pausing",
            "unpausing",
            "suspending",
            "resuming",
        }
    )
}
_NONE: frozenset[str] = frozenset()
#: The metadata item without which a server counts as not paid for.
CHARGE_TYPE = "charge_type"


async def find_server(context: ProjectContext, server_id: str) -> Server | None:
    """The requester's server; None where it is another's, or there is none."""
    try:
        server = await context.retrying(lambda: get_server(context.project, server_id))
    except NotFound:
        return None
    return server if _is_there(server, context) else None


async def find_servers(
    context: ProjectContext, server_ids: Sequence[str]
) -> tuple[dict[str, Server], dict[str, Refused]]:
    """Those of the requester's servers that there are, in a constant number of calls.

    And, by their ids, why it cannot be told of others.
    """
    if len(server_ids) > FEW:
        return await _find_among_all(context, set(server_ids))
    found: dict[str, Server] = {}
    unseen: dict[str, Refused] = {}

    async def find(server_id: str) -> None:
        try:
            if (server := await find_server(context, server_id)) is not None:
                found[server_id] = server
        except (Transient, CloudRefusal) as error:
            unseen[server_id] = _unseen(error)

    await asyncio.gather(*map(find, server_ids))
    return found, unseen


async def _find_among_all(
    context: ProjectContext, wanted: set[str]
) -> tuple[dict[str, Server], dict[str, Refused]]:
    try:
        listed = await context.retrying(lambda: list_servers(context.project))
    except (Transient, CloudRefusal) as error:
        return {}, dict.fromkeys(wanted, _unseen(error))
    return {
        server.id: server for server in listed if server.id in wanted and _is_there(server, context)
    }, {}


def _unseen(error: Transient | CloudRefusal) -> Refused:
    """The failure of a server that the cloud does not show."""
    return Refused(Code.FAILED, reason=error.reason, detail=str(error))


def _is_there(server: Server, context: ProjectContext) -> bool:
    """An admin's role would show other tenants' servers, too; and Nova shows for a moment what it
    has just deleted.
    """
    return server.project_id == context.project.id and server.status != "DELETED"


def unknown_server(server_id: str, power: Power | None) -> Refused:
    """The refusal of a server that the requester does not have."""
    return (
        Refused(Code.SERVER_NOT_OWNED)
        if power is Power.STOP
        else Refused(Code.SERVER_UNKNOWN, server_id)
    )


def unpaid(server: Server, power: Power, context: ProjectContext) -> bool:
    """Whether the fee rule forbids it."""
    return (
        power is Power.STOP
        and context.policy.require_fee_data
        and not server.metadata.get(CHARGE_TYPE)
    )


def judge_state(
    server: Server, states: frozenset[str], tasks: frozenset[str] = _NONE
) -> Refused | None:
    """The refusal of a server that is not in one of the states, or that is still busy or locked in
    them.

    `tasks` are those that are in nobody's way.
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
    """The server once no task is under way but one of `tasks`; as it is then, if the time is up
    before.

    `Refused` when it goes away.
    """
    if not server.busy or server.task_state in tasks:
        return server
    with context.watchers.servers.follow(server.id) as feed:
        while server.busy and server.task_state not in tasks:
            try:
                server = await feed.next(until)
            except TimeoutError:
                break
            except NotFound:
                raise unknown_server(server.id, power) from None
    return server


async def follow_to_end(
    context: ProjectContext,
    server_id: str,
    action: str,
    first: tuple[str, str | None],
    effect: EffectId,
    *,
    overtaken: str | None = None,
) -> None:
    """Tell a server's course from an accepted action to its final state.

    `first` is its status and the task that Nova has set before it answered. A server without a task
    has ended: Nova sets the task before it accepts an action. So has one in the status `overtaken`:
    another action has taken its place, whose success or failure is not this one's. At the limit of
    patience the last known state is the final one. It asks the watch alone, which waits out a cloud
    that does not answer: what was answered must have its end.
    """
    if context.replies.final_published("server", server_id):
        return
    status, task = first
    if task is not None:
        await context.replies.publish(server_update(server_id, action, status, task, final=False))
    with context.watchers.servers.follow(server_id) as feed:
        while task is not None and status != overtaken:
            try:
                server = await context.next(feed, effect)
            except TimeoutError:
                break
            except NotFound:
                status = "DELETED"
                break
            is_new = (server.status, server.task_state) != (status, task)
            if server.busy and server.status != overtaken and is_new:
                await context.replies.publish(
                    server_update(server_id, action, server.status, server.task_state, final=False)
                )
            status, task = server.status, server.task_state
    await context.replies.publish(server_update(server_id, action, status, None, final=True))


async def tell_end(context: ProjectContext, server_id: str, action: str, effect: EffectId) -> None:
    """Tell in what state a server ends of which it could not be told whether an action was carried
    out.

    `Transient` where Nova does not say.
    """
    if context.replies.final_published("server", server_id):
        return
    server = await find_server(context, server_id)
    first = (server.status, server.task_state) if server is not None else ("DELETED", None)
    await follow_to_end(context, server_id, action, first, effect)

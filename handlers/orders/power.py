"""Starting and stopping a server for an order, done once and proven by Nova's action log."""

from handlers.context import ProjectContext
from handlers.effects.once import EffectName
from handlers.openstack.errors import CloudRefusal, Conflict
from handlers.openstack.nova import Server, change_power
from handlers.orders.progress import OrderProgress
from handlers.orders.step import Ready, Step, failed
from handlers.orders.steps import follow_server, logged, logged_action, server_now
from handlers.servers.targets import power_effect
from messages.commands import Force, Power
from messages.errors import Transient
from messages.updates import OrderStatus

#: The order's status meanwhile.
_STATUS = {Power.STOP: OrderStatus.STOPPING, Power.START: OrderStatus.STARTING}
#: The server's status then, and Nova's name of the action.
_ENDS = {Power.START: ("ACTIVE", "start"), Power.STOP: ("SHUTOFF", "stop")}


def power_step(
    server: Server, power: Power, context: ProjectContext, progress: OrderProgress
) -> Step:
    """Start or stop a server; nothing is done where it is so already.

    A server that is busy, or was quicker than the call, is `Transient`: the next run looks again.
    """
    effect, (end, action) = power_effect(power, server.id), _ENDS[power]

    async def prepare() -> Ready | None:
        found = await server_now(server.id, context)
        is_so = found.status == end and not found.busy
        return Ready(found.updated) if not is_so else None

    async def refused(error: CloudRefusal) -> None:
        if isinstance(error, Conflict):
            raise Transient(error.reason, detail=str(error)) from error
        raise error.as_failure() from error

    async def follow() -> None:
        found = await follow_server(server.id, effect, context, progress, lambda it: not it.busy)
        if found.status != end:
            await _check(found, effect, f"{action}_failed", context)

    return Step(
        name=action,
        effect=effect,
        instance_id=server.id,
        before=server.status,
        after=end,
        prepare=prepare,
        act=lambda: change_power(context.project, server.id, power, Force.SOFT),
        landed=logged(context, server.id, action),
        refused=refused,
        follow=follow,
        status=_STATUS[power],
    )


async def switch(
    server_id: str,
    power: Power,
    context: ProjectContext,
    progress: OrderProgress,
    *,
    effect: EffectName | None = None,
) -> Server:
    """The server once it has been started or stopped; nothing is done where it is so already.

    `effect` is its name in the journal. A server that is busy or was quicker than we is
    `Transient`: the next try sees.
    """
    effect = effect or power_effect(power, server_id)
    end, action = _ENDS[power]
    server = await server_now(server_id, context)
    if server.status == end and not server.busy and not context.effects.begun(effect):
        return server
    try:
        await context.effects.once(
            effect,
            do=lambda: change_power(context.project, server_id, power, Force.SOFT),
            landed=logged(context, server_id, action),
            marker=server.updated,
        )
    except Conflict as error:
        raise Transient(error.reason, detail=str(error)) from error
    except CloudRefusal as error:
        raise error.as_failure() from error
    server = await follow_server(server_id, effect, context, progress, lambda found: not found.busy)
    if server.status != end:
        await _check(server, effect, f"{action}_failed", context)
    return server


async def _check(server: Server, effect: EffectName, reason: str, context: ProjectContext) -> None:
    """What was done and then undone by somebody else was done."""
    logged = await logged_action(
        server.id, context.effects.request_id(effect), context, until_ended=True
    )
    if logged is None or logged.failed or not logged.finished:
        raise failed(reason, f"the server is {server.status}")

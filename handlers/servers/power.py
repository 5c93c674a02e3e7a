"""Start, stop and reboot one server."""

import asyncio
from typing import Any

from handlers.context import ProjectContext
from handlers.effects.backoff import delays
from handlers.effects.ledger import EffectId
from handlers.effects.once import Landed
from handlers.openstack.errors import CloudRefusal, Conflict, NotFound
from handlers.openstack.nova import Server, change_power, find_action, find_actions
from handlers.servers.guard import (
    STATES,
    TASKS,
    find_server,
    follow_to_end,
    judge_state,
    tell_end,
    unknown_server,
    unpaid,
    wait_until_idle,
)
from handlers.servers.targets import power_effect, told_unknown
from messages.codes import Code
from messages.commands import Force, Power, PowerAction
from messages.errors import Refused
from messages.results import Result

#: Nova's name of the action in its own log.
_LOGGED_AS = {Power.START: "start", Power.STOP: "stop", Power.REBOOT: "reboot"}
#: The status and the task that a server has when Nova has accepted it.
FIRST_STATE = {
    (Power.START, Force.SOFT): ("SHUTOFF", "powering-on"),
    (Power.STOP, Force.SOFT): ("ACTIVE", "powering-off"),
    (Power.STOP, Force.HARD): ("ACTIVE", "powering-off"),
    (Power.REBOOT, Force.SOFT): ("REBOOT", "rebooting"),
    (Power.REBOOT, Force.HARD): ("HARD_REBOOT", "rebooting_hard"),
}
#: The status of a server that another action has taken over: a hard reboot does not wait for a soft
#: one.
OVERTAKEN = {(Power.REBOOT, Force.SOFT): "HARD_REBOOT"}
_NONE: frozenset[str] = frozenset()
#: The journal's name for an action on a server.
effect_name = power_effect


async def act_on_server(task: PowerAction, context: ProjectContext) -> Result:
    """Carry it out; answered once Nova has accepted it, followed until it has ended."""
    effect = effect_name(task.power, task.server_id)
    accepted = Result.of(Code.OK)
    if context.answered is not None:
        await find_out(task.server_id, task.power, context)
    elif not context.effects.done(effect):
        await _have_it_accepted(task, effect, context)
    if context.effects.done(effect):
        await context.replies.answer(accepted)
        await follow_accepted(task.server_id, task.power, task.force, context)
    elif context.answered is not None and told_unknown(context.answered):
        await tell_end(context, task.server_id, task.power.value, effect)
    return context.answered or accepted


async def _have_it_accepted(task: PowerAction, effect: EffectId, context: ProjectContext) -> None:
    server = await find_server(context, task.server_id)
    if server is None:
        raise unknown_server(task.server_id, task.power)
    if not context.effects.begun(effect):
        if unpaid(server, task.power, context):
            raise Refused(Code.SERVER_UNPAID)
        server = await idle_for(server, task.power, task.force, context)
    await begin(server, task.power, task.force, context)


async def idle_for(server: Server, power: Power, force: Force, context: ProjectContext) -> Server:
    """The server once no task is in the way of the action; as it is then, if the time is up before."""
    return await wait_until_idle(
        context, server, context.times.deadline, power, TASKS.get((power, force), _NONE)
    )


def judge_for(server: Server, power: Power, force: Force) -> Refused | None:
    """The refusal of a server that is not in a state for the action."""
    return judge_state(server, STATES[power, force], TASKS.get((power, force), _NONE))


async def begin(server: Server, power: Power, force: Force, context: ProjectContext) -> None:
    """Have Nova accept it, or `Refused`. A conflicting task is waited out, and the state is judged
    again.
    """
    name = effect_name(power, server.id)
    for delay in delays(0.5, 4.0):
        if not context.effects.begun(name) and (refused := judge_for(server, power, force)):
            raise refused
        try:
            await _change_power(server, power, force, context)
        except Conflict as error:
            server = await _after_conflict(server, power, force, context, delay=delay, error=error)
        except NotFound:
            raise unknown_server(server.id, power) from None
        except CloudRefusal as error:
            raise error.as_failure() from error
        else:
            return


async def find_out(server_id: str, power: Power, context: ProjectContext) -> None:
    """Look whether what may have been begun was; nothing is begun."""
    await context.effects.find_out(
        effect_name(power, server_id), _logged(server_id, power, context)
    )


async def follow_accepted(
    server_id: str, power: Power, force: Force, context: ProjectContext
) -> None:
    """Tell the course of what Nova has accepted, to its end."""
    first, effect = FIRST_STATE[power, force], effect_name(power, server_id)
    await follow_to_end(
        context, server_id, power.value, first, effect, overtaken=OVERTAKEN.get((power, force))
    )


async def _change_power(
    server: Server, power: Power, force: Force, context: ProjectContext
) -> None:
    await context.effects.once(
        effect_name(power, server.id),
        do=lambda: change_power(context.project, server.id, power, force),
        landed=_logged(server.id, power, context),
        marker=await _marker(server, power, context),
    )


async def _marker(server: Server, power: Power, context: ProjectContext) -> str | dict[str, Any]:
    """Nova's clock. In the middle of a task also the actions of this kind that have begun since:
    they are not ours.

    Nova's log does not tell a hard reboot from the soft one that it does not wait for.
    """
    if not server.busy or context.effects.begun(effect_name(power, server.id)):
        return server.updated
    since, action = server.updated, _LOGGED_AS[power]
    others = await context.retrying(lambda: find_actions(context.project, server.id, action, since))
    return {"since": since, "others": others}


def _logged(server_id: str, power: Power, context: ProjectContext) -> Landed:
    async def landed(marker: str | dict[str, Any]) -> str | None:
        since, others = (
            (marker, ()) if isinstance(marker, str) else (marker["since"], marker["others"])
        )
        return await find_action(context.project, server_id, _LOGGED_AS[power], since, others)

    return landed


async def _after_conflict(
    server: Server,
    power: Power,
    force: Force,
    context: ProjectContext,
    *,
    delay: float,
    error: Conflict,
) -> Server:
    """The server as it is once what was in the way has ended; what stays in the way ends the
    request in time.
    """
    if delay > context.times.deadline.left:
        raise error.as_failure() from error
    await asyncio.sleep(delay)
    found = await find_server(context, server.id)
    if found is None:
        raise unknown_server(server.id, power)
    return await idle_for(found, power, force, context)

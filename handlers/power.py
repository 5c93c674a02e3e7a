"""Start, stop and reboot one server."""

import asyncio

from handlers.compute import Server, change_power, find_action
from handlers.context import Context
from handlers.deadlines import growing
from handlers.errors import CloudRefusal, Conflict, NotFound
from handlers.servers import (
    STATES,
    find_server,
    follow_to_end,
    judge_state,
    unknown_server,
    unpaid,
    wait_until_idle,
)
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


async def act_on_server(task: PowerAction, context: Context) -> Result:
    """Carry it out; answered once Nova has accepted it, followed until it has ended."""
    effect = effect_name(task.power, task.server_id)
    if not context.effects.done(effect):
        await _have_it_accepted(task, effect, context)
    accepted = Result.of(Code.OK)
    await context.answer(accepted)
    await follow_to_end(context, task.server_id, task.power.value, FIRST_STATE[task.power, task.force], effect)
    return accepted


async def _have_it_accepted(task: PowerAction, effect: str, context: Context) -> None:
    server = await find_server(context, task.server_id)
    if server is None:
        raise unknown_server(task.server_id, task.power)
    if not context.effects.begun(effect):
        if unpaid(server, task.power, context):
            raise Refused(Code.SERVER_UNPAID)
        server = await wait_until_idle(context, server, context.deadline, task.power)
    await begin(server, task.power, task.force, context)


def effect_name(power: Power, server_id: str) -> str:
    """The journal's name for it."""
    return f"{power.value}:{server_id}"


async def begin(server: Server, power: Power, force: Force, context: Context) -> None:
    """Have Nova accept it, or `Refused`. A conflicting task is waited out, and the state is judged again."""
    name = effect_name(power, server.id)
    for delay in growing(0.5, 4.0):
        if not context.effects.begun(name) and (refused := judge_state(server, STATES[power, force])):
            raise refused
        try:
            await _change_power(server, power, force, context)
        except Conflict as error:
            server = await _after_conflict(server, power, delay, error, context)
        except NotFound:
            raise unknown_server(server.id, power) from None
        except CloudRefusal as error:
            raise error.as_failure() from error
        else:
            return


async def _change_power(server: Server, power: Power, force: Force, context: Context) -> None:
    async def landed(since: str) -> str | None:
        return await find_action(context.project, server.id, _LOGGED_AS[power], since)

    await context.effects.once(
        effect_name(power, server.id),
        do=lambda: change_power(context.project, server.id, power, force),
        landed=landed,
        marker=server.updated,
    )


async def _after_conflict(server: Server, power: Power, delay: float, error: Conflict, context: Context) -> Server:
    """The server as it is once what was in the way has ended; what stays in the way ends the request in time."""
    if delay > context.deadline.left:
        raise error.as_failure() from error
    await asyncio.sleep(delay)
    found = await find_server(context, server.id)
    if found is None:
        raise unknown_server(server.id, power)
    return await wait_until_idle(context, found, context.deadline, power)

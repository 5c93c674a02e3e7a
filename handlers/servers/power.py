"""Start, stop and reboot one server; status updates from an accepted action to the final state."""

from typing import Any

from handlers.context import ProjectContext
from handlers.effects.ledger import EffectId
from handlers.effects.once import Landed
from handlers.openstack.errors import CloudRefusal, Conflict, NotFound
from handlers.openstack.nova import Server, change_power, find_action, find_actions
from handlers.servers.guard import (
    CHARGE_TYPE,
    find_server,
    require_server,
    retrying_conflicts,
    state_refusal,
    unknown_server,
    wait_until_idle,
)
from handlers.servers.targets import answered_unknown, power_effect
from messages.codes import Code
from messages.commands import Force, Power, PowerAction
from messages.errors import Refused
from messages.record import record
from messages.results import Result
from messages.updates import server_update


@record
class _Action:
    """One of Nova's actions, as the server goes through it."""

    #: Nova's name of it in the action log.
    name: str
    #: The states that it needs, and the tasks in the middle of which Nova takes it.
    states: frozenset[str]
    #: The status and the task that the server has when Nova has accepted it.
    first: tuple[str, str]
    tasks: frozenset[str] = frozenset()
    #: The status of a server that another action has taken over.
    overtaken: str | None = None


_STOP = _Action("stop", frozenset({"ACTIVE"}), ("ACTIVE", "powering-off"))
_ACTIONS = {
    (Power.START, Force.SOFT): _Action("start", frozenset({"SHUTOFF"}), ("SHUTOFF", "powering-on")),
    (Power.STOP, Force.SOFT): _STOP,
    (Power.STOP, Force.HARD): _STOP,
    # A hard reboot does not wait for a soft one.
    (Power.REBOOT, Force.SOFT): _Action(
        "reboot", frozenset({"ACTIVE"}), ("REBOOT", "rebooting"), overtaken="HARD_REBOOT"
    ),
    (Power.REBOOT, Force.HARD): _Action(
        "reboot",
        frozenset({"ACTIVE", "ERROR", "HARD_REBOOT", "PAUSED", "REBOOT", "SHUTOFF", "SUSPENDED"}),
        ("HARD_REBOOT", "rebooting_hard"),
        tasks=frozenset(
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
        ),
    ),
}


async def act_on_server(task: PowerAction, context: ProjectContext) -> Result:
    """Carry it out; answered once Nova has accepted it, followed until it has ended."""
    power, force = task.power, task.force
    effect, accepted = power_effect(power, task.server_id), Result.of(Code.OK)
    if context.answered is not None:
        await find_out(task.server_id, power, context)
    elif not context.effects.done(effect):
        server = await require_server(context, task.server_id, power)
        if not context.effects.begun(effect):
            if is_unpaid(server, power, context):
                raise Refused(Code.SERVER_UNPAID)
            server = await idle_for(server, power, force, context)
        await begin(server, power, force, context)
    if context.effects.done(effect):
        await context.replies.answer(accepted)
        await follow_accepted(task.server_id, power, force, context)
    elif context.answered is not None and answered_unknown(context.answered):
        await publish_end(context, task.server_id, power.value, effect)
    return context.answered or accepted


def is_unpaid(server: Server, power: Power, context: ProjectContext) -> bool:
    """True where the fee rule forbids the action."""
    return (
        power is Power.STOP
        and context.policy.require_fee_data
        and not server.metadata.get(CHARGE_TYPE)
    )


async def idle_for(server: Server, power: Power, force: Force, context: ProjectContext) -> Server:
    """Return the server once no task is in the way of the action, or when the time is up."""
    tasks = _ACTIONS[power, force].tasks
    return await wait_until_idle(context, server, context.effects.retry_until, power, tasks)


def power_refusal(server: Server, power: Power, force: Force) -> Refused | None:
    """Return the refusal of a server that is in no state for the action; None where it is."""
    action = _ACTIONS[power, force]
    return state_refusal(server, action.states, action.tasks)


async def begin(server: Server, power: Power, force: Force, context: ProjectContext) -> None:
    """Have Nova accept the action, or raise `Refused`; a conflicting task is waited out."""
    effect, server_id = power_effect(power, server.id), server.id
    known: Server | None = server

    async def act() -> None:
        nonlocal known
        if known is None:  # after a conflict
            found = await require_server(context, server_id, power)
            known = await idle_for(found, power, force, context)
        server, known = known, None
        if not context.effects.begun(effect) and (refused := power_refusal(server, power, force)):
            raise refused
        try:
            await context.effects.once(
                effect,
                do=lambda: change_power(context.project, server_id, power, force),
                landed=_logged(server_id, power, context),
                marker=await _marker(server, power, context),
            )
        except Conflict:
            raise
        except NotFound:
            raise unknown_server(server_id, power) from None
        except CloudRefusal as error:
            raise error.as_failure() from error

    await retrying_conflicts(act, context, Conflict.as_failure)


async def find_out(server_id: str, power: Power, context: ProjectContext) -> None:
    """Look whether an action that may have been begun was; nothing is begun."""
    await context.effects.find_out(
        power_effect(power, server_id), _logged(server_id, power, context)
    )


async def follow_accepted(
    server_id: str, power: Power, force: Force, context: ProjectContext
) -> None:
    """Publish the states of a server whose action Nova has accepted, to the final one."""
    action, effect = _ACTIONS[power, force], power_effect(power, server_id)
    await follow_to_end(
        context, server_id, power.value, action.first, effect, overtaken=action.overtaken
    )


async def _marker(server: Server, power: Power, context: ProjectContext) -> str | dict[str, Any]:
    """Nova's clock. In the middle of a task also the actions of this kind that have begun since:
    they are not ours.

    Nova's log does not tell a hard reboot from the soft one that it does not wait for.
    """
    if not server.busy or context.effects.begun(power_effect(power, server.id)):
        return server.updated
    since, action = server.updated, _ACTIONS[power, Force.SOFT].name
    others = await context.retrying(lambda: find_actions(context.project, server.id, action, since))
    return {"since": since, "others": others}


def _logged(server_id: str, power: Power, context: ProjectContext) -> Landed:
    async def landed(marker: str | dict[str, Any]) -> str | None:
        since, others = (
            (marker, ()) if isinstance(marker, str) else (marker["since"], marker["others"])
        )
        return await find_action(
            context.project, server_id, _ACTIONS[power, Force.SOFT].name, since, others
        )

    return landed


# Status updates.


async def follow_to_end(
    context: ProjectContext,
    server_id: str,
    action: str,
    first: tuple[str, str | None],
    effect: EffectId,
    *,
    overtaken: str | None = None,
) -> None:
    """Publish a server's states from an accepted action to the final one.

    `first` is its status and the task that Nova has set before it answered. A server without a task
    has ended: Nova sets the task before it accepts an action. So has one in the status `overtaken`:
    another action has taken its place, whose success or failure is not this one's. When the wait
    has lasted its time, the last known state is the final one. Only the watch is asked, which waits
    out a cloud that does not answer: an accepted action must have its final update.
    """
    if context.replies.final_published("server", server_id):
        return
    status, task = first
    if task is not None:
        await context.replies.publish(server_update(server_id, action, status, task, final=False))
    with context.watchers.servers.follow(server_id) as poller:
        while task is not None and status != overtaken:
            try:
                server = await context.next(poller, effect)
            except TimeoutError:
                break
            except NotFound:
                status = "DELETED"
                break
            is_new = (server.status, server.task_state) != (status, task)
            status, task = server.status, server.task_state
            if server.busy and status != overtaken and is_new:
                await context.replies.publish(
                    server_update(server_id, action, status, task, final=False)
                )
    await context.replies.publish(server_update(server_id, action, status, None, final=True))


async def publish_end(
    context: ProjectContext, server_id: str, action: str, effect: EffectId
) -> None:
    """Publish the final state of a server of which it is not known whether an action was carried
    out. `Transient` where Nova does not say.
    """
    if context.replies.final_published("server", server_id):
        return
    server = await find_server(context, server_id)
    first = (server.status, server.task_state) if server is not None else ("DELETED", None)
    await follow_to_end(context, server_id, action, first, effect)

"""Start, stop and reboot many servers: all checked before any is touched, then all at once."""

import asyncio
from collections.abc import Mapping

from handlers.context import ProjectContext
from handlers.effects.concurrency import wait_for_all
from handlers.openstack.errors import CloudRefusal
from handlers.openstack.nova import Server
from handlers.servers.guard import find_servers, tell_end, unknown_server, unpaid
from handlers.servers.power import begin, find_out, follow_accepted, idle_for, judge_for
from handlers.servers.targets import answer_of_servers, power_effect, told_unknown
from messages.codes import Code
from messages.commands import PowerBatch
from messages.errors import OutcomeUnknown, Refused, Transient
from messages.results import Result


async def act_on_servers(task: PowerBatch, context: ProjectContext) -> Result:
    """Carry it out on all; answered once Nova has accepted or refused each, each followed until it
    has ended.
    """
    if context.answered is not None:
        await wait_for_all(
            (_told_to_its_end(one, task, context) for one in task.server_ids), passing_first=True
        )
        return context.answered
    unseen: Mapping[str, Refused] = {}
    if any(context.effects.begun(power_effect(task.power, one)) for one in task.server_ids):
        servers, unseen = await find_servers(context, task.server_ids)
    else:
        servers = await _checked(task, context)
    if any(context.replies.checked.values()):
        return _answer(task, context)
    judged = {one: asyncio.Event() for one in task.server_ids}
    answered = asyncio.Event()
    # A server that has ended waits for no other one; the answer waits until all have been judged,
    # and no longer.
    acting = [
        _act(
            one,
            task,
            servers.get(one) or unseen.get(one),
            context,
            judged=judged[one],
            answered=answered,
        )
        for one in task.server_ids
    ]
    await wait_for_all(
        [_answer_when_judged(task, judged, answered, context), *acting], passing_first=True
    )
    return context.answered or _answer(task, context)


async def _checked(task: PowerBatch, context: ProjectContext) -> dict[str, Server]:
    """The servers by id; what is wrong with which stands in the verdicts."""
    verdicts = context.replies.checked
    servers, unseen = await find_servers(context, task.server_ids)
    for one in task.server_ids:
        verdicts[one] = unseen.get(one) or _owned_and_paid(one, servers.get(one), task, context)
    if not any(verdicts.values()):
        # A batch that is refused anyway waits for nothing: its other servers are judged as they
        # are.
        await asyncio.gather(*(_wait(one, task, servers, context) for one in task.server_ids))
    for one in task.server_ids:
        verdicts[one] = verdicts[one] or judge_for(servers[one], task.power, task.force)
    return servers


def _owned_and_paid(
    server_id: str, server: Server | None, task: PowerBatch, context: ProjectContext
) -> Refused | None:
    if server is None:
        return unknown_server(server_id, task.power)
    return Refused(Code.SERVER_UNPAID) if unpaid(server, task.power, context) else None


async def _wait(
    server_id: str, task: PowerBatch, servers: dict[str, Server], context: ProjectContext
) -> None:
    try:
        servers[server_id] = await idle_for(servers[server_id], task.power, task.force, context)
    except Refused as refused:  # it has gone away
        context.replies.checked[server_id] = refused


async def _act(
    server_id: str,
    task: PowerBatch,
    server: Server | Refused | None,
    context: ProjectContext,
    *,
    judged: asyncio.Event,
    answered: asyncio.Event,
) -> None:
    """Have Nova accept it, and tell its course to the end. `Refused`: why the server cannot be
    seen.
    """
    effect = power_effect(task.power, server_id)
    try:
        context.replies.checked[server_id] = await _begin(server_id, task, server, context)
    finally:
        judged.set()
    if context.effects.unknown(effect):
        await answered.wait()
    await _tell_course(server_id, task, context)


async def _begin(
    server_id: str, task: PowerBatch, server: Server | Refused | None, context: ProjectContext
) -> Refused | None:
    if context.effects.done(power_effect(task.power, server_id)):
        return None  # by an earlier run; the server may even be gone since
    if isinstance(server, Refused):
        return server
    if server is None:
        return unknown_server(server_id, task.power)
    try:
        await begin(server, task.power, task.force, context)
    except Refused as refused:
        return refused
    except OutcomeUnknown:
        pass  # so the effects say
    except (CloudRefusal, Transient) as error:
        if context.answered is not None:
            raise  # nobody waits for it any more: it comes again, and is found out
        return Refused(Code.FAILED, reason=error.reason, detail=str(error))
    return None


async def _answer_when_judged(
    task: PowerBatch,
    judged: dict[str, asyncio.Event],
    answered: asyncio.Event,
    context: ProjectContext,
) -> None:
    try:
        for one in judged.values():
            await one.wait()
        # A partial outcome is written down before it is told: a later run must not better it.
        await context.replies.answer(_answer(task, context))
    finally:
        answered.set()


def _answer(task: PowerBatch, context: ProjectContext) -> Result:
    rest = Refused(Code.FAILED, reason="timeout")
    return answer_of_servers(task, context.effects.known, context.replies.checked, rest)


async def _told_to_its_end(server_id: str, task: PowerBatch, context: ProjectContext) -> None:
    """One server of a batch that was answered: nothing is begun."""
    await find_out(server_id, task.power, context)
    await _tell_course(server_id, task, context)


async def _tell_course(server_id: str, task: PowerBatch, context: ProjectContext) -> None:
    effect = power_effect(task.power, server_id)
    if context.effects.done(effect):
        await follow_accepted(server_id, task.power, task.force, context)
    elif context.answered is not None and told_unknown(context.answered, server_id):
        await tell_end(context, server_id, task.power.value, effect)

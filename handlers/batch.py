"""Start, stop and reboot many servers: all checked before any is touched, then all at once."""

import asyncio
from collections.abc import Mapping
from typing import Any

from handlers.compute import Server
from handlers.context import Context
from handlers.power import FIRST_STATE, begin, effect_name
from handlers.servers import STATES, find_servers, follow_to_end, judge_state, unknown_server, unpaid, wait_until_idle
from handlers.together import all_of
from messages.codes import Code
from messages.commands import PowerBatch
from messages.errors import OutcomeUnknown, Refused, Transient
from messages.results import Result

#: What became of each server; None: right, but not begun.
Verdicts = Mapping[str, Refused | None]
#: The kinds of failure in the order in which they are checked; the first gives the code of the whole.
_ORDER = (Code.SERVER_NOT_OWNED, Code.SERVER_UNKNOWN, Code.SERVER_UNPAID, Code.SERVER_STATE, Code.FAILED)


async def act_on_servers(task: PowerBatch, context: Context) -> Result:
    """Carry it out on all; answered once Nova has accepted or refused each, followed until all have ended."""
    # A partial outcome is written down before it is told: a later run must not better it.
    answer = context.answered or await _begin_all(task, await _servers(task, context), context)
    await context.answer(answer)
    await _follow_all(task, answer, context)
    return answer


async def _servers(task: PowerBatch, context: Context) -> dict[str, Server]:
    servers = await find_servers(context, task.server_ids)
    begun = any(context.effects.begun(effect_name(task.power, one)) for one in task.server_ids)
    return servers if begun else await _checked(task, servers, context)


async def _checked(task: PowerBatch, servers: dict[str, Server], context: Context) -> dict[str, Server]:
    """The servers, none of them busy, or `Refused` saying what is wrong with which."""
    _refuse_any({one: _owned_and_paid(one, servers.get(one), task, context) for one in task.server_ids})
    idle = await asyncio.gather(
        *(wait_until_idle(context, one, context.deadline, task.power) for one in servers.values())
    )
    servers = {server.id: server for server in idle}
    _refuse_any({one: judge_state(servers[one], STATES[task.power, task.force]) for one in task.server_ids})
    return servers


def _owned_and_paid(server_id: str, server: Server | None, task: PowerBatch, context: Context) -> Refused | None:
    if server is None:
        return unknown_server(server_id, task.power)
    return Refused(Code.SERVER_UNPAID) if unpaid(server, task.power, context) else None


def _refuse_any(verdicts: Verdicts) -> None:
    failures = sorted((found for found in verdicts.values() if found), key=lambda one: _ORDER.index(one.code))
    if failures:
        first = failures[0]
        raise Refused(first.code, first.subject, detail=first.detail, data={"servers": _listed(verdicts)})


async def _begin_all(task: PowerBatch, servers: Mapping[str, Server], context: Context) -> Result:
    outcomes = await asyncio.gather(*(_begin_one(one, task, servers.get(one), context) for one in task.server_ids))
    return Result.of(
        Code.FAILED if any(outcomes) else Code.OK,
        {"servers": _listed(dict(zip(task.server_ids, outcomes, strict=True)), unharmed=Result.of(Code.OK))},
    )


async def _begin_one(server_id: str, task: PowerBatch, server: Server | None, context: Context) -> Refused | None:
    if context.effects.done(effect_name(task.power, server_id)):
        return None  # by an earlier run; the server may even be gone since
    if server is None:
        return unknown_server(server_id, task.power)
    try:
        await begin(server, task.power, task.force, context)
    except Refused as refused:
        return refused
    except OutcomeUnknown:
        return Refused(Code.FAILED, reason="outcome_unknown")
    except Transient as error:
        return Refused(Code.FAILED, reason=error.reason, detail=str(error))
    return None


async def _follow_all(task: PowerBatch, answer: Result, context: Context) -> None:
    accepted = [one["id"] for one in answer.data["servers"] if one["code"] == Code.OK.wire]
    await all_of(
        follow_to_end(context, one, task.power.value, FIRST_STATE[task.power, task.force], effect_name(task.power, one))
        for one in accepted
    )


def _listed(verdicts: Verdicts, unharmed: Result | None = None) -> list[dict[str, Any]]:
    def told(refused: Refused | None) -> tuple[int | str | None, str | None]:
        if refused is not None:
            return refused.code.wire, refused.code.text_for(refused.subject)
        return (unharmed.code, unharmed.message) if unharmed else (None, None)

    return [
        {"id": server_id, "code": code, "message": message}
        for server_id, refused in verdicts.items()
        for code, message in [told(refused)]
    ]

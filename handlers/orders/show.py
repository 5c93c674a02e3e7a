"""`order.show`: how far a request is, and what it waits for. The cloud is not asked.

A softDown has no tenant, and its servers may be several tenants': each of them sees it, from when
its server was found, with its own servers alone.
"""

import time
from dataclasses import replace
from datetime import UTC, datetime

from handlers.context import LoggedRequest, ProjectContext
from handlers.effects.ledger import EffectKind
from handlers.effects.waits import Wait
from messages.codes import Code
from messages.commands import OrderShow
from messages.errors import wrong
from messages.results import (
    RequestState,
    Result,
    ShownRequest,
    ShownResult,
    WaitedResource,
    WaitReason,
    WaitsFor,
)
from messages.secrets import mask
from messages.updates import wire_time


async def show_request(task: OrderShow, context: ProjectContext) -> Result:
    """Answer `order.show`. Raises `Refused` where the project has no such request."""
    project_id = context.project.id
    log = context.environment.requests
    for found in await context.retrying(lambda: log.find(project_id, task.key)):
        own = _own_servers(found, project_id)
        if own is None or own:
            return Result.of(Code.OK, _shown(found, project_id, own))
    detail = "the journal knows no such request of this tenant"
    raise wrong("key", detail, reason="not_found")


def _own_servers(request: LoggedRequest, project_id: str) -> frozenset[str] | None:
    """The ids of those servers of a softDown that are the project's; None where all may be shown."""
    if request.project_id is not None:
        return None
    owners = {
        name.target: effect.value
        for name, effect in request.effects.items()
        if name.kind is EffectKind.PROJECT
    }
    return frozenset(server for server, owner in owners.items() if owner == project_id)


def _shown(request: LoggedRequest, project_id: str, own: frozenset[str] | None) -> ShownRequest:
    wait, state = request.wait, RequestState.RUNNING
    if request.is_done:
        state = RequestState.DONE
    elif wait is not None and wait.reason is WaitReason.RETRY:
        state = RequestState.WAITING_RETRY
    return ShownRequest(
        key=request.name,
        operation=request.operation,
        state=state,
        progress=_progress(request),
        received_at=_time(request.received_at),
        updated_at=_time(request.updated_at),
        waits_for=told_wait(_as_seen(wait, project_id, own)) if wait is not None else None,
        result=_result(request, own),
    )


def _progress(request: LoggedRequest) -> int | None:
    """The progress of an order as it was published last, in percent; None for a command, and for
    an order that was pruned.
    """
    if not request.operation.startswith("order."):
        return None
    for final in request.finals:
        if final.get("resource") == "order":
            return int(final.get("progress") or 0)
    if request.is_done:
        return None  # pruned, with its updates
    told = (one.value for name, one in request.effects.items() if name.kind is EffectKind.TOLD)
    return max(map(int, told), default=0)


def _result(request: LoggedRequest, own: frozenset[str] | None) -> ShownResult | None:
    stored = request.result
    if stored is None:
        return None
    shown = ShownResult(code=stored["code"], message=stored["message"], data=mask(stored["data"]))
    if own is None or not isinstance(shown.data, dict):
        return shown
    listed = [one for one in shown.data.get("instanceList", ()) if isinstance(one, dict)]
    mine = [one for one in listed if str(one.get("instanceId")).strip().lower() in own]
    if len(mine) == len(listed):
        return shown
    # The code, the message and the reason of the whole may be those of another tenant's server.
    failed = next((one for one in mine if one.get("result") == "fail"), None)
    data = {name: value for name, value in shown.data.items() if name != "reason"}
    data["instanceList"] = mine
    if failed is None:
        return ShownResult(code=Code.OK.wire, message=Code.OK.text_for(None), data=data)
    data["reason"] = failed.get("reason")
    return ShownResult(code=failed["code"], message=failed["message"], data=data)


def _as_seen(wait: Wait, project_id: str, own: frozenset[str] | None) -> Wait:
    """Leave out what is another tenant's: who is ahead, and a softDown's other servers."""
    behind, resource = wait.behind, wait.resource
    if behind is not None and behind.tenant != project_id:
        behind = None
    if resource is not None and own is not None and resource.id not in own:
        resource = None
    return replace(wait, behind=behind, resource=resource)


def told_wait(wait: Wait) -> WaitsFor:
    """Return what a request waits for in words and for programs."""
    resource = wait.resource
    return WaitsFor(
        reason=wait.reason,
        message=_words(wait, time.time()),
        since=_time(wait.since),
        until=_time(wait.until) if wait.until is not None else None,
        behind=wait.behind.name if wait.behind is not None else None,
        cause=wait.cause,
        resource=WaitedResource(kind=resource.kind, id=resource.id, status=resource.status)
        if resource is not None
        else None,
    )


def _words(wait: Wait, now: float) -> str:
    again = ""
    if wait.until is not None:
        due = "begins at" if wait.until > now else "was due at"
        again = f"; the next attempt {due} {_time(wait.until)}"
    resource, behind = wait.resource, wait.behind
    where = f"{resource.kind} {resource.id}, which is {resource.status}" if resource else ""
    match wait.reason:
        case WaitReason.TURN:
            ahead = f"{behind.operation} {behind.name}" if behind else "another request"
            more = f" and {wait.others} more" if wait.others else ""
            return f"waits for its turn at a server, behind {ahead}{more}{again}"
        case WaitReason.RETRY:
            about = f": {where}" if resource else ""
            return f"the last attempt failed ({wait.cause}{about}){again}"
        case WaitReason.RESOURCE:
            more = f", and for {wait.others} more" if wait.others and resource else ""
            return f"waits for {where or 'something that is under way in the cloud'}{more}{again}"
        case WaitReason.WORKER:
            return "no worker has it: its message comes to the next one"


def _time(seconds: float) -> str:
    return wire_time(datetime.fromtimestamp(seconds, UTC))

"""softDown: stop, start or delete servers that are no longer paid for, each for itself.

The message has no tenant: each server is acted on in the project that owns it. The outcome of a
server is remembered: a later run, for the sake of the others, does not look at it again.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from handlers.context import RequestContext
from handlers.effects.concurrency import wait_for_all
from handlers.effects.ledger import EffectId, EffectKind
from handlers.openstack.errors import CloudRefusal
from handlers.orders.progress import OrderProgress
from handlers.orders.saga import final_failure
from handlers.orders.soft_down.server import ServerSoftDown
from handlers.orders.step import Step
from messages.codes import Code
from messages.errors import OutcomeUnknown, Refused, Transient
from messages.orders import OrderSoftDown
from messages.results import InstanceOutcome, Result, ServerSnapshot, soft_down_result
from messages.updates import OrderStatus


async def soft_down(order: OrderSoftDown, context: RequestContext) -> Result:
    """Carry the order out on each server; `Transient` where a retry may do it on the rest."""
    progress = OrderProgress(order, context)
    await progress.publish(OrderStatus.ACCEPTED)
    await progress.publish(OrderStatus.VALIDATING)
    servers = await _servers(order, context, progress, None)
    outcomes = await wait_for_all(_outcome(one, context, progress) for one in servers)
    failures = any(outcome.failure for outcome in outcomes)
    await progress.publish(OrderStatus.FAILED if failures else OrderStatus.SUCCEEDED)
    return soft_down_result(order, outcomes, context.policy.billing_now())


async def preview_soft_down(
    order: OrderSoftDown, context: RequestContext, project_id: str | None
) -> list[Step]:
    """List the steps, on servers of this project or of all.

    Checks that fail are recorded. Where one server is refused, the order is carried out on the
    others nevertheless.
    """
    steps: list[Step] = []
    for one in await _servers(order, context, OrderProgress(order, context), project_id):
        with suppress(Refused, CloudRefusal):
            steps += await one.preview()
    return steps


async def _servers(
    order: OrderSoftDown, context: RequestContext, progress: OrderProgress, project_id: str | None
) -> list[ServerSoftDown]:
    tenant = order.tenant
    named = (await context.cloud.find_project(tenant)).id if tenant is not None else None
    if project_id is not None and named not in (None, project_id):
        raise Refused(Code.IDENTITY, detail="the message's tenant_id is another")
    return [ServerSoftDown(one, named or project_id, context, progress) for one in order.instances]


async def _outcome(
    server: ServerSoftDown, context: RequestContext, progress: OrderProgress
) -> InstanceOutcome:
    """The outcome of one server. Raises `Transient` where a retry may bring another."""

    async def carried_out() -> dict[str, Any]:
        failure = None
        try:
            await server.carry_out()
        except (Refused, CloudRefusal, OutcomeUnknown, Transient) as error:
            failure = final_failure(error, context)
        return _to_record(await server.outcome(failure))

    effect = EffectId(EffectKind.ENDED, server.server_id)
    outcome = _from_record(await context.effects.remember(effect, carried_out))
    if server.touched:
        # Its final update does not wait for the other servers.
        await progress.end_server(server.server_id, outcome.status, server.project_id)
    return outcome


def _to_record(outcome: InstanceOutcome) -> dict[str, Any]:
    """The record for the journal; a failure is its code's name, subject, reason and detail."""
    failure = outcome.failure
    return {
        "status": outcome.status,
        "before": _snapshot_record(outcome.before),
        "after": _snapshot_record(outcome.after),
        "more": outcome.more,
        "request_ids": list(outcome.request_ids),
        "failure": [failure.code.name, failure.subject, failure.reason, failure.detail]
        if failure
        else None,
    }


def _snapshot_record(
    snapshot: ServerSnapshot | Mapping[str, Any] | None,
) -> Mapping[str, Any] | None:
    return snapshot.model_dump(mode="json") if isinstance(snapshot, ServerSnapshot) else snapshot


def _from_record(record: dict[str, Any]) -> InstanceOutcome:
    failure = None
    if record["failure"] is not None:
        code, subject, reason, detail = record["failure"]
        failure = Refused(Code[code], subject, reason=reason, detail=detail)
    return InstanceOutcome(**{**record, "failure": failure})

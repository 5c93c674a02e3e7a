"""softDown: servers that are no longer paid for are stopped, started again or deleted, each for
itself.

The message has no tenant: each server is acted on in the project that owns it. What became of one
is remembered: a later run, for the sake of the others, does not look at it again.
"""

from contextlib import suppress
from typing import Any

from handlers.context import RequestContext
from handlers.effects.concurrency import wait_for_all
from handlers.openstack.errors import CloudRefusal
from handlers.orders.progress import OrderProgress
from handlers.orders.saga import final_failure
from handlers.orders.soft_down.server import Takedown
from handlers.orders.step import Deed
from messages.codes import Code
from messages.errors import OutcomeUnknown, Refused, Transient
from messages.order_results import InstanceOutcome, soft_down_result
from messages.orders import OrderSoftDown
from messages.results import Result
from messages.updates import OrderStatus


async def take_down(order: OrderSoftDown, errand: RequestContext) -> Result:
    """Carry it out on each server; `Transient` where a later try may do it on those that are left."""
    progress = OrderProgress(order, errand)
    await progress.publish(OrderStatus.ACCEPTED)
    await progress.publish(OrderStatus.VALIDATING)
    takedowns = await _takedowns(order, errand, progress, None)
    outcomes = await wait_for_all(_outcome(one, errand, progress) for one in takedowns)
    failures = any(outcome.failure for outcome in outcomes)
    await progress.publish(OrderStatus.FAILED if failures else OrderStatus.SUCCEEDED)
    return soft_down_result(order, outcomes, errand.policy.billing_now())


async def foresee_taking_down(
    order: OrderSoftDown, errand: RequestContext, project_id: str | None
) -> list[Deed]:
    """What it would do, to servers of this project or of all; checks that fail are noted.

    Where one server is refused the others are taken down nevertheless.
    """
    deeds: list[Deed] = []
    for one in await _takedowns(order, errand, OrderProgress(order, errand), project_id):
        with suppress(Refused, CloudRefusal):
            deeds += await one.deeds()
    return deeds


async def _takedowns(
    order: OrderSoftDown, errand: RequestContext, progress: OrderProgress, project_id: str | None
) -> list[Takedown]:
    tenant = order.heading.tenant
    named = (await errand.cloud.find_project(tenant)).id if tenant is not None else None
    if project_id is not None and named not in (None, project_id):
        raise Refused(Code.IDENTITY, detail="the message's tenant_id is another")
    return [Takedown(one, named or project_id, errand, progress) for one in order.instances]


async def _outcome(
    takedown: Takedown, errand: RequestContext, progress: OrderProgress
) -> InstanceOutcome:
    """What became of one server; `Transient` where that is not the end of it."""

    async def ended() -> dict[str, Any]:
        failure = None
        try:
            await takedown.carry_out()
        except (Refused, CloudRefusal, OutcomeUnknown, Transient) as error:
            failure = final_failure(error, errand)
        return _kept(await takedown.outcome(failure))

    outcome = _restored(await errand.effects.remember(f"ended:{takedown.server_id}", ended))
    if takedown.touched:
        # Each is for itself: it has ended, whatever the others still wait for.
        await progress.end_server(takedown.server_id, outcome.status, takedown.project_id)
    return outcome


def _kept(outcome: InstanceOutcome) -> dict[str, Any]:
    """The record for the journal."""
    failure = outcome.failure
    return {
        "status": outcome.status,
        "before": outcome.before,
        "after": outcome.after,
        "more": outcome.more,
        "request_ids": list(outcome.request_ids),
        "failure": [failure.code.name, failure.subject, failure.reason, failure.detail]
        if failure
        else None,
    }


def _restored(record: dict[str, Any]) -> InstanceOutcome:
    failure = None
    if record["failure"] is not None:
        code, subject, reason, detail = record["failure"]
        failure = Refused(Code[code], subject, reason=reason, detail=detail)
    return InstanceOutcome(**{**record, "failure": failure})

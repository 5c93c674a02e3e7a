"""Cancelling an order of which nothing has begun."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Any

from handlers.orders.progress import refused_order_update
from messages.codes import Code
from messages.errors import Refused
from messages.results import unread_order_result
from workers.identity import NO_PROJECT
from workers.journal import Actor, Cancellation, Cancelled, CancelOutcome, Operations
from workers.pipeline.progress import update_body

__all__ = ["CancelOutcome", "Cancellation", "Cancelled", "cancel", "pending", "preview", "withdraw"]


def cancel(
    journal: Operations,
    word: str,
    actor: Actor,
    reason: str | None,
    tenant: str | None = None,
    *,
    zone: tzinfo = UTC,
) -> Cancelled:
    """Cancel the order with this orderId, flowId or key, on record, unless anything of it has begun.

    `tenant`: a project's id, where several tenants have an order of that name. `zone`: the billing
    system's, for a worker of the version before, which does not make the result itself. A worker answers it
    when it comes, or at its next attempt: 101.001040, `data.reason` `cancelled`.
    """
    return journal.cancel(word, tenant, actor, reason, partial(_answer, datetime.now(zone)))


def preview(journal: Operations, word: str, tenant: str | None = None) -> Cancelled | None:
    """Return what `cancel` would do now, and change nothing; None where the journal knows nothing
    of that name.
    """
    return journal.preview_cancel(word, tenant)


def pending(journal: Operations) -> list[Cancellation]:
    """Return the cancellations of orders that have not come yet, oldest first."""
    return journal.cancellations()


def withdraw(
    journal: Operations, word: str, actor: Actor, reason: str | None, tenant: str | None = None
) -> bool:
    """Withdraw the cancellation of an order that has not come yet, on record; False where there is
    none.
    """
    return journal.withdraw(word, tenant, actor, reason)


def _answer(
    now: datetime, name: str, operation: str, tenant: str
) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    """Return the result and the final update of a cancelled order of which only the name is known."""
    order: dict[str, Any] = {"flowId": name, "instanceList": []}
    if operation != "order.softDown":
        order = {"orderId": name, "orderType": operation.partition(".")[2]}
    refused = Refused(Code.FAILED, reason="cancelled", detail="an operator cancelled it")
    result = unread_order_result(order, refused, now)
    update = refused_order_update(order)
    project = tenant if tenant != NO_PROJECT else None
    return result.stored(), [
        update_body(one, operation, message_id=name, tenant_id=project, user_id=None)
        for one in (update,)
        if one is not None
    ]

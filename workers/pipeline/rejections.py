"""What is not carried out: answered, and parked where nobody may hear the answer."""

from collections.abc import Mapping
from typing import Any

import structlog

from handlers.context import Policy
from handlers.effects.ledger import Effect, EffectId
from handlers.orders.progress import refused_order_update
from handlers.servers.targets import Checked, failure
from messages.codes import Code
from messages.commands import Operation
from messages.errors import Refused, wrong
from messages.order_results import unread_order_result
from messages.orders import Order, OrderSoftDown, OrderType, name_of
from messages.regions import OTHER_REGION
from messages.results import Result
from workers.amqp.envelope import Envelope
from workers.identity import Identity
from workers.journal import Journal, Kind
from workers.pipeline import parsing
from workers.pipeline.large_bodies import aside
from workers.pipeline.progress import request_log, update_body
from workers.pipeline.replies import Replies
from workers.pipeline.standing import Standing, standing_of
from workers.request import Request
from workers.telemetry import Metrics

log = structlog.get_logger()

_COUNTED = frozenset((*Operation, *(f"order.{one}" for one in OrderType)))


class Rejections:
    """Says no, without a trace in the journal."""

    def __init__(
        self,
        outbox: Replies,
        policy: Policy,
        metrics: Metrics,
        identity: Identity,
        journal: Journal,
    ) -> None:
        self._outbox = outbox
        self._policy = policy
        self._metrics = metrics
        self._identity = identity
        self._journal = journal

    def result(
        self,
        request: Request,
        refused: Refused,
        *,
        changed: bool = False,
        effects: Mapping[EffectId, Effect] | None = None,
        verdicts: Checked | None = None,
    ) -> Result:
        """What the requester is told, in the shape of what was asked; `changed`: something may have
        been done.

        `effects` and `verdicts` are what is known of the targets of a batch.
        """
        order = request.message if request.kind is Kind.ORDER else None
        if order is None:
            return failure(request.work, refused, effects, verdicts)
        return self._result(request.envelope, refused, order, changed=changed)

    def _result(
        self,
        envelope: Envelope,
        refused: Refused,
        order: Mapping[str, Any] | None,
        *,
        changed: bool = False,
    ) -> Result:
        if order is None:
            return Result.refusal(refused)
        # Nothing remembers this result: it must be the same, byte for byte, when the message comes
        # again.
        time = self._policy.billing_time(envelope.published_at)
        return unread_order_result(order, refused, time, changed=changed)

    async def undelivered(
        self,
        envelope: Envelope,
        operation: str | None,
        refused: Refused,
        order: Mapping[str, Any] | None,
    ) -> None:
        """Answer what never came to be a request, where there is somebody to hear it."""
        await self._answer(envelope, "undelivered", operation, refused, order)

    async def unforeseen(self, envelope: Envelope, refused: Refused) -> None:
        """Answer and park a message at which the worker itself failed before it was begun."""
        message = await aside(len(envelope.body), lambda: parsing.decoded(envelope))
        is_order = envelope.is_order
        operation = parsing.operation_of(envelope, message, is_order)
        if is_order or not await self._is_known(envelope):
            await self._answer(
                envelope, "unforeseen", operation, refused, message if is_order else None
            )
        await self.park(envelope, refused)

    async def _is_known(self, envelope: Envelope) -> bool:
        """Return whether a command was begun: it has its one result by the way of every request."""
        found = await self._journal.find(envelope.message_id) if envelope.message_id else ()
        return any(one.kind is Kind.COMMAND for one in found)

    async def _answer(
        self,
        envelope: Envelope,
        why: str,
        operation: str | None,
        refused: Refused,
        order: Mapping[str, Any] | None,
    ) -> None:
        """Answer a message, as far as its sender may be answered; `why` tells its result from
        others.
        """
        if operation is None and envelope.reply_queue is None:
            return
        operation = operation or "unknown"
        standing = None
        if order is not None:
            standing = await self._standing(parsing.as_order(envelope, operation, order))
        if standing is not None and not standing.answered:
            return
        result = await aside(len(envelope.body), lambda: self._result(envelope, refused, order))
        key = f"{why}:{envelope.fingerprint}"
        await self._tell(envelope, operation, key, result, order, standing=standing)

    async def _standing(self, request: Request, *, proven: bool | None = None) -> Standing:
        found = await standing_of(request, self._identity, self._journal, proven=proven)
        if not found.answered:
            request_log(request, None).warning("order.not_answered", why="its id is another's")
        return found

    async def reject(self, envelope: Envelope, unfit: parsing.Rejected) -> None:
        """Answer a message that is wrong in form, and park it where nobody may hear the answer.

        What is meant for another region is parked in any case: it was sent to the wrong place.
        """
        refused = unfit.refused
        log.warning(
            "message.unfit",
            message_id=envelope.message_id,
            request=name_of(unfit.message or {}) if unfit.is_order else None,
            operation=unfit.operation,
            queue=envelope.queue,
            attempt=envelope.attempts,
            code=refused.code.wire,
            subject=refused.subject,
            why=refused.detail,
        )
        order = (unfit.message or {}) if unfit.is_order else None
        await self._answer(envelope, "unfit", unfit.operation, refused, order)
        unheard = unfit.is_order or envelope.reply_queue is None
        if unheard or refused.reason == OTHER_REGION:
            await self.park(envelope, refused)
        self._metrics.answered(_counted_as(unfit), refused.code.wire, 0.0)

    async def refuse(
        self, request: Request, refused: Refused, *, park: bool, tenant: str | None = None
    ) -> None:
        """Answer a request that was not begun; `tenant`: whose it is, where that was proven."""
        order = request.message if request.kind is Kind.ORDER else None
        standing = None
        if order is not None and tenant is None:
            # An error of identity has just been found out, and is not asked again.
            proven = False if refused.code is Code.IDENTITY else None
            standing = await self._standing(request, proven=proven)
        await self._refuse(request, tenant, refused, order, standing, park=park)

    async def _refuse(
        self,
        request: Request,
        tenant: str | None,
        refused: Refused,
        order: Mapping[str, Any] | None,
        standing: Standing | None = None,
        *,
        park: bool,
    ) -> None:
        size = len(request.envelope.body)
        result = await aside(size, lambda: self.result(request, refused))
        key = f"refused:{request.envelope.fingerprint}"
        await self._tell(request.envelope, request.operation, key, result, order, standing=standing)
        if park:
            await self.park(request.envelope, refused, proven=tenant)
        request_log(request, tenant).info("request.refused", code=result.code, why=refused.detail)
        self._metrics.answered(request.operation, result.code, 0.0)

    async def conflict(self, request: Request, tenant: str) -> None:
        """Answer a request whose key belongs to another content; what that one did is not touched."""
        key = "message_id" if request.kind is Kind.COMMAND else _key_of(request.work)
        self._metrics.event("conflict")
        refused = wrong(
            key, "the key is known with another content", reason="conflicting_duplicate"
        )
        # No update: the order of this id has a course of its own, which this one must not seem to
        # end.
        await self._refuse(request, tenant, refused, None, park=True)

    async def _tell(
        self,
        envelope: Envelope,
        operation: str,
        key: str,
        result: Result,
        order: Mapping[str, Any] | None,
        *,
        standing: Standing | None = None,
    ) -> None:
        """Publish the result, and the one update of an order that has got no further.

        `standing`: which of them may be; None: both.
        """
        if standing is not None and not standing.answered:
            return
        published = self._outbox.result(envelope, operation, key, result)
        told = order if standing is None or standing.updated else None
        update = refused_order_update(told) if told is not None else None
        if update is not None:
            user_id = order.get("userId") if order is not None else None
            body = update_body(
                update,
                operation,
                message_id=envelope.message_id,
                tenant_id=None,
                user_id=user_id if isinstance(user_id, str) else None,
            )
            published.append(self._outbox.update(envelope, body, key))
        for one in published:
            await one

    async def park(
        self, envelope: Envelope, refused: Refused, *, proven: str | None = None
    ) -> None:
        """Put the message where an operator finds it.

        `proven` is the project in which it was proven who sent it; None: it was not.
        """
        await self._outbox.park(envelope, refused, envelope.attempts, proven=proven)
        self._metrics.event("parked")


def _counted_as(unfit: parsing.Rejected) -> str:
    """An operation that there is: a label of the metrics must not be a publisher's to invent."""
    if unfit.operation is not None and unfit.operation in _COUNTED:
        return unfit.operation
    return "order.unknown" if unfit.is_order else "unknown"


def _key_of(order: Order) -> str:
    return "flowId" if isinstance(order, OrderSoftDown) else "orderId"

"""What the broker could not route or gave up on: answered where it says where to, then moved to the dead letters."""

import structlog

from handlers.context import Policy
from messages.codes import Code
from messages.errors import Refused, wrong
from messages.order_results import unread_order_result
from messages.orders import order_type_of
from messages.results import Result
from messages.wire import decode
from workers import intake
from workers.consumer import Delivery
from workers.envelope import Envelope
from workers.outbox import Outbox
from workers.topology import ORDERS_QUEUE, UNDELIVERED_QUEUE

log = structlog.get_logger()


async def move_to_dead(delivery: Delivery, outbox: Outbox, policy: Policy) -> None:
    """Answer it as what it is, park it without its secrets, settle it."""
    envelope = delivery.envelope
    origin = _origin(envelope)
    # Never in a queue of ours: no binding wants its routing key.
    refused = wrong("operation", "there is no such operation")
    if origin is not None:
        refused = Refused(Code.FAILED, reason="delivery_limit", detail=f"the broker gave up on it in {origin}")
    operation, result = _answer(envelope, origin, refused, policy)
    if operation is not None or envelope.reply_to is not None:
        key = f"undelivered:{intake.fingerprint(envelope)}"
        for one in outbox.result(envelope, operation or "unknown", key, result):
            await one
    await outbox.park(envelope, refused, intake.attempts(envelope), origin or UNDELIVERED_QUEUE)
    log.warning("message.undelivered", message_id=envelope.message_id, origin=origin, why=refused.detail)
    delivery.settle()


def _origin(envelope: Envelope) -> str | None:
    queue = envelope.headers.get("x-first-death-queue")
    return queue if isinstance(queue, str) else None


def _answer(envelope: Envelope, origin: str | None, refused: Refused, policy: Policy) -> tuple[str | None, Result]:
    try:
        message = decode(envelope.body, envelope.content_type, envelope.content_encoding)
    except Refused:
        message = {}
    if origin == ORDERS_QUEUE:
        return f"order.{order_type_of(message)}", unread_order_result(message, refused, policy.billing_now())
    named = message.get("operation")
    known = isinstance(named, str) and origin is not None and len(named) < 100
    return (str(named) if known else None), Result.refusal(refused)

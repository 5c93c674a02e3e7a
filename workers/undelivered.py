"""What the broker could not route or gave up on: answered where it says where to, then moved to the dead letters."""

from dataclasses import dataclass
from typing import Any

import structlog

from handlers.context import Policy
from messages.codes import Code
from messages.errors import Refused, wrong
from messages.order_results import unread_order_result
from messages.results import Result
from messages.wire import decode
from workers import intake
from workers.consumer import Delivery
from workers.envelope import Envelope
from workers.outbox import Outbox
from workers.topology import COMMANDS_EXCHANGE, INPUT_QUEUES, ORDERS_QUEUE, UNDELIVERED_EXCHANGE, UNDELIVERED_QUEUE

log = structlog.get_logger()

#: `data.reason` by why the broker took a message out of its queue; the publisher's own `expiration` is a deadline.
_REASONS = {"expired": "deadline", "maxlen": "queue_full"}


async def move_to_dead(delivery: Delivery, outbox: Outbox, policy: Policy) -> None:
    """Answer it as what it is, park it without its secrets, settle it."""
    envelope = delivery.envelope
    death = _last_death(envelope)
    # Never in a queue of ours: no binding wants its routing key.
    refused = wrong("operation", "there is no such operation")
    if death is not None:
        refused = Refused(Code.FAILED, reason=death.reason, detail=f"the broker gave up on it in {death.queue}")
    operation, result = _answer(envelope, death is not None and death.was_order, refused, policy)
    if operation is not None or intake.reply_queue(envelope) is not None:
        key = f"undelivered:{intake.fingerprint(envelope)}"
        for one in outbox.result(envelope, operation or "unknown", key, result):
            await one
    origin = death.queue if death is not None else UNDELIVERED_QUEUE
    route = death.route if death is not None else None
    await outbox.park(envelope, refused, intake.attempts(envelope), origin, route)
    log.warning("message.undelivered", message_id=envelope.message_id, origin=origin, why=refused.detail)
    delivery.settle()


@dataclass(frozen=True, slots=True)
class _Death:
    """What the broker says of it: which queue of ours gave it up, and why."""

    queue: str
    reason: str
    was_order: bool
    #: Exchange and routing key by which it had come; None where that was a retry queue, which has kept them.
    route: tuple[str, str] | None


def _last_death(envelope: Envelope) -> _Death | None:
    """None for what is only unroutable: it keeps its publisher's exchange, and whatever history he has forged."""
    deaths = envelope.headers.get("x-death")
    last: Any = deaths[0] if isinstance(deaths, list) and deaths else None
    if envelope.exchange != UNDELIVERED_EXCHANGE.name or not isinstance(last, dict):
        return None
    queue = last.get("queue")
    if queue not in INPUT_QUEUES:
        return None
    reason = _REASONS.get(str(last.get("reason")), "delivery_limit")
    exchange, keys = str(last.get("exchange")), last.get("routing-keys")
    key = str(keys[0]) if isinstance(keys, list) and keys else ""
    was_order = queue == ORDERS_QUEUE and exchange != COMMANDS_EXCHANGE.name
    return _Death(queue, reason, was_order, (exchange, key) if exchange else None)


def _answer(envelope: Envelope, is_order: bool, refused: Refused, policy: Policy) -> tuple[str | None, Result]:
    try:
        message = decode(envelope.body, envelope.content_type, envelope.content_encoding)
    except Refused:
        message = {}
    result = Result.refusal(refused)
    if is_order:
        result = unread_order_result(message, refused, policy.billing_time(intake.published_at(envelope)))
    return intake.operation_of(envelope, message, is_order), result

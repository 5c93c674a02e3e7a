"""From bytes to a typed request, or to a decision about what is none."""

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from messages.codes import Code
from messages.commands import READS, OpenConsole, Operation, parse_command
from messages.errors import Refused, wrong
from messages.fields import optional_word
from messages.orders import OrderPlan, OrderSoftDown, is_paid, name_of, order_type_of, parse_order
from messages.regions import check_order_region, check_region
from messages.secrets import mask
from messages.wire import body_too_large, decode, digest
from workers.amqp import headers
from workers.amqp.envelope import Envelope
from workers.identity import RESUME_TOKEN_HEADER
from workers.journal import Kind
from workers.request import Request

#: Headers of a message that comes back from a retry queue.
ROUTING_KEY_HEADER = "x-ecs-routing-key"
FIRST_SEEN_HEADER = "x-ecs-first-seen"
ATTEMPTS_HEADER = "x-ecs-attempts"
DEADLINE_HEADER = "x-ecs-deadline"
#: Digits of a time in a text.
_MAX_DIGITS = 12

_OPERATIONS = frozenset(one.value for one in Operation)


class Ignored(Exception):
    """An order message that asks for nothing: what it is known by, and its `orderStatus`."""

    def __init__(self, name: str | None, status: Any) -> None:
        self.name = name
        self.status = status
        super().__init__("it asks for nothing")


@dataclass(frozen=True, slots=True)
class Rejected(Exception):
    """A message that cannot be carried out as it is. `operation` is None where it cannot be told."""

    refused: Refused
    operation: str | None
    is_order: bool
    message: dict[str, Any] | None


def read(envelope: Envelope, region: str | None) -> Request:
    """Return the request in a message; raises `Ignored`, or `Rejected` saying what is wrong.

    `region` is the worker's own: what is meant for another is `Rejected` (None: for whichever it is
    meant).
    """
    ordered = is_order(envelope)
    try:
        if envelope.left_out is not None:
            raise body_too_large()
        message = decode(envelope.body, envelope.content_type, envelope.content_encoding)
    except Refused as refused:
        raise Rejected(refused, _from_routing_key(envelope, ordered), ordered, None) from None
    try:
        if ordered and not is_paid(message):
            raise Ignored(name_of(message), message.get("orderStatus"))
        _check_properties(envelope)
        if region is not None:
            (check_order_region if ordered else check_region)(message, region)
        return _order(envelope, message) if ordered else _command(envelope, message)
    except Refused as refused:
        raise Rejected(
            refused, operation_of(envelope, message, ordered), ordered, message
        ) from None


def as_order(envelope: Envelope, operation: str, message: Mapping[str, Any]) -> Request:
    """An order that is wrong in form, as far as it says who sent it."""
    return Request(
        envelope=envelope,
        kind=Kind.ORDER,
        operation=operation,
        name=name_of(message),
        digest="",
        tenant=None,
        user_id=_user_of(message),
        instance_id=None,
        work=None,
        message=message,
        token=_token(message),
    )


def _user_of(message: Mapping[str, Any]) -> str | None:
    try:
        return optional_word(message.get("userId"), "userId")
    except Refused:
        return None


def not_carried_out(request: Request) -> Rejected:
    """What becomes of a request that is right in form and that this version has no handler for."""
    is_order = request.kind is Kind.ORDER
    field = (
        ("operateType" if isinstance(request.work, OrderSoftDown) else "orderType")
        if is_order
        else "operation"
    )
    refused = wrong(field, "this version does not carry it out")
    return Rejected(refused, request.operation, is_order, dict(request.message))


def decoded(envelope: Envelope) -> dict[str, Any]:
    """The JSON object in a message; an empty one where there is none that could be read."""
    try:
        return decode(envelope.body, envelope.content_type, envelope.content_encoding)
    except Refused:
        return {}


def is_order(envelope: Envelope) -> bool:
    """Whether a message of an input queue is an order, as far as its way tells."""
    names = envelope.names
    commands = names.commands_exchange
    return envelope.queue == names.orders_queue and routed_by(envelope)[0] != commands


def routed_by(envelope: Envelope) -> tuple[str, str]:
    """Exchange and routing key of the first time: what comes back from a retry queue came by the
    default exchange.
    """
    first = envelope.headers.get(ROUTING_KEY_HEADER)
    if envelope.exchange == "" and isinstance(first, str):
        exchange, _, key = first.partition(" ")
        return exchange, key
    return envelope.exchange, envelope.routing_key


def known_by(envelope: Envelope) -> dict[str, Any]:
    """What every log line of a request says, as far as it is known before its body is read."""
    key = routed_by(envelope)[1]
    return {
        "message_id": envelope.message_id,
        "request": None,
        "operation": key if key.startswith("order.") or key in _OPERATIONS else None,
        "tenant": None,
        "attempt": attempts(envelope),
    }


def first_seen(envelope: Envelope, now: float) -> float:
    """When the message first came to a worker, in whole Unix seconds where it came before; never in
    the future.
    """
    seen = _ours(envelope, FIRST_SEEN_HEADER)
    # Not a number fails the comparison, too.
    return float(seen) if isinstance(seen, (int, float)) and 0 <= seen <= now else now


def attempts(envelope: Envelope) -> int:
    """How often it has been tried before."""
    count = _ours(envelope, ATTEMPTS_HEADER)
    return count if isinstance(count, int) and 0 <= count < 10**6 else 0


def _ours(envelope: Envelope, name: str) -> Any:
    """A header of ours. What comes by the publishers' exchanges has been in no queue of ours: there
    it is forged.
    """
    names = envelope.names
    published = envelope.exchange in (names.commands_exchange, names.orders_exchange)
    return None if published else envelope.headers.get(name)


def deadline(envelope: Envelope) -> float | None:
    """The requester's own deadline in Unix seconds; None where there is none. `Refused` where it is
    no time.

    It is the header's, or when the message's `expiration` ends, whichever is first.
    """
    found = [one for one in (_named_deadline(envelope), _expiry(envelope)) if one is not None]
    return min(found, default=None)


def _expiry(envelope: Envelope) -> float | None:
    """When the `expiration` ends, counted from when the message was published, in whole seconds."""
    value = envelope.expiration
    if value is None or not (value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS):
        return None
    begun = min(envelope.timestamp or envelope.arrived, envelope.arrived)
    # A timestamp is the second in which it was published, of which this may have been the end.
    return begun + 1.0 + int(value) / 1000


def _named_deadline(envelope: Envelope) -> float | None:
    value = envelope.headers.get(DEADLINE_HEADER)
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        return float(value)
    if (
        isinstance(value, (int, float, Decimal))
        and not isinstance(value, bool)
        and math.isfinite(value)
    ):
        return float(value)
    raise wrong(DEADLINE_HEADER)


def reply_queue(envelope: Envelope) -> str | None:
    """Return the queue that a result goes to; None where none is named, or one that no result may
    be put into.

    An empty name is none.
    """
    name = envelope.reply_to
    if not name or "reply_to" in envelope.unreadable:
        return None
    return name if envelope.names.may_reply_to(name) else None


def fingerprint(envelope: Envelope) -> str:
    """What stands for a message that has no usable key of its own: the same when it comes again."""
    known_by = (
        envelope.message_id or f"{envelope.correlation_id} {envelope.reply_to} {envelope.timestamp}"
    )
    body = envelope.left_out.sha256.encode() if envelope.left_out is not None else envelope.body
    return hashlib.sha256(body + known_by.encode()).hexdigest()


def published_at(envelope: Envelope) -> float:
    """When it was published, as its publisher says, in Unix seconds; now where he does not, or says
    the future.
    """
    now = time.time()
    return envelope.timestamp if envelope.timestamp and envelope.timestamp <= now else now


def age(envelope: Envelope) -> float:
    """How old it was, in seconds, when it was delivered; published in the future, or unknown when,
    counts as now.
    """
    return max(0.0, envelope.arrived - envelope.timestamp) if envelope.timestamp else 0.0


def _check_properties(envelope: Envelope) -> None:
    if envelope.unreadable:
        raise wrong(envelope.unreadable[0], "it cannot be read")
    if envelope.reply_to and reply_queue(envelope) is None:
        own = envelope.names.is_own_queue(envelope.reply_to)
        raise wrong(
            "reply_to",
            "it names one of the worker's own queues"
            if own
            else "it does not match ECS_REPLY_QUEUES",
        )
    deadline(envelope)
    headers.check(envelope.headers)


def _command(envelope: Envelope, message: dict[str, Any]) -> Request:
    exchange, routing_key = routed_by(envelope)
    if exchange == "":  # put into the queue by hand: the body alone says what it is
        routing_key = str(message.get("operation"))
    command = parse_command(message, routing_key)
    journaled = not isinstance(command.task, READS)
    name = optional_word(envelope.message_id, "message_id")
    if name is None and (journaled or isinstance(command.task, OpenConsole)):
        raise wrong("message_id", "a command that is more than a read needs a message_id")
    if isinstance(command.task, OpenConsole) and reply_queue(envelope) is None:
        raise wrong("reply_to", "the URL of a console is told to a reply queue alone")
    shown = mask(message)
    return Request(
        envelope=envelope,
        kind=Kind.COMMAND,
        operation=command.operation.value,
        name=name if journaled else None,
        digest=digest(shown, without=("token",))
        if journaled or RESUME_TOKEN_HEADER in envelope.headers
        else "",
        tenant=command.tenant,
        user_id=command.user_id,
        work=command.task,
        message=shown,
        token=_token(message),
        instance_id=command.task.instance_id if isinstance(command.task, OrderPlan) else None,
    )


def _order(envelope: Envelope, message: dict[str, Any]) -> Request:
    order = parse_order(message)
    heading = order.heading
    return Request(
        envelope=envelope,
        kind=Kind.ORDER,
        operation=f"order.{heading.order_type}",
        name=heading.name,
        digest=digest(heading.ordered, without=("token", "statusTime")),
        tenant=heading.tenant,
        user_id=heading.user_id,
        instance_id=next(iter(order.instance_ids), None),
        work=order,
        message=heading.ordered,
        token=_token(message),
    )


def _token(message: Mapping[str, Any]) -> str | None:
    """The token as it came; who asks is judged later."""
    token = message.get("token")
    return token if isinstance(token, str) else None


def operation_of(envelope: Envelope, message: dict[str, Any], is_order: bool) -> str | None:
    """What a message that is wrong asked for, as far as it can be told: an operation, or
    `order.<orderType>`.
    """
    if is_order:
        return f"order.{order_type_of(message)}"
    named = message.get("operation")
    known = isinstance(named, str) and named in _OPERATIONS
    return str(named) if known else _from_routing_key(envelope, is_order)


def _from_routing_key(envelope: Envelope, is_order: bool) -> str | None:
    if is_order:
        return "order.unknown"
    key = routed_by(envelope)[1]
    return key if key in _OPERATIONS else None


def too_late(envelope: Envelope) -> Refused | None:
    """The refusal of a request whose own deadline has passed."""
    limit = deadline(envelope)
    return (
        Refused(Code.FAILED, reason="deadline")
        if limit is not None and limit < time.time()
        else None
    )

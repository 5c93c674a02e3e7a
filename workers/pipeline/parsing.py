"""From bytes to a typed request, or to a decision about what is none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from messages.commands import READS, OpenConsole, Operation, parse_command
from messages.errors import Refused, wrong
from messages.fields import optional_word
from messages.orders import OrderPlan, OrderSoftDown, is_paid, name_of, order_type_of, parse_order
from messages.regions import check_order_region, check_region
from messages.secrets import mask
from messages.wire import body_too_large, decode, digest
from workers.amqp import headers
from workers.amqp.envelope import Envelope
from workers.journal import Kind
from workers.request import Request

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
    ordered = envelope.is_order
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


def known_by(envelope: Envelope) -> dict[str, Any]:
    """What every log line of a request says, as far as it is known before its body is read."""
    key = envelope.routed_by[1]
    return {
        "message_id": envelope.message_id,
        "request": None,
        "operation": key if key.startswith("order.") or key in _OPERATIONS else None,
        "tenant": None,
        "attempt": envelope.attempts,
    }


def _check_properties(envelope: Envelope) -> None:
    if envelope.unreadable:
        raise wrong(envelope.unreadable[0], "it cannot be read")
    if envelope.reply_to and envelope.reply_queue is None:
        own = envelope.names.is_own_queue(envelope.reply_to)
        raise wrong(
            "reply_to",
            "it names one of the worker's own queues"
            if own
            else "it does not match ECS_REPLY_QUEUES",
        )
    _ = envelope.deadline  # raises where it is no time
    headers.check(envelope.headers)


def _command(envelope: Envelope, message: dict[str, Any]) -> Request:
    exchange, routing_key = envelope.routed_by
    if exchange == "":  # put into the queue by hand: the body alone says what it is
        routing_key = str(message.get("operation"))
    command = parse_command(message, routing_key)
    journaled = not isinstance(command.task, READS)
    name = optional_word(envelope.message_id, "message_id")
    if name is None and (journaled or isinstance(command.task, OpenConsole)):
        raise wrong("message_id", "a command that is more than a read needs a message_id")
    if isinstance(command.task, OpenConsole) and envelope.reply_queue is None:
        raise wrong("reply_to", "the URL of a console is told to a reply queue alone")
    shown = mask(message)
    return Request(
        envelope=envelope,
        kind=Kind.COMMAND,
        operation=command.operation.value,
        name=name if journaled else None,
        digest=digest(shown, without=("token",))
        if journaled or headers.RESUME_TOKEN_HEADER in envelope.headers
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
    key = envelope.routed_by[1]
    return key if key in _OPERATIONS else None

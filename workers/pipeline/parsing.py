"""Stage 1: from bytes to a typed request."""

from collections.abc import Mapping
from typing import Any

from messages.commands import Operation, OrderPlan, task_of
from messages.errors import Refused, wrong
from messages.fields import check_order_region, check_region, optional_word
from messages.fields import read as read_field
from messages.operations import Mode, parse_command, parse_order, spec_of
from messages.orders import is_paid, name_of, order_type_of
from messages.secrets import mask
from messages.wire import body_too_large, decode, digest
from workers.amqp import headers
from workers.amqp.envelope import Envelope
from workers.journal import Kind
from workers.pipeline.exits import Ignored, Rejected
from workers.request import Request

_OPERATIONS = frozenset(one.value for one in Operation)


def parse(envelope: Envelope, region: str | None) -> Request:
    """Return the request in a message. Raises `Ignored`, or `Rejected` naming what is wrong.

    `region` is the worker's own: what is meant for another is `Rejected` (None: any region is
    right).
    """
    is_order, message = envelope.is_order, None
    try:
        if envelope.left_out is not None:
            raise body_too_large()
        message = decode(envelope.body, envelope.content_type, envelope.content_encoding)
        if is_order and not is_paid(message):
            raise Ignored(name_of(message), message.get("orderStatus"))
        _check_properties(envelope)
        if region is not None:
            (check_order_region if is_order else check_region)(message, region)
        return _order(envelope, message) if is_order else _command(envelope, message)
    except Refused as refused:
        operation = operation_of(envelope, message or {}, is_order=is_order)
        raise Rejected(refused, operation, is_order=is_order, message=message) from None


def operation_of(envelope: Envelope, message: Mapping[str, Any], *, is_order: bool) -> str | None:
    """Return what a message that is wrong asked for: an operation, or `order.<orderType>`.

    None where that cannot be told.
    """
    if is_order:
        return f"order.{order_type_of(message)}"
    for named in (message.get("operation"), envelope.routed_by[1]):
        if isinstance(named, str) and named in _OPERATIONS:
            return named
    return None


def read_body(envelope: Envelope) -> dict[str, Any]:
    """Return the JSON object in a message; an empty one where it cannot be read."""
    try:
        return decode(envelope.body, envelope.content_type, envelope.content_encoding)
    except Refused:
        return {}


def token_in(message: Mapping[str, Any]) -> str | None:
    """Return the token as it came; it is verified by the authentication."""
    token = message.get("token")
    return token if isinstance(token, str) else None


def _check_properties(envelope: Envelope) -> None:
    if envelope.unreadable:
        raise wrong(envelope.unreadable[0], "it cannot be read")
    if envelope.reply_to and envelope.reply_queue is None:
        is_own = envelope.names.is_own_queue(envelope.reply_to)
        detail = "it names one of the worker's own queues" if is_own else None
        raise wrong("reply_to", detail or "it does not match ECS_REPLY_QUEUES")
    _ = envelope.deadline  # raises where it is no time
    if envelope.headers:
        headers.check(envelope.headers)


def _command(envelope: Envelope, message: dict[str, Any]) -> Request:
    exchange, routing_key = envelope.routed_by
    if exchange == "":  # put into the queue by hand: the body alone says what it is
        routing_key = str(message.get("operation"))
    command = parse_command(message, routing_key)
    task = task_of(command)
    spec = spec_of(task)
    mode = spec.mode
    name = read_field(optional_word, envelope.message_id, "message_id")
    if name is None and mode is not Mode.READ:
        raise wrong("message_id", "a command that is more than a read needs a message_id")
    if mode is Mode.CONFIDENTIAL and envelope.reply_queue is None:
        raise wrong("reply_to", "the URL of a console is told to a reply queue alone")
    plan = task if isinstance(task, OrderPlan) else None
    is_journaled = mode is Mode.CHANGE
    # A read is known by its digest only where an operator replays it; its body is published again
    # nowhere.
    needs_digest = is_journaled or headers.RESUME_TOKEN_HEADER in envelope.headers
    shown = mask(message) if needs_digest else {}
    return Request(
        envelope=envelope,
        kind=Kind.COMMAND,
        operation=command.operation,
        name=name if is_journaled else None,
        digest=digest(shown, without=("token",)) if needs_digest else "",
        tenant=plan.tenant if plan is not None else command.tenant_id,
        user_id=command.user_id,
        instance_id=plan.instance_id if plan is not None else None,
        work=task,
        locks=spec.locks(task),
        message=shown,
        token=token_in(message),
    )


def _order(envelope: Envelope, message: dict[str, Any]) -> Request:
    order = parse_order(message)
    return Request(
        envelope=envelope,
        kind=Kind.ORDER,
        operation=f"order.{order.order_type}",
        name=order.name,
        digest=digest(order.ordered, without=("token", "statusTime")),
        tenant=order.tenant,
        user_id=order.user_id,
        instance_id=next(iter(order.instance_ids), None),
        work=order,
        locks=spec_of(order).locks(order),
        message=order.ordered,
        token=token_in(message),
    )

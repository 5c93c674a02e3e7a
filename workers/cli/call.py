"""`ecs-worker call` and `ecs-worker order`: ask as a publisher does."""

import difflib
import json
import math
import os
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ecs_client import (
    BrokerRefused,
    BrokerUnavailable,
    EcsClient,
    EcsError,
    NoAnswer,
    Reply,
    StatusEvent,
    Unroutable,
)
from messages.commands import Operation
from messages.errors import Refused
from messages.orders import is_paid, name_of
from messages.record import record
from workers.cli.exits import CommandFailed, Exit
from workers.cli.output import Format, Report, complain, show_json
from workers.settings import PublisherSettings

#: Seconds in which the final update of an order comes after its result, if it has one: an order
#: whose sender is not proven has none.
_FINAL_WITHIN = 5.0
#: Seconds by which a command is answered after its time limit, at most (contract 7.4).
_ANSWERED_WITHIN = 5.0
#: Characters of an answer's data that a person is shown.
_LONGEST = 20_000


@record
class Sender:
    """The requester; None: what the message itself, or the token, says. `token_file` holds the token."""

    tenant: str | None
    user: str | None
    token_file: str | None


def call(
    settings: PublisherSettings,
    operation: str,
    fields: Mapping[str, Any],
    sender: Sender,
    *,
    message_id: str | None,
    timeout: float | None,
    output: Format,
) -> Exit:
    """Publish a command, wait for its answer and print the envelope. The exit code is
    `CHECK_FAILED` for a failure.
    """
    key = message_id or uuid.uuid4().hex
    limit = timeout or settings.command_timeout + _ANSWERED_WITHIN
    with _client(settings, sender) as client:
        try:
            reply = client.call(operation, fields, message_id=key, timeout=limit)
        except EcsError as error:
            raise _failed(error, settings, f"--message-id {key}") from error
        except ValueError as error:  # a key that AMQP cannot say
            raise CommandFailed(Exit.USAGE, str(error)) from error
    return _print(reply, output)


def order(
    settings: PublisherSettings,
    file: str,
    sender: Sender,
    *,
    timeout: float | None,
    output: Format,
) -> Exit:
    """Publish the order in a file (`-`: stdin), print its updates to stderr as they come, and its
    result to stdout. The exit code is `CHECK_FAILED` where it failed.
    """
    body = _read(file)
    key = _key_of(body, file)
    ended: list[Reply | BaseException] = []
    with _client(settings, sender) as client, client.updates(id=key) as updates:
        # What is told before it is heard is missed.
        updates.wait_until_consuming(_ANSWERED_WITHIN)

        def carry_out() -> None:
            try:
                ended.append(client.orders.execute(body, timeout=timeout or math.inf))
            except BaseException as error:  # told by the thread that waits
                ended.append(error)

        thread = threading.Thread(target=carry_out, daemon=True)
        thread.start()
        is_final = False
        try:
            while thread.is_alive() and not is_final:
                is_final = _tell(updates.next(0.2))
        except EcsError as error:  # no reason to let go of an order that is published
            if not isinstance(error, BrokerRefused):  # of which its result tells
                complain(f"its updates are not heard, its result is waited for: {error}")
            is_final = True
        thread.join()
        (outcome,) = ended
        if isinstance(outcome, ValueError):
            raise CommandFailed(Exit.USAGE, f"{file}: {outcome}") from outcome
        if isinstance(outcome, EcsError):
            raise _failed(outcome, settings, f"the key is {key}") from outcome
        if isinstance(outcome, BaseException):
            raise outcome
        with suppress(EcsError):
            while not is_final and (update := updates.next(_FINAL_WITHIN)) is not None:
                is_final = _tell(update)
    return _print(outcome, output)


def fields_of(operation: str, parameters: Sequence[str], body: str | None) -> dict[str, Any]:
    """Return a command's fields: `parameters` are texts `name=value`, `body` is a file, `-`
    (stdin) or JSON, and becomes the field `body` (`order` of order.plan). Raises `CommandFailed`
    for an operation that there is not, too.
    """
    if operation not in list(Operation):
        near = difflib.get_close_matches(operation, list(Operation))
        text = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(Operation)}"
        if operation.startswith("order"):
            text += " Orders are sent by ecs-worker order FILE"
        raise CommandFailed(Exit.USAGE, f"there is no operation {operation}; {text}")
    found: dict[str, Any] = {}
    for one in parameters:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise CommandFailed(Exit.USAGE, f"-p takes name=value, not {one}")
        if name == "token":  # every user of the machine sees the words of a command
            raise CommandFailed(Exit.USAGE, "the token is given by ECS_TOKEN or --token-file")
        found[name] = value
    if body is not None:
        if body.lstrip().startswith(("{", "[")):
            content = _parse(body.encode(), "--body")
        else:
            try:
                content = _parse(_read(body), body)
            except CommandFailed as error:
                text = f"--body is neither JSON nor the name of a file with JSON: {error}"
                raise CommandFailed(Exit.USAGE, text) from error
        found["order" if operation == Operation.ORDER_PLAN else "body"] = content
    return found


def _failed(error: EcsError, settings: PublisherSettings, key: str) -> CommandFailed:
    """Return what to do about a request without an answer; `key` says how to ask again."""
    text = str(error)
    if isinstance(error, Unroutable):
        text = f"{text} (ECS_NAMESPACE: {settings.namespace})"
    elif isinstance(error, BrokerUnavailable) and error.is_unsent:
        text = f"ECS_BROKER_URL: {text}"
        if not settings.model_fields_set & {"broker_url", "broker_url_file"}:
            text += ". Neither the environment nor .env here sets it, so this is the default"
    elif isinstance(error, NoAnswer | BrokerUnavailable):
        text = f"{text}: {key}"
    return CommandFailed(Exit.UNREACHABLE, text)


def _parse(text: bytes, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        problem = f"{name} is no JSON: {error.msg}, {where}"
    except ValueError:
        problem = f"{name} is no JSON: it is no UTF-8"
    raise CommandFailed(Exit.USAGE, problem)


def _client(settings: PublisherSettings, sender: Sender) -> EcsClient:
    token = os.environ.get("ECS_TOKEN", "").strip() or None
    if sender.token_file is not None:
        token = _read(sender.token_file).decode("utf-8", "replace").strip()
    try:
        return EcsClient(
            settings.broker_url.get_secret_value(),
            namespace=settings.namespace,
            tenant=sender.tenant,
            user=sender.user,
            token=token,
            ca_file=settings.broker_ca_file,
            cert_file=settings.broker_cert_file,
            key_file=settings.broker_key_file,
        )
    except ValueError as error:
        raise CommandFailed(Exit.CONFIGURATION, f"ECS_BROKER_URL: {error}") from error


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CommandFailed(Exit.USAGE, f"{file} cannot be read: {reason}") from error


def _key_of(body: bytes, file: str) -> str | None:
    """Return the order's key; None where it has none, which is told when it is published."""
    content = _parse(body, file)
    if not isinstance(content, dict):
        return None
    with suppress(Refused):  # what the status is wrong in is answered
        if not is_paid(content):
            text = (
                f"{file}: orderStatus is not paySuccess, so it would be ignored and have no result"
            )
            raise CommandFailed(Exit.USAGE, text)
    if (key := name_of(content)) is None:
        text = f"{file}: it has no orderId or flowId that an order could be known by"
        raise CommandFailed(Exit.USAGE, text)
    return key


def _tell(update: StatusEvent | None) -> bool:
    """Print an update; tell whether it was the order's last."""
    if update is None:
        return False
    progress = f" {update.progress}%" if update.resource == "order" else ""
    words = f" {update.translation}" if update.translation else ""
    complain(f"{update.time} {update.resource} {update.id} {update.status}{words}{progress}")
    return update.final and update.resource == "order"


def _print(reply: Reply, output: Format) -> Exit:
    envelope = reply.envelope
    if output is Format.TABLE:
        report = Report()
        report.heading(f"{envelope['code']} {envelope['message']}")
        report.facts({"message_id": reply.message_id, "HTTP status": reply.http_status})
        if envelope["data"] is not None:
            report.line()
            report.document(envelope["data"], _LONGEST)
    else:
        show_json([envelope], output)
    return Exit.OK if isinstance(envelope["code"], int) else Exit.CHECK_FAILED

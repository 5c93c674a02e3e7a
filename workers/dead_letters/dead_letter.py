"""A parked message: what a person is told of it, what tells it from all others, what it is when it
is put in again.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from messages.codes import Code
from messages.secrets import MASK
from workers.amqp.envelope import Envelope
from workers.amqp.headers import (
    ATTEMPTS_HEADER,
    ERROR_CODE_HEADER,
    ERROR_HEADER,
    FAILED_AT_HEADER,
    FIRST_SEEN_HEADER,
    HISTORY,
    IDENTITY_HEADER,
    NOT_KEPT,
    ORIGIN_HEADER,
    PROJECT_HEADER,
    PROVEN,
    RESUME_TOKEN_HEADER,
    RETRY_HEADER,
    ROUTING_KEY_HEADER,
    kept,
)
from workers.amqp.publication import Publication
from workers.identity import NOBODY
from workers.pipeline import parsing
from workers.pipeline.replies import again

#: Which set of an operator's a message was put in again with; stays with it if it is parked once
#: more.
REPLAY_HEADER = "x-ecs-replay"
#: What the broker adds each time that it delivers a message again.
COUNTS = ("x-delivery-count", "x-acquired-count")
#: What was written on the message when it was parked, or on its way before: it starts afresh.
_NOT_AGAIN = frozenset(
    {
        ERROR_CODE_HEADER,
        ERROR_HEADER,
        FAILED_AT_HEADER,
        IDENTITY_HEADER,
        ORIGIN_HEADER,
        PROJECT_HEADER,
        REPLAY_HEADER,
        RETRY_HEADER,
        ATTEMPTS_HEADER,
        FIRST_SEEN_HEADER,
    }
)
#: What a new server is made with, and what is not kept when a message is parked.
_NEEDED_SECRETS = ("adminPass", "userData")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message in `ecs.dead`.

    `key` is what the journal knows the request by (message_id, orderId or flowId), None where it
    has nothing of the kind; `failed_at` is the header as it stands. `digest` is the request's
    content, empty where it is no request.
    """

    envelope: Envelope
    key: str | None
    operation: str | None
    tenant: str | None
    code: str | None
    error: str | None
    origin: str | None
    attempts: int
    failed_at: str | None
    digest: str

    @property
    def id(self) -> str | None:
        """The message_id."""
        return self.envelope.message_id

    @property
    def failed(self) -> float:
        """When it was parked, in Unix seconds; 0 where that is not told."""
        return instant_of(self.failed_at)

    def is_unproven(self, *, trusting: bool) -> bool:
        """Tell whether an operator must vouch for who sent it.

        `trusting`: publishers are trusted, so that only what was refused for its identity is in
        doubt.
        """
        refused = self.code == str(Code.IDENTITY.wire)
        return refused or not (trusting or self.envelope.headers.get(IDENTITY_HEADER) == PROVEN)

    @property
    def proven_project(self) -> str | None:
        """The project in which it was proven who sent it; None where it was not, or it acts in no
        single one.

        It acts there alone when it is put in again: an order without `tenant_id` would act in
        whichever project its instance belongs to.
        """
        headers = self.envelope.headers
        project = _text(headers.get(PROJECT_HEADER))
        return project if headers.get(IDENTITY_HEADER) == PROVEN and project != NOBODY else None

    def row(self) -> dict[str, Any]:
        """What a list tells of it (contract 9)."""
        return {
            "id": self.id,
            "key": self.key,
            "operation": self.operation,
            "tenant": self.tenant,
            "code": self.code,
            "error": self.error,
            "origin": self.origin,
            "attempts": self.attempts,
            "failed_at": self.failed_at,
        }

    @property
    def hindrance(self) -> str | None:
        """Why it cannot be put in again at all; None where it can."""
        names = self.envelope.names
        if self.origin not in (*names.input_queues, names.undelivered_queue):
            return "it does not say which of the worker's queues it came from"
        if (
            self.origin == names.undelivered_queue
            and _first_route(self.envelope)[0] != names.commands_exchange
        ):
            return "it does not say by which exchange it came"
        message = _read(self.envelope.body)
        if message.keys() == {"masked", "bytes"}:
            return "its body was not kept: it could not be read, and could have held a secret"
        missing = _masked(message) if self.operation == "order.new" else None
        return f"its {missing} was not kept: the order must be sent anew" if missing else None


def dead_letter_of(envelope: Envelope) -> DeadLetter:
    """A delivery of `ecs.dead`, read."""
    headers, seen = envelope.headers, _Seen.of(envelope_again(envelope, "?"))
    return DeadLetter(
        envelope=envelope,
        key=seen.key or envelope.message_id,
        operation=seen.operation,
        tenant=seen.tenant,
        code=_text(headers.get(ERROR_CODE_HEADER)),
        error=_text(headers.get(ERROR_HEADER)),
        origin=_text(headers.get(ORIGIN_HEADER)) or envelope.routing_key or None,
        attempts=envelope.attempts,
        failed_at=_text(headers.get(FAILED_AT_HEADER)),
        digest=seen.digest,
    )


def identity_of(envelope: Envelope) -> str:
    """What tells this parked message from any other; the same however often it is delivered: 64
    hexadecimal digits.
    """
    headers = {
        str(name): _stable(value) for name, value in envelope.headers.items() if name not in COUNTS
    }
    told = (
        envelope.message_id,
        envelope.correlation_id,
        envelope.reply_to,
        envelope.type,
        envelope.timestamp,
        envelope.content_type,
        envelope.content_encoding,
        envelope.routing_key,
        sorted(headers.items()),
    )
    return hashlib.sha256(
        repr(told).encode("utf-8", "backslashreplace") + envelope.body
    ).hexdigest()


def times_returned(envelope: Envelope) -> int:
    """How often the broker has counted that it was taken and not acked."""
    counts = (envelope.headers.get(name) for name in COUNTS)
    return max((count for count in counts if isinstance(count, int)), default=0)


def envelope_again(envelope: Envelope, resume_token: str) -> Envelope:
    """The message as a worker gets it when it is put in again with this word."""
    exchange, routing_key, headers = _way_again(envelope, resume_token)
    queue = routing_key if exchange == "" else envelope.names.undelivered_queue
    return replace(
        envelope,
        queue=queue,
        exchange=exchange,
        routing_key=routing_key,
        headers=headers,
        redelivered=False,
        user_id=None,
    )


def publication_again(envelope: Envelope, resume_token: str, batch: str) -> Publication:
    """The message as it is put in again: straight into the queue that it came from, so that nobody
    else gets a copy.

    What no queue had taken goes by its exchange: it may have a queue by now.
    """
    exchange, routing_key, headers = _way_again(envelope, resume_token)
    return again(envelope, exchange, routing_key, envelope.body, {**headers, REPLAY_HEADER: batch})


def publication_renewed(envelope: Envelope) -> Publication:
    """The message as it lies in `ecs.dead`, as one that was never delivered."""
    return again(envelope, envelope.exchange, envelope.routing_key, envelope.body, _kept(envelope))


def instant_of(time_text: str | None) -> float:
    """Unix seconds of a time on the wire; 0 where it is none."""
    try:
        found = datetime.fromisoformat(time_text or "")
    except ValueError:
        return 0.0
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def _way_again(envelope: Envelope, resume_token: str) -> tuple[str, str, dict[str, Any]]:
    origin = _text(envelope.headers.get(ORIGIN_HEADER)) or envelope.routing_key
    exchange, key = _first_route(envelope)
    headers = {name: value for name, value in _kept(envelope).items() if name not in _NOT_AGAIN}
    headers[RESUME_TOKEN_HEADER] = resume_token
    if origin == envelope.names.undelivered_queue and exchange:
        headers.pop(ROUTING_KEY_HEADER, None)
        return exchange, key, headers
    return "", origin, headers


def _kept(envelope: Envelope) -> dict[str, Any]:
    """The headers that go along. The worker has left only such when it parked the message; a
    stranger may not have.
    """
    headers = envelope.headers
    if any(
        not isinstance(name, str) or not isinstance(value, _WRITABLE)
        for name, value in headers.items()
    ):
        return kept(headers)
    return {
        name: value
        for name, value in headers.items()
        if name not in NOT_KEPT and not name.startswith(HISTORY)
    }


#: As what nearly all headers come; whatever else is looked at more closely.
_WRITABLE = (str, int)


def _first_route(envelope: Envelope) -> tuple[str, str]:
    """Exchange and routing key of the first time, as they were written down when it was parked."""
    exchange, _, key = (_text(envelope.headers.get(ROUTING_KEY_HEADER)) or "").partition(" ")
    return exchange, key


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the worker's own intake makes of it."""

    key: str | None
    operation: str | None
    tenant: str | None
    digest: str

    @classmethod
    def of(cls, envelope: Envelope) -> "_Seen":
        try:
            request = parsing.read(envelope, None)
        except parsing.Rejected as unfit:
            message = unfit.message or {}
            operation = unfit.operation or _text(message.get("operation"))
            return cls(_name_of(message), operation, _text(message.get("tenant_id")), "")
        except parsing.Ignored:  # or its body was not kept
            key = envelope.routed_by[1]
            return cls(None, key if key.startswith("order.") else None, None, "")
        return cls(request.name, request.operation, request.tenant, request.digest)


def _name_of(message: Mapping[str, Any]) -> str | None:
    return next(
        (found for name in ("orderId", "flowId") if (found := _text(message.get(name)))), None
    )


def _read(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _masked(value: Any) -> str | None:
    """The name of a secret that a new server needs and that is masked."""
    if isinstance(value, dict):
        for name in _NEEDED_SECRETS:
            if value.get(name) == MASK:
                return name
        value = list(value.values())
    if isinstance(value, list):
        return next((found for inner in value if (found := _masked(inner))), None)
    return None


def _text(value: Any) -> str | None:
    """A short text, or nothing: what a stranger wrote may be of any kind and length."""
    return value.strip()[:_LONGEST] or None if isinstance(value, str) else None


_LONGEST = 600


def _stable(value: Any) -> Any:
    """The same for what is the same on the wire: whole numbers have several kinds there."""
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value)
    return int(value)

"""A dead letter: what is shown of it, how it is identified, and the message that its replay is."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from messages.codes import Code
from messages.record import record
from messages.secrets import MASK
from workers.amqp.envelope import Envelope, Publication
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
    REASON_HEADER,
    REPLAY_HEADER,
    REPLAY_ID_HEADER,
    REPLAYS_HEADER,
    RESUME_TOKEN_HEADER,
    RETRY_HEADER,
    ROUTING_KEY_HEADER,
    kept,
)
from workers.amqp.renewal import DELIVERY_COUNTS
from workers.dead_letters.cause import Cause, cause_of
from workers.identity import NO_PROJECT
from workers.pipeline.exits import Ignored, Rejected
from workers.pipeline.parsing import parse
from workers.pipeline.replies import again

#: Of a message that was put back from the archive, or edited: the id in the archive.
RESTORED_HEADER, EDITED_HEADER = "x-ecs-restored", "x-ecs-edited"
#: In place of `PROVEN`: its sender was proven, but its content is an operator's.
EDITED = "edited"
#: The fields of a dead letter in a list (contract 9).
ROW_FIELDS = (
    "id",
    "key",
    "operation",
    "tenant",
    "code",
    "error",
    "origin",
    "attempts",
    "failed_at",
)
#: Further fields of a row.
MORE_FIELDS = ("reason", "group", "failed_replays")
#: Headers that a worker wrote as it dead-lettered or retried the message: a replay begins without.
_NOT_REPLAYED = frozenset(
    {
        ERROR_CODE_HEADER,
        ERROR_HEADER,
        FAILED_AT_HEADER,
        IDENTITY_HEADER,
        ORIGIN_HEADER,
        PROJECT_HEADER,
        REASON_HEADER,
        REPLAY_HEADER,
        REPLAY_ID_HEADER,
        RESTORED_HEADER,
        EDITED_HEADER,
        RETRY_HEADER,
        ATTEMPTS_HEADER,
        FIRST_SEEN_HEADER,
    }
)
#: Secrets that a new server is created with. They are masked in a dead letter.
_NEEDED_SECRETS = ("adminPass", "userData")
#: Characters of a text that a stranger wrote.
_LONGEST = 600
_MOST_REPLAYS = 10**6


@record
class DeadLetter:
    """A message in `ecs.dead`.

    `key` is the name by which the journal knows the request (message_id, orderId or flowId), None
    where it has none. `failed_at` is the header as it stands. `digest` is that of the request's
    content, empty where the message is no request.
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

    @classmethod
    def of(cls, envelope: Envelope) -> "DeadLetter":
        """Read a delivery of `ecs.dead`, with the parser that a worker would use for its replay."""
        key = operation = tenant = None
        digest = ""
        as_replayed = replayed_envelope(envelope, "?")
        try:
            request = parse(as_replayed, None)
        except Rejected as rejected:
            message = rejected.message or {}
            key = _text(message.get("orderId")) or _text(message.get("flowId"))
            operation = rejected.operation or _text(message.get("operation"))
            tenant = _text(message.get("tenant_id"))
        except Ignored:  # or its body was not kept
            routing_key = as_replayed.routed_by[1]
            operation = routing_key if routing_key.startswith("order.") else None
        else:
            key, operation = request.name, request.operation
            tenant, digest = request.tenant, request.digest
        headers = envelope.headers
        return cls(
            envelope=envelope,
            key=key or envelope.message_id,
            operation=operation,
            tenant=tenant,
            code=_text(headers.get(ERROR_CODE_HEADER)),
            error=_text(headers.get(ERROR_HEADER)),
            origin=_text(headers.get(ORIGIN_HEADER)) or envelope.routing_key or None,
            attempts=envelope.attempts,
            failed_at=_text(headers.get(FAILED_AT_HEADER)),
            digest=digest,
        )

    @property
    def cause(self) -> Cause:
        """Why it is here, without what varies between those that failed alike."""
        return cause_of(self.code, _text(self.envelope.headers.get(REASON_HEADER)), self.error)

    @property
    def failed_replays(self) -> int:
        """The number of earlier replays after which it was dead-lettered again."""
        return _earlier_replays(self.envelope.headers)

    @property
    def reason(self) -> str | None:
        """The word for the cause; None where there is none."""
        return self.cause.reason

    @property
    def group(self) -> str:
        """The id of the group of those with the same cause."""
        return self.cause.group

    @property
    def id(self) -> str | None:
        """The message_id."""
        return self.envelope.message_id

    @property
    def identity(self) -> str:
        """The digest that identifies this very message (`identity_of`)."""
        return identity_of(self.envelope)

    @property
    def failed(self) -> float:
        """The time of dead-lettering in Unix seconds; 0 where the message has none."""
        return unix_time(self.failed_at)

    def is_unproven(self, *, trusting: bool) -> bool:
        """Tell whether an operator must vouch for the sender.

        `trusting`: publishers are trusted, so only messages that were rejected for their identity
        are in doubt.
        """
        rejected = self.code == str(Code.IDENTITY.wire)
        return rejected or not (trusting or self.envelope.headers.get(IDENTITY_HEADER) == PROVEN)

    @property
    def is_edited(self) -> bool:
        """True where an operator has changed the content."""
        return self.envelope.headers.get(IDENTITY_HEADER) == EDITED

    @property
    def proven_project(self) -> str | None:
        """The project for which the sender was proven; None where it was not, or for no single one.

        A replay acts in this project alone: an order without `tenant_id` would otherwise act in
        whichever project its instance belongs to.
        """
        headers = self.envelope.headers
        project = _text(headers.get(PROJECT_HEADER))
        known = headers.get(IDENTITY_HEADER) in (PROVEN, EDITED) and project != NO_PROJECT
        return project if known else None

    def row(self) -> dict[str, Any]:
        """Return the fields of a list's row, `ROW_FIELDS` and `MORE_FIELDS`."""
        return {name: getattr(self, name) for name in (*ROW_FIELDS, *MORE_FIELDS)}

    @property
    def hindrance(self) -> str | None:
        """The reason why the message cannot be replayed at all; None where it can."""
        names = self.envelope.names
        others = names.undelivered_queue, names.order_results_queue
        if self.origin not in (*names.input_queues, *others):
            return "it does not say which of the worker's queues it came from"
        exchange, _ = _first_route(self.envelope)
        if self.origin == names.undelivered_queue and exchange != names.commands_exchange:
            return "it does not say by which exchange it came"
        try:
            message = json.loads(self.envelope.body)
        except (ValueError, RecursionError):
            return None
        if not isinstance(message, dict):
            return None
        if message.keys() == {"masked", "bytes"}:
            return "its body was not kept: it could not be read, and could have held a secret"
        missing = _masked_secret(message) if self.operation == "order.new" else None
        return f"its {missing} was not kept: the order must be sent anew" if missing else None


def identity_of(envelope: Envelope) -> str:
    """Return a digest that tells this message from any other and is the same at each delivery: 64
    hexadecimal digits.
    """
    headers = {
        # Equal for what is equal on the wire: AMQP has several types of whole numbers.
        str(name): int(value) if type(value) is not bool and isinstance(value, int) else str(value)
        for name, value in envelope.headers.items()
        if name not in DELIVERY_COUNTS
    }
    properties = (
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
        repr(properties).encode("utf-8", "backslashreplace") + envelope.body
    ).hexdigest()


def replayed_envelope(envelope: Envelope, resume_token: str) -> Envelope:
    """Return a dead letter as a worker would receive it now, replayed with this resume token."""
    exchange, routing_key, headers = _replay_route(envelope, resume_token)
    queue = routing_key if exchange == "" else envelope.names.undelivered_queue
    return replace(
        envelope,
        queue=queue,
        exchange=exchange,
        routing_key=routing_key,
        headers=headers,
        redelivered=False,
        user_id=None,
        arrived=time.time(),
    )


def replay_publication(
    envelope: Envelope, resume_token: str, batch: str, replay: str
) -> Publication:
    """Return the publication that replays a dead letter: `replay` is its id in the journal.

    It goes straight into the queue that the message came from, so that nobody else gets a copy. A
    message that no queue had taken goes by its exchange: it may have a queue by now.
    """
    exchange, routing_key, headers = _replay_route(envelope, resume_token)
    headers |= {
        REPLAY_HEADER: batch,
        REPLAY_ID_HEADER: replay,
        REPLAYS_HEADER: _earlier_replays(envelope.headers) + 1,
    }
    return again(envelope, exchange, routing_key, envelope.body, headers)


def renewed_publication(envelope: Envelope) -> Publication:
    """Return the publication that puts a dead letter into `ecs.dead` once more, with no deliveries
    counted.
    """
    return again(
        envelope, envelope.exchange, envelope.routing_key, envelope.body, _kept_headers(envelope)
    )


def unix_time(time_text: str | None) -> float:
    """Return a time on the wire in Unix seconds; 0 where it is none."""
    try:
        found = datetime.fromisoformat(time_text or "")
    except ValueError:
        return 0.0
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def _replay_route(envelope: Envelope, resume_token: str) -> tuple[str, str, dict[str, Any]]:
    """Return exchange, routing key and headers of a replay."""
    origin = _text(envelope.headers.get(ORIGIN_HEADER)) or envelope.routing_key
    exchange, key = _first_route(envelope)
    headers = {
        name: value for name, value in _kept_headers(envelope).items() if name not in _NOT_REPLAYED
    }
    headers[RESUME_TOKEN_HEADER] = resume_token
    if origin == envelope.names.undelivered_queue and exchange:
        headers.pop(ROUTING_KEY_HEADER, None)
        return exchange, key, headers
    return "", origin, headers


def _kept_headers(envelope: Envelope) -> dict[str, Any]:
    """Return the headers that go along. A worker left only texts and whole numbers, within the
    limits, when it dead-lettered the message; others may come from a stranger and are checked again.
    """
    headers = envelope.headers
    if not all(isinstance(one, str) for one in headers) or not all(
        isinstance(value, (str, int)) for value in headers.values()
    ):
        return kept(headers)
    return {
        name: value
        for name, value in headers.items()
        if name not in NOT_KEPT and not name.startswith(HISTORY)
    }


def _earlier_replays(headers: Mapping[str, Any]) -> int:
    """Count the earlier replays. The version before counted none: that there was one is known."""
    count = headers.get(REPLAYS_HEADER)
    if isinstance(count, int) and 0 < count < _MOST_REPLAYS:
        return int(count)
    return int(REPLAY_HEADER in headers)


def _first_route(envelope: Envelope) -> tuple[str, str]:
    """Return exchange and routing key of the first publication, as the worker recorded them."""
    exchange, _, key = (_text(envelope.headers.get(ROUTING_KEY_HEADER)) or "").partition(" ")
    return exchange, key


def _masked_secret(value: Any) -> str | None:
    """Return the name of a secret that a new server needs and that is masked, or None."""
    if isinstance(value, dict):
        for name in _NEEDED_SECRETS:
            if value.get(name) == MASK:
                return name
        value = list(value.values())
    if isinstance(value, list):
        return next((found for inner in value if (found := _masked_secret(inner))), None)
    return None


def _text(value: Any) -> str | None:
    """Return a short text, or None: what a stranger wrote may be of any type and length."""
    return value.strip()[:_LONGEST] or None if isinstance(value, str) else None

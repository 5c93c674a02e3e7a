"""Messages without AMQP: as they were delivered, and as they are to be published."""

import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from decimal import Decimal
from enum import Enum
from typing import Any

from messages.codes import Code
from messages.errors import Refused, wrong
from messages.record import record
from workers.amqp.headers import (
    ATTEMPTS_HEADER,
    DEADLINE_HEADER,
    FIRST_SEEN_HEADER,
    RESUME_TOKEN_HEADER,
    ROUTING_KEY_HEADER,
)
from workers.amqp.names import Names

#: Most digits of a time in a text, and characters of a resume token.
_MAX_DIGITS, _MAX_TOKEN = 12, 128


@record
class LeftOut:
    """A body that was not kept: its size in bytes and its SHA-256."""

    size: int
    sha256: str


@record
class Envelope:
    """Body and properties (contract 2). `user_id` was validated by the broker.

    `timestamp` (when it was published, as the publisher says) and `arrived` (when it was
    delivered): Unix seconds. `names` are those of the exchanges and queues among which it came.
    `unreadable` names the properties that were no UTF-8 (here they are, escaped), and `headers`
    where they could not be decoded.
    """

    queue: str
    exchange: str
    routing_key: str
    redelivered: bool
    body: bytes
    message_id: str | None
    correlation_id: str | None
    reply_to: str | None
    type: str | None
    timestamp: int | None
    content_type: str | None
    content_encoding: str | None
    user_id: str | None
    headers: Mapping[str, Any]
    names: Names
    arrived: float
    app_id: str | None = None
    priority: int | None = None
    #: Milliseconds after which the publisher no longer wants it.
    expiration: str | None = None
    unreadable: tuple[str, ...] = ()
    #: Size and digest of a body that was too large to be kept; then `body` is empty.
    left_out: LeftOut | None = None
    #: Times that it was published to its own queue once more (`workers/amqp/renewal.py`).
    renewals: int = 0
    #: The first of these times, in Unix seconds; None where it was never.
    renewed_since: int | None = None
    #: What is still to be awaited before the message leaves its queue, once its request has ended
    #: and given its turn to another: replies whose queue was not there.
    late: list[Callable[[], Awaitable[None]]] = field(
        default_factory=list, repr=False, compare=False
    )

    @property
    def routed_by(self) -> tuple[str, str]:
        """Exchange and routing key of the first publication. A message from a retry queue came by
        the default exchange; a header has its first route.
        """
        first = self.headers.get(ROUTING_KEY_HEADER) if self.exchange == "" else None
        if not isinstance(first, str):
            return self.exchange, self.routing_key
        exchange, _, key = first.partition(" ")
        return exchange, key

    @property
    def is_order(self) -> bool:
        """True for an order, as far as queue and exchange tell."""
        names = self.names
        return self.queue == names.orders_queue and self.routed_by[0] != names.commands_exchange

    @property
    def _own_headers(self) -> Mapping[str, Any]:
        """The headers, as far as they can be the worker's own. What comes by the publishers'
        exchanges has been in no retry queue: there the worker's own headers are forged.
        """
        names = self.names
        is_new = self.exchange in (names.commands_exchange, names.orders_exchange)
        return {} if is_new else self.headers

    @property
    def attempts(self) -> int:
        """The number of failed attempts before this delivery."""
        count = self._own_headers.get(ATTEMPTS_HEADER)
        return count if isinstance(count, int) and 0 <= count < 10**6 else 0

    @property
    def first_seen(self) -> float:
        """The time of the first delivery to a worker in Unix seconds; never in the future. Whole
        seconds where the message came before, else `arrived`.
        """
        seen = self._own_headers.get(FIRST_SEEN_HEADER)
        # Not a number fails the comparison, too.
        is_time = isinstance(seen, (int, float)) and 0 <= seen <= self.arrived
        return float(seen or 0) if is_time else self.arrived

    @property
    def is_first(self) -> bool:
        """True unless the message came before, and comes from a retry queue now."""
        return FIRST_SEEN_HEADER not in self._own_headers

    @property
    def resume_token(self) -> str | None:
        """The token by which a request is known again without its JWT; None where there is none."""
        token = self.headers.get(RESUME_TOKEN_HEADER)
        is_token = isinstance(token, str) and 0 < len(token) <= _MAX_TOKEN and token.isascii()
        return token if is_token else None

    @property
    def reply_queue(self) -> str | None:
        """The queue that a result goes to; None where none may be written to, or none is named."""
        queue = self.reply_to
        if not queue or "reply_to" in self.unreadable or not self.names.may_reply_to(queue):
            return None
        return queue

    @property
    def fingerprint(self) -> str:
        """SHA-256 that stands for a message without a usable key: a redelivery has the same."""
        known_by = self.message_id or f"{self.correlation_id} {self.reply_to} {self.timestamp}"
        body = self.left_out.sha256.encode() if self.left_out is not None else self.body
        return hashlib.sha256(body + known_by.encode()).hexdigest()

    @property
    def published_at(self) -> float:
        """The time of publication in Unix seconds; now where it is missing or in the future."""
        now = time.time()
        return self.timestamp if self.timestamp and self.timestamp <= now else now

    @property
    def deadline(self) -> float | None:
        """The requester's own deadline in Unix seconds; None where there is none.

        The header's, or the end of the message's `expiration`, whichever is first. Raises
        `Refused` where the header is no time.
        """
        named, limits = self.headers.get(DEADLINE_HEADER), []
        if named is not None:
            is_number = isinstance(named, (int, float, Decimal)) and not isinstance(named, bool)
            is_digits = isinstance(named, str) and _is_digits(named)
            if not (is_digits or (is_number and math.isfinite(named))):
                raise wrong(DEADLINE_HEADER)
            limits.append(float(named))
        if self.expiration is not None and _is_digits(self.expiration):
            begun = min(self.timestamp or self.arrived, self.arrived)
            # A timestamp is the second in which it was published, of which this may have been the
            # end. The expiration is in milliseconds.
            limits.append(begun + 1.0 + int(self.expiration) / 1000)
        return min(limits, default=None)

    @property
    def too_late(self) -> Refused | None:
        """The refusal of a request whose own deadline has passed; None while it has not."""
        limit = self.deadline
        is_over = limit is not None and limit < time.time()
        return Refused(Code.FAILED, reason="deadline") if is_over else None


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


class Published(Enum):
    """The outcome of a publication."""

    CONFIRMED = "confirmed"
    #: Mandatory, and no queue took it.
    RETURNED = "returned"
    #: Its queue has taken nothing for longer than it may wait for that.
    REFUSED = "refused"


@record
class Publication:
    """One message to publish. `timestamp` is set when it is sent, in whole Unix seconds.

    `patience`: seconds for which its queue may refuse what goes there; None: for ever.
    """

    exchange: str
    routing_key: str
    body: bytes
    message_id: str | None = None
    correlation_id: str | None = None
    type: str | None = None
    headers: Mapping[str, Any] | None = None
    mandatory: bool = False
    content_type: str | None = "application/json"
    content_encoding: str | None = None
    reply_to: str | None = None
    timestamp: int | None = None
    app_id: str | None = None
    priority: int | None = None
    patience: float | None = None

    @property
    def route(self) -> tuple[str, str]:
        """Exchange and routing key."""
        return self.exchange, self.routing_key

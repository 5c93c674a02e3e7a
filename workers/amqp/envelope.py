"""A message as AMQP brought it, without AMQP."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workers.amqp.names import Names


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What is known of a body that was not kept: its size in bytes and its SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
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
    names: Names = field(kw_only=True)
    app_id: str | None = None
    priority: int | None = None
    #: Milliseconds after which the publisher no longer wants it.
    expiration: str | None = None
    unreadable: tuple[str, ...] = ()
    #: What is known of a body that was too large to be kept; then `body` is empty.
    left_out: LeftOut | None = None
    arrived: float = field(default_factory=time.time)

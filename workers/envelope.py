"""A message as AMQP brought it, without AMQP."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Envelope:
    """Body and properties (contract 2). `user_id` was validated by the broker.

    `timestamp` (when it was published, as the publisher says) and `arrived` (when it was delivered): Unix seconds.
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
    arrived: float = field(default_factory=time.time)

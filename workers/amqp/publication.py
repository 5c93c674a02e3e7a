"""What is published, and what became of it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Published(Enum):
    """What became of a publication."""

    CONFIRMED = "confirmed"
    #: Mandatory, and no queue took it.
    RETURNED = "returned"
    #: Its queue has taken nothing for longer than it may wait for that.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
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
    def line(self) -> tuple[str, str]:
        """Where it goes."""
        return self.exchange, self.routing_key


@dataclass(slots=True, eq=False)
class Entry:
    """A publication on its way; `number` is its place among all, `sent_at` monotonic time."""

    publication: Publication
    number: int
    future: "asyncio.Future[Published]"
    sent_at: float = 0.0
    returned: bool = field(default=False)

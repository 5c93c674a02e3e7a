"""Messages as they would come from the broker, for tests without one."""

import json
import time
from typing import Any

from tests.support.names import NAMES
from workers.amqp.envelope import Envelope


def envelope(body: Any, **properties: Any) -> Envelope:
    """A message in `ecs.servers`; bytes as they are, anything else as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields: dict[str, Any] = {
        "queue": "ecs.servers",
        "exchange": "ecs.commands",
        "routing_key": "server.action",
        "redelivered": False,
        "body": raw,
        "message_id": "m-1",
        "correlation_id": None,
        "reply_to": None,
        "type": None,
        "timestamp": None,
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "user_id": None,
        "headers": {},
        "names": NAMES,
        "arrived": time.time(),
    }
    return Envelope(**fields | properties)

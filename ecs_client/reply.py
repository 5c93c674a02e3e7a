"""The reply to a command."""

import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from ecs_client.errors import failure_of
from messages.record import record

_STATUS = "x-ecs-http-status"


@record
class Reply:
    """A reply: the envelope as it came, and what came with it."""

    #: The envelope verbatim. It may hold a console's URL, so it is not shown.
    body: bytes = field(repr=False)
    headers: Mapping[str, Any]
    #: The request's idempotency key.
    message_id: str

    @property
    def http_status(self) -> int:
        """The HTTP status that the API document gives this result."""
        status = self.headers.get(_STATUS)
        return status if isinstance(status, int) else 500

    @property
    def envelope(self) -> dict[str, Any]:
        """The envelope, read: `code`, `message`, `data`."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    def result(self) -> Any:
        """Return the data of a success. Raises the `RequestFailed` of the code of a failure."""
        envelope = self.envelope
        code = envelope["code"]
        if isinstance(code, int):
            return envelope["data"]
        raise failure_of(
            code, envelope["message"], envelope["data"], self.http_status, self.message_id
        )

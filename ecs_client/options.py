"""Options of every request."""

from collections.abc import Mapping
from typing import Any, TypedDict


class Who(TypedDict, total=False):
    """The requester; the client's own where it is not given."""

    tenant: str | None
    user: str | None
    token: str | None


class Options(Who, total=False):
    """Options of every request.

    `message_id` is the idempotency key: a new one where it is missing. `timeout` is in seconds,
    `deadline` in Unix seconds: past it nothing is begun. `headers` are further AMQP headers.
    """

    message_id: str | None
    timeout: float | None
    deadline: float | None
    traceparent: str | None
    tracestate: str | None
    headers: Mapping[str, Any] | None

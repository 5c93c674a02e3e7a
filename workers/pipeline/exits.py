"""The ways out of the pipeline before a request has its own result.

    Exit
    ├── Ignored        ack: the message asks for nothing
    ├── Rejected       answer with a failure, dead-letter where nobody hears it, then ack
    ├── Answered       ack: the request was known, and its result was published again
    ├── Rescheduled    ack: the message was published to a retry queue
    └── Requeue        nack: the message goes back to its queue as it came

Plain classes: a frozen dataclass that is an exception cannot get its traceback, and turns into a
`TypeError` where a context manager passes it on.
"""

from collections.abc import Mapping
from typing import Any

from messages.errors import Refused
from workers.journal import Kind
from workers.request import Request


class Exit(Exception):
    """A delivery ends here; settling it is decided by the kind of exit."""


class Ignored(Exit):
    """An order message that asks for nothing: its `orderId` or `flowId`, and its `orderStatus`."""

    def __init__(self, name: str | None, status: Any) -> None:
        self.name = name
        self.status = status
        super().__init__("it asks for nothing")


class Rejected(Exit):
    """A message for which nothing is begun.

    `operation` is None where it cannot be told, `message` where the body cannot be read, `request`
    where the message is wrong in form. `tenant` is the project in which it was proven who sent it.
    """

    def __init__(
        self,
        refused: Refused,
        operation: str | None,
        *,
        is_order: bool,
        message: Mapping[str, Any] | None,
    ) -> None:
        self.refused = refused
        self.operation = operation
        self.is_order = is_order
        self.message = message
        self.request: Request | None = None
        self.tenant: str | None = None
        super().__init__(refused.detail or str(refused))

    @classmethod
    def of(cls, request: Request, refused: Refused, tenant: str | None = None) -> "Rejected":
        """Return the rejection of a message that is right in form."""
        is_order = request.kind is Kind.ORDER
        found = cls(refused, request.operation, is_order=is_order, message=request.message)
        found.request, found.tenant = request, tenant
        return found


class Answered(Exit):
    """The request was known: its result was published again."""


class Rescheduled(Exit):
    """The message was published to a retry queue: its request goes on with that one."""


class Requeue(Exit):
    """The message goes back to its queue as it came, without an answer.

    `after`: seconds for which it is held before, without its body.
    """

    def __init__(self, after: float = 0.0) -> None:
        self.after = after
        super().__init__("back to its queue")

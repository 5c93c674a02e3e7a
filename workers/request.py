"""A request as the pipeline knows it: the requester, the work, and the key that makes it known
again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from messages.errors import Refused
from messages.orders import OrderSoftDown
from messages.record import record
from workers.amqp.envelope import Envelope
from workers.journal import Kind, RequestRecord


@record
class Request:
    """A message that is right in form.

    `name` is what makes it known again within its tenant, None for what leaves no journal entry;
    `work` is the typed task or order, `locks` the names of the server locks that it needs.
    `message` is the body without secrets, empty for what is never published again; `token` is what
    is to be verified, and is written nowhere.
    """

    envelope: Envelope
    kind: Kind
    operation: str
    name: str | None
    digest: str
    tenant: str | None
    user_id: str | None
    instance_id: str | None
    work: Any
    message: Mapping[str, Any]
    token: str | None = field(default=None, repr=False)
    #: Why it is only ended, not carried out: the broker gave up on its message.
    given_up: Refused | None = None
    locks: tuple[str, ...] = ()

    @property
    def message_id(self) -> str | None:
        """The id that its status updates name."""
        return self.envelope.message_id or self.name

    def is_same_as(self, known: RequestRecord) -> bool:
        """Tell whether a request that the journal knows by the same name has the same content."""
        return known.kind is self.kind and known.digest == self.digest

    def key(self, project_id: str) -> str | None:
        """Return the journal's key; None for a read. A softDown's flowId is no orderId, though it
        may look like one.
        """
        prefix = _SOFT_DOWN if isinstance(self.work, OrderSoftDown) else self.kind
        return _key(prefix, project_id, self.name) if self.name is not None else None


_SOFT_DOWN = "softdown"


def _key(prefix: str, project_id: str, name: str) -> str:
    return f"{prefix}:{project_id}:{name}"


def keys_of(name: str, project_ids: Iterable[str]) -> list[str]:
    """Return all keys that requests with this name may have in these projects: orders first."""
    prefixes = (Kind.ORDER, _SOFT_DOWN, Kind.COMMAND)
    return [_key(prefix, project, name) for prefix in prefixes for project in project_ids]

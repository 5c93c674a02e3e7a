"""May the sender of a refused order be answered: nobody can answer another's order.

| its id | its sender | told |
|---|---|---|
| not known | proven | result and final update |
| not known | not proven | result alone |
| known | proven | result alone: the known order has a course, and a final update, of its own |
| known | not proven | nothing; the message is parked |
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from messages.errors import Transient
from workers.identity import Identity
from workers.journal import Journal, Kind
from workers.request import Request

_NAMES = ("orderId", "flowId")


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether the result of a refused order is published, and whether its final update is."""

    answered: bool
    updated: bool


async def standing_of(
    request: Request, identity: Identity, journal: Journal, *, proven: bool | None = None
) -> Standing:
    """Return what may be told of an order; `proven`: whether its sender is, None: to be asked.

    `JournalError` where it cannot be told whether its id is known.
    """
    if proven is None:
        try:
            proven = await identity.proves(request)
        except Transient:
            # The key set is away: the order is refused whoever sent it, and is not held for that.
            proven = False
    known = False
    for name in _names(request.message):
        known = known or any(one.kind is Kind.ORDER for one in await journal.find(name))
    return Standing(answered=proven or not known, updated=proven and not known)


def _names(message: Mapping[str, Any]) -> Iterator[str]:
    """Every id in it that a reader could take for an order's: a number is one to some."""
    for field in _NAMES:
        value = message.get(field)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip():
            yield str(value).strip()

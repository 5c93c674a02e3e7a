"""`order.plan`: what would an order do?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from messages.errors import Refused, wrong
from messages.fields import is_uuid, mapping, optional_word


@dataclass(frozen=True, slots=True)
class OrderPlan:
    """Tell what an order would do. `message` is the order as it came, secrets and all: its form is
    to be told, too.
    """

    message: Mapping[str, Any] = field(repr=False)

    @property
    def tenant(self) -> str | None:
        """The tenant that the order names."""
        return _word(self.message, "tenant_id")

    @property
    def instance_id(self) -> str | None:
        """The id of the first server that it names; None where that is no UUID.

        The order's form is judged later: nothing else may become part of a URL before that.
        """
        listed = self.message.get("instanceList", self.message.get("productList"))
        first = listed[0] if isinstance(listed, list) and listed else None
        found = _word(first, "instanceId") if isinstance(first, dict) else None
        return found.lower() if found is not None and is_uuid(found) else None


def parse_plan(message: Mapping[str, Any]) -> OrderPlan:
    """The question, or `Refused` naming `order`."""
    order = mapping(message.get("order"), "order")
    if not order:
        raise wrong("order", "there is no order in it")
    return OrderPlan(order)


def _word(message: Mapping[str, Any], name: str) -> str | None:
    try:
        return optional_word(message.get(name), name)
    except Refused:
        return None

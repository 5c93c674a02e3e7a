"""What every order has in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from messages.errors import wrong
from messages.fields import name_in_routing_key, optional_word, word

PRODUCT_LINE = "ECS"


class OrderType(StrEnum):
    """The kinds of orders; `softDown` is told by its `instanceList`, all others by their `orderType`."""

    CHANGE_CONFIGURE = "changeConfigure"
    NEW = "new"
    RENEW = "renew"
    UNSUBSCRIBE = "unsubscribe"
    SOFT_DOWN = "softDown"


@dataclass(frozen=True, slots=True)
class Heading:
    """Whose order it is. `name` is what it is known by: its orderId, a softDown's flowId.

    `ordered` is the message as it came, without secrets.
    """

    order_type: OrderType
    name: str
    flow_id: str | None
    user_id: str | None
    tenant: str | None
    bill_type: str | None
    ordered: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Order:
    """An order that is right in form."""

    heading: Heading

    @property
    def order_type(self) -> OrderType:
        """Its kind."""
        return self.heading.order_type

    @property
    def name(self) -> str:
        """What it is known by: its orderId, a softDown's flowId."""
        return self.heading.name

    @property
    def ordered(self) -> Mapping[str, Any]:
        """The message as it came, without secrets."""
        return self.heading.ordered

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """The servers that it names, in its order."""
        return ()


def read_heading(order_type: OrderType, message: Mapping[str, Any]) -> Heading:
    """The heading of a paid order."""
    if word(message.get("orderRoute"), "orderRoute") != PRODUCT_LINE:
        raise wrong("orderRoute")
    return Heading(
        order_type=order_type,
        name=name_in_routing_key(message.get("orderId"), "orderId"),
        flow_id=optional_word(message.get("consoleOrderFlowId"), "consoleOrderFlowId"),
        user_id=optional_word(message.get("userId"), "userId"),
        tenant=optional_word(message.get("tenant_id"), "tenant_id"),
        bill_type=optional_word(message.get("billType"), "billType"),
        ordered=message,
    )

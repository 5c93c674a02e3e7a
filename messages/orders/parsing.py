"""Which order a message is."""

from collections.abc import Callable, Mapping
from typing import Any

from messages.errors import Refused, wrong
from messages.fields import name_in_routing_key, word
from messages.orders.change_configure import parse_change_configure
from messages.orders.new_servers import parse_new
from messages.orders.order import Heading, Order, OrderType, read_heading
from messages.orders.renew import parse_renew
from messages.orders.soft_down import parse_soft_down
from messages.orders.unsubscribe import parse_unsubscribe
from messages.secrets import mask

PAID = "paySuccess"

_PARSERS: Mapping[OrderType, Callable[[Heading], Order]] = {
    OrderType.CHANGE_CONFIGURE: parse_change_configure,
    OrderType.RENEW: parse_renew,
    OrderType.UNSUBSCRIBE: parse_unsubscribe,
}


def is_paid(message: Mapping[str, Any]) -> bool:
    """Whether an order message asks for something: only `paySuccess` does, and softDown.

    `Refused` where it does not say, lest one that was paid for be passed over.
    """
    return _is_soft_down(message) or word(message.get("orderStatus"), "orderStatus") == PAID


def order_type_of(message: Mapping[str, Any]) -> str:
    """The order type for a routing key, `softDown` for that message, `unknown` where it cannot be
    told.
    """
    if _is_soft_down(message):
        return OrderType.SOFT_DOWN
    name = message.get("orderType")
    cleaned = name.strip() if isinstance(name, str) else ""
    usable = cleaned.isascii() and cleaned.isalnum() and len(cleaned) <= 64
    # `order.plan` is the name of a command.
    return cleaned if usable and cleaned != "plan" else "unknown"


def name_of(message: Mapping[str, Any]) -> str | None:
    """What an order is known by, its orderId or a softDown's flowId; None where it has nothing that
    could be used.
    """
    field = "flowId" if _is_soft_down(message) else "orderId"
    try:
        return name_in_routing_key(message.get(field), field)
    except Refused:
        return None


def parse_order(message: Mapping[str, Any]) -> Order:
    """The order in a message's body, or `Refused` naming the field that is wrong. Its `ordered` is
    without secrets.
    """
    shown = mask(dict(message))
    if _is_soft_down(message):
        return parse_soft_down(shown)
    order_type = _order_type(shown)
    heading = read_heading(order_type, shown)
    return (
        parse_new(heading, message)
        if order_type is OrderType.NEW
        else _PARSERS[order_type](heading)
    )


def _is_soft_down(message: Mapping[str, Any]) -> bool:
    return "instanceList" in message


def _order_type(message: Mapping[str, Any]) -> OrderType:
    name = word(message.get("orderType"), "orderType")
    if name not in (*_PARSERS, OrderType.NEW):
        raise wrong("orderType", "there is no such order")
    return OrderType(name)

"""Fields that every order has, and those of every paid order."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from messages.errors import Refused
from messages.fields import (
    Model,
    OptionalWord,
    RoutedName,
    StoredWord,
    Taken,
    Unread,
    WrongValue,
    keyword,
    read,
    routed_name,
    word,
)

PRODUCT_LINE = "ECS"
#: Products of one order.
MAX_PRODUCTS = 100
#: The format in which the billing system writes a time, of its own time zone.
TIME_FORM = "%Y-%m-%d %H:%M:%S"
#: The only `orderStatus` of a paid order that asks for something.
PAID = "paySuccess"


class OrderType(StrEnum):
    """The kinds of orders; `softDown` is told by its `instanceList`, all others by their
    `orderType`.
    """

    CHANGE_CONFIGURE = "changeConfigure"
    NEW = "new"
    RENEW = "renew"
    UNSUBSCRIBE = "unsubscribe"
    SOFT_DOWN = "softDown"


def read_time(value: Any) -> datetime | None:
    """Read a date with a time of day as people and programs write it, in whole seconds; None where
    it is none.

    `2026-11-23 10:00:00`; also with a fraction (dropped), with `T`, without seconds, and with a
    zone (`Z`, `+08:00`, `+0800`): only then has what is returned a zone. A date alone is none:
    nobody knows which end of the day is meant.
    """
    if not isinstance(value, str):
        return None
    text = " ".join(value.upper().split())
    with suppress(ValueError):
        # Of a zone that is known elsewhere.
        return datetime.strptime(text, TIME_FORM)  # noqa: DTZ007
    # Digits without a separator (`20261123104500`, milliseconds) would be taken for another
    # century.
    date, _, time = text.replace("T", " ", 1).partition(" ")
    if ":" not in time:
        return None
    with suppress(ValueError):
        return datetime.fromisoformat(f"{date}T{time.replace(' ', '')}").replace(microsecond=0)
    return None


def _product_line(value: Any) -> str:
    if word(value) != PRODUCT_LINE:
        raise WrongValue
    return PRODUCT_LINE


ProductLine = Annotated[str, Taken(_product_line, keyword(PRODUCT_LINE))]
#: The object as it came, without secrets; it is not part of the message.
Ordered = SkipJsonSchema[Mapping[str, Any]]
_StatusTime = Annotated[datetime | None, Taken(read_time, {})]


class Order(Model):
    """An order: `name` is its orderId, a softDown's flowId. `ordered` is the message as it came,
    without secrets.
    """

    naming_order: ClassVar[tuple[str, ...]] = (
        *("orderRoute", "orderId", "consoleOrderFlowId", "userId", "tenant_id", "billType"),
        *("setCount", "productList", "duration", "durationUnit", "consoleCustomization", "secrets"),
    )

    order_type: OrderType = Field(alias="orderType")
    region: Unread = Field(None, description="the worker's own, where it is given")
    name: RoutedName = Field(
        alias="orderId", description="at most 240 bytes; the name that the order is known by"
    )
    flow_id: OptionalWord = Field(None, alias="consoleOrderFlowId")
    user_id: OptionalWord = Field(None, alias="userId", description="the token's `sub`")
    tenant: OptionalWord = Field(
        None, alias="tenant_id", description="where publishers are trusted"
    )
    bill_type: StoredWord = Field(None, alias="billType")
    #: None where it is missing or cannot be read; without a zone it is of the billing time zone.
    status_time: _StatusTime = Field(
        None,
        alias="statusTime",
        description="2026-11-23 10:00:00, in the billing time zone",
    )
    ordered: Ordered = Field(repr=False)

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """The servers that it names, in its order."""
        return ()


def stated(order_type: OrderType) -> Taken:
    """The annotation of the `orderType` of one kind of order."""

    def validate(value: Any) -> OrderType:
        if word(value) != order_type:
            raise WrongValue
        return order_type

    return Taken(validate, keyword(order_type))


class PaidOrder(Order):
    """An order that was paid for. Numbers may be texts, words may have blanks around them."""

    order_status: Unread = Field(
        alias="orderStatus", description=f"only `{PAID}` asks for something; any other is counted"
    )
    order_route: ProductLine = Field(alias="orderRoute")
    token: Unread = Field(None, description="a signed token, where they are asked for")


class Product(Model):
    """A product of an order. `ordered` is the product as it came, without secrets."""

    product_line: ProductLine = Field(alias="productLineCode")
    region: Unread = None
    product_type: Unread = Field(None, alias="productTypeCode")
    ordered: Ordered = Field(repr=False)


def with_ordered(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each object of a list itself as its `ordered`."""
    return [{**one, "ordered": one} for one in listed]


def check_different(instance_ids: tuple[str, ...]) -> None:
    """Raise `WrongValue` where a server is named twice."""
    if len(set(instance_ids)) != len(instance_ids):
        raise WrongValue("an instance is named twice", "instanceId")


def is_soft_down(message: Mapping[str, Any]) -> bool:
    """Tell whether an order message is a softDown."""
    return "instanceList" in message


def is_paid(message: Mapping[str, Any]) -> bool:
    """Tell whether an order message asks for something: only `paySuccess` does, and softDown.

    Raises `Refused` where it does not say, lest one that was paid for be passed over.
    """
    if is_soft_down(message):
        return True
    return read(word, message.get("orderStatus"), "orderStatus") == PAID


def order_type_of(message: Mapping[str, Any]) -> str:
    """Return the order type for a routing key, `softDown` for that message, `unknown` where it
    cannot be told.
    """
    if is_soft_down(message):
        return OrderType.SOFT_DOWN
    name = message.get("orderType")
    cleaned = name.strip() if isinstance(name, str) else ""
    usable = cleaned.isascii() and cleaned.isalnum() and len(cleaned) <= 64
    # `order.plan` is the name of a command.
    return cleaned if usable and cleaned != "plan" else "unknown"


def name_of(message: Mapping[str, Any]) -> str | None:
    """Return an order's orderId or a softDown's flowId; None where it has none that could be used."""
    field = "flowId" if is_soft_down(message) else "orderId"
    try:
        return read(routed_name, message.get(field), field)
    except Refused:
        return None

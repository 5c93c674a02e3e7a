"""Orders (contract 5): what the billing system says has been paid for, its quirks cleaned here and nowhere else.

Numbers come as strings, words with blanks around them, and items with the value `"0"` that mean "none".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from messages.errors import wrong
from messages.fields import listing, mapping, optional_word, uuid_of, whole, word

PRODUCT_LINE = "ECS"
PAID = "paySuccess"
#: Products of one order, items of one product.
MAX_PRODUCTS = 100
MAX_ITEMS = 100


class OrderType(StrEnum):
    """The kinds of orders that are carried out."""

    CHANGE_CONFIGURE = "changeConfigure"


class ItemKind(StrEnum):
    """What an item's code says it is; OTHER is a flavor, if its value is one's name or id."""

    CPU = "CPU"
    MEMORY = "memory"
    IMAGE = "image"
    SYSTEM_DISK = "sys_EBS"
    DATA_DISK = "data_EBS"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing of a product. `volume_type` is set for disks; `volume_id` where a data disk names its volume."""

    code: str
    kind: ItemKind
    value: str
    volume_type: str | None = None
    volume_id: str | None = None

    def number(self) -> int:
        """The value as a whole number, or `Refused` naming the item."""
        return whole(self.value, self.code)


@dataclass(frozen=True, slots=True)
class Product:
    """One server of a changeConfigure order."""

    instance_id: str
    items: tuple[Item, ...]
    ordered: Mapping[str, Any]

    def of_kind(self, kind: ItemKind) -> tuple[Item, ...]:
        """The items of one kind."""
        return tuple(item for item in self.items if item.kind is kind)


@dataclass(frozen=True, slots=True)
class Order:
    """A paid order that is right in form. `ordered` is the message as it came, without secrets."""

    order_type: OrderType
    order_id: str
    flow_id: str | None
    user_id: str | None
    tenant: str | None
    bill_type: str | None
    products: tuple[Product, ...]
    ordered: Mapping[str, Any]


def is_paid(message: Mapping[str, Any]) -> bool:
    """Whether an order message asks for something: only `paySuccess` does."""
    status = message.get("orderStatus")
    return isinstance(status, str) and status.strip() == PAID


def order_type_of(message: Mapping[str, Any]) -> str:
    """The order type for a routing key, `softDown` for that message, `unknown` where it cannot be told."""
    if "instanceList" in message:
        return "softDown"
    name = message.get("orderType")
    cleaned = name.strip() if isinstance(name, str) else ""
    return cleaned if cleaned.isascii() and cleaned.isalnum() and len(cleaned) <= 64 else "unknown"


def parse_order(message: Mapping[str, Any]) -> Order:
    """The order in a message's body, or `Refused` naming the field that is wrong."""
    order_type = _order_type(message)
    if word(message.get("orderRoute"), "orderRoute") != PRODUCT_LINE:
        raise wrong("orderRoute")
    if whole(message.get("setCount"), "setCount") != 1:
        raise wrong("setCount", "a changeConfigure order has one set")
    products = tuple(
        _product(mapping(product, "productList"))
        for product in listing(message.get("productList"), "productList", 1, MAX_PRODUCTS)
    )
    if len({product.instance_id for product in products}) != len(products):
        raise wrong("instanceId", "an instance is named twice")
    return Order(
        order_type=order_type,
        order_id=word(message.get("orderId"), "orderId"),
        flow_id=optional_word(message.get("consoleOrderFlowId"), "consoleOrderFlowId"),
        user_id=optional_word(message.get("userId"), "userId"),
        tenant=optional_word(message.get("tenant_id"), "tenant_id"),
        bill_type=optional_word(message.get("billType"), "billType"),
        products=products,
        ordered=message,
    )


def _order_type(message: Mapping[str, Any]) -> OrderType:
    try:
        return OrderType(word(message.get("orderType"), "orderType"))
    except ValueError:
        raise wrong("orderType", "there is no such order") from None


def _product(product: Mapping[str, Any]) -> Product:
    if word(product.get("productLineCode"), "productLineCode") != PRODUCT_LINE:
        raise wrong("productLineCode")
    if whole(product.get("instanceCount"), "instanceCount") != 1:
        raise wrong("instanceCount", "a changeConfigure product is one instance")
    items = listing(product.get("itemList"), "itemList", 0, MAX_ITEMS)
    return Product(
        instance_id=uuid_of(optional_word(product.get("instanceId"), "instanceId"), "instanceId"),
        items=tuple(found for item in items if (found := _item(mapping(item, "itemList"))) is not None),
        ordered=product,
    )


def _item(item: Mapping[str, Any]) -> Item | None:
    """An item, or None where its value says that there is none of it."""
    code = word(item.get("code"), "code")
    value = item.get("value")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text = optional_word(value, code)
    if text is None or text == "0":
        return None
    kind, volume_type = _kind(code)
    named = optional_word(item.get("instanceId"), "instanceId") if kind is ItemKind.DATA_DISK else None
    return Item(code, kind, text, volume_type, uuid_of(named, "instanceId") if named else None)


def _kind(code: str) -> tuple[ItemKind, str | None]:
    if code in (ItemKind.CPU, ItemKind.MEMORY):
        return ItemKind(code), None
    for kind in (ItemKind.SYSTEM_DISK, ItemKind.DATA_DISK):
        if code.startswith(f"{kind}_") and len(code) > len(kind) + 1:
            return kind, code[len(kind) + 1 :]
    return (ItemKind.IMAGE if code.startswith("image_") else ItemKind.OTHER), None

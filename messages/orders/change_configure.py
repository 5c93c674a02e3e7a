"""`changeConfigure`: another flavor, larger disks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from messages.orders.items import Item, read_items
from messages.orders.order import Heading, Order
from messages.orders.products import (
    InstanceProduct,
    check_different,
    check_one_set,
    read_instance,
    read_products,
)


@dataclass(frozen=True, slots=True)
class ChangedProduct(InstanceProduct):
    """One server, and what it is to be made of."""

    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class OrderChangeConfigure(Order):
    """Give these servers another flavor, larger disks."""

    products: tuple[ChangedProduct, ...]

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """The servers that it names, in its order."""
        return tuple(product.instance_id for product in self.products)


def parse_change_configure(heading: Heading) -> OrderChangeConfigure:
    """The order, or `Refused` naming the field that is wrong."""
    check_one_set(heading.ordered)
    products = tuple(_product(product) for product in read_products(heading.ordered))
    check_different([product.instance_id for product in products])
    return OrderChangeConfigure(heading, products)


def _product(product: Mapping[str, Any]) -> ChangedProduct:
    found = read_instance(product)
    return ChangedProduct(found.instance_id, found.ordered, read_items(product))

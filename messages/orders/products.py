"""The products of an order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from messages.errors import wrong
from messages.fields import objects, optional_word, uuid_of, whole, word
from messages.orders.order import PRODUCT_LINE

#: Products of one order.
MAX_PRODUCTS = 100


@dataclass(frozen=True, slots=True)
class InstanceProduct:
    """A server that there is. `ordered` is the product as it came, without secrets."""

    instance_id: str
    ordered: Mapping[str, Any]


def read_products(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The products as they came, 1..100 of our line."""
    products = objects(message.get("productList"), "productList", 1, MAX_PRODUCTS)
    for product in products:
        if word(product.get("productLineCode"), "productLineCode") != PRODUCT_LINE:
            raise wrong("productLineCode")
    return products


def read_instance(product: Mapping[str, Any]) -> InstanceProduct:
    """The one server that a product names."""
    if whole(product.get("instanceCount"), "instanceCount") != 1:
        raise wrong("instanceCount", "such a product is one instance")
    return InstanceProduct(
        uuid_of(optional_word(product.get("instanceId"), "instanceId"), "instanceId"), product
    )


def read_instances(message: Mapping[str, Any]) -> tuple[InstanceProduct, ...]:
    """The servers of an order that names them: one set, each a product, none twice."""
    check_one_set(message)
    instances = tuple(read_instance(product) for product in read_products(message))
    check_different([one.instance_id for one in instances])
    return instances


def check_one_set(message: Mapping[str, Any]) -> None:
    """`Refused` for an order of several sets, where they can mean nothing."""
    if whole(message.get("setCount"), "setCount") != 1:
        raise wrong("setCount", "an order that names its instances has one set")


def check_different(instance_ids: list[str]) -> None:
    """`Refused` where a server is named twice."""
    if len(set(instance_ids)) != len(instance_ids):
        raise wrong("instanceId", "an instance is named twice")

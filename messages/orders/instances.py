"""Orders on servers that there are: `changeConfigure`, `renew` and `unsubscribe`."""

from typing import Annotated

from pydantic import Field, model_validator

from messages.fields import ListOf, TrimmedUuid, counted
from messages.orders.items import Items
from messages.orders.order import (
    MAX_PRODUCTS,
    OrderType,
    PaidOrder,
    Product,
    check_different,
    stated,
    with_ordered,
)
from messages.orders.term import TermOrder

_OneSet = Annotated[int, counted(1, 1, "an order that names its instances has one set")]
_OneInstance = Annotated[int, counted(1, 1, "such a product is one instance")]


class InstanceProduct(Product):
    """A server that there is. Its items are not looked at: they change nothing."""

    instance_count: _OneInstance = Field(alias="instanceCount")
    instance_id: TrimmedUuid = Field(alias="instanceId", description="a server's id")


class ChangedProduct(InstanceProduct):
    """A server, and the flavor and disks that it is to have."""

    items: Items = Field(alias="itemList")


_Products = Annotated[tuple[InstanceProduct, ...], ListOf(1, MAX_PRODUCTS, with_ordered)]


class InstanceOrder(PaidOrder):
    """An order of one set on servers that there are, each a product, none twice."""

    set_count: _OneSet = Field(alias="setCount")
    products: _Products = Field(alias="productList")

    @model_validator(mode="after")
    def _different(self) -> "InstanceOrder":
        check_different(self.instance_ids)
        return self

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """The servers that it names, in its order."""
        return tuple(product.instance_id for product in self.products)


class OrderChangeConfigure(InstanceOrder):
    """Give servers another flavor and larger disks."""

    order_type: Annotated[OrderType, stated(OrderType.CHANGE_CONFIGURE)] = Field(alias="orderType")
    products: Annotated[tuple[ChangedProduct, ...], ListOf(1, MAX_PRODUCTS, with_ordered)] = Field(
        alias="productList"
    )


class OrderRenew(InstanceOrder, TermOrder):
    """Pay for servers for another term."""

    order_type: Annotated[OrderType, stated(OrderType.RENEW)] = Field(alias="orderType")


class OrderUnsubscribe(InstanceOrder):
    """Delete servers, with what came with them."""

    order_type: Annotated[OrderType, stated(OrderType.UNSUBSCRIBE)] = Field(alias="orderType")

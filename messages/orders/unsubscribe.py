"""`unsubscribe`: servers go, with what came with them."""

from dataclasses import dataclass

from messages.orders.order import Heading, Order
from messages.orders.products import InstanceProduct, read_instances


@dataclass(frozen=True, slots=True)
class OrderUnsubscribe(Order):
    """Delete these servers."""

    products: tuple[InstanceProduct, ...]

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """The servers that it names, in its order."""
        return tuple(product.instance_id for product in self.products)


def parse_unsubscribe(heading: Heading) -> OrderUnsubscribe:
    """The order, or `Refused` naming the field that is wrong. Items are not looked at: all goes."""
    return OrderUnsubscribe(heading, read_instances(heading.ordered))

"""`renew`: servers stay for another term."""

from dataclasses import dataclass

from messages.orders.order import Heading, Order
from messages.orders.products import InstanceProduct, read_instances
from messages.orders.term import Term, read_term


@dataclass(frozen=True, slots=True)
class OrderRenew(Order):
    """Pay for these servers for another term."""

    products: tuple[InstanceProduct, ...]
    term: Term

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """The servers that it names, in its order."""
        return tuple(product.instance_id for product in self.products)


def parse_renew(heading: Heading) -> OrderRenew:
    """The order, or `Refused` naming the field that is wrong. Items are not looked at: they change
    nothing.
    """
    return OrderRenew(heading, read_instances(heading.ordered), read_term(heading.ordered))

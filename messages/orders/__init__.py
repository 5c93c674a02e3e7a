"""Orders (contract 5): paid orders of the billing system, and its softDown messages.

Their quirks are cleaned here and nowhere else: numbers come as strings, words with blanks around
them, and items with the value `"0"` that mean "none".
"""

from messages.orders.instances import (
    ChangedProduct,
    InstanceProduct,
    OrderChangeConfigure,
    OrderRenew,
    OrderUnsubscribe,
)
from messages.orders.items import ItemKind, OrderItem, of_kind
from messages.orders.new import Customization, NewProduct, OrderNew, Secrets, disk_name
from messages.orders.order import (
    MAX_PRODUCTS,
    TIME_FORM,
    Order,
    OrderType,
    is_paid,
    name_of,
    order_type_of,
    read_time,
)
from messages.orders.soft_down import Operate, OrderSoftDown, SoftDownInstance
from messages.orders.term import Term, Unit

__all__ = [
    "MAX_PRODUCTS",
    "TIME_FORM",
    "ChangedProduct",
    "Customization",
    "InstanceProduct",
    "ItemKind",
    "NewProduct",
    "Operate",
    "Order",
    "OrderChangeConfigure",
    "OrderItem",
    "OrderNew",
    "OrderRenew",
    "OrderSoftDown",
    "OrderType",
    "OrderUnsubscribe",
    "Secrets",
    "SoftDownInstance",
    "Term",
    "Unit",
    "disk_name",
    "is_paid",
    "name_of",
    "of_kind",
    "order_type_of",
    "read_time",
]

"""Orders (contract 5): what the billing system says has been paid for, and what it wants done with
what is not.

Their quirks are cleaned here and nowhere else: numbers come as strings, words with blanks around
them, and items with the value `"0"` that mean "none".
"""

from messages.orders.change_configure import ChangedProduct, OrderChangeConfigure
from messages.orders.foreseen import OrderPlan, parse_plan
from messages.orders.items import Item, ItemKind, of_kind
from messages.orders.new_servers import Customization, NewProduct, OrderNew, Secrets, disk_name
from messages.orders.order import TIME_FORM, Heading, Order, OrderType, read_time
from messages.orders.parsing import is_paid, name_of, order_type_of, parse_order
from messages.orders.products import MAX_PRODUCTS, InstanceProduct
from messages.orders.renew import OrderRenew
from messages.orders.soft_down import Operate, OrderSoftDown, SoftDownInstance
from messages.orders.term import Term, Unit
from messages.orders.unsubscribe import OrderUnsubscribe

__all__ = [
    "MAX_PRODUCTS",
    "TIME_FORM",
    "ChangedProduct",
    "Customization",
    "Heading",
    "InstanceProduct",
    "Item",
    "ItemKind",
    "NewProduct",
    "Operate",
    "Order",
    "OrderChangeConfigure",
    "OrderNew",
    "OrderPlan",
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
    "parse_order",
    "parse_plan",
    "read_time",
]

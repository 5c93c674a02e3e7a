"""Name on a server, in a metadata item, the orders that were carried out on it.

An order's name is written last, or with what the order changes. By it an order is known to have
been carried out where the journal does not say so: one that was lost, or restored from a backup.
"""

from handlers.context import RequestContext
from handlers.openstack.nova import Server

#: The item: names of the orders, newest last, separated by commas.
ORDERS = "orders"
#: The item of earlier versions, for renewals alone. A server that has it goes on with it: there may
#: be no room for another.
_RENEWALS = "renewals"
#: Characters by which an order is named, and how many names fit into an item's 255.
_NAME, _NAMES = 12, 19


def has_order(server: Server, context: RequestContext) -> bool:
    """Tell whether the server bears the order's name, in whichever item."""
    return any(_name(context) in _names(server, item) for item in (ORDERS, _RENEWALS))


def with_order(server: Server, context: RequestContext) -> dict[str, str]:
    """Return the metadata item that names this order besides those that it names now."""
    item = _RENEWALS if _RENEWALS in server.metadata else ORDERS
    others = [one for one in _names(server, item) if one != _name(context)]
    return {item: ",".join([*others, _name(context)][-_NAMES:])}


def without_order(server: Server, context: RequestContext) -> tuple[str, str]:
    """Return the item that names the order, and its text without that name (empty: no other)."""
    name = _name(context)
    item = ORDERS if name in _names(server, ORDERS) else _RENEWALS
    return item, ",".join(one for one in _names(server, item) if one != name)


def _name(context: RequestContext) -> str:
    return context.mark[:_NAME]


def _names(server: Server, item: str) -> list[str]:
    return [one for one in server.metadata.get(item, "").split(",") if one]

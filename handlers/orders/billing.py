"""A server's metadata as billing reads them: fee data (contract 4), and the names of its orders.

The name of an order is written last, or in the same call as what the order changes. By the name an
order is known to have been carried out where the journal does not say so: one that was lost, or
restored from a backup.
"""

from datetime import datetime, tzinfo

from handlers.context import RequestContext
from handlers.openstack.nova import Server
from handlers.orders.step import failed
from handlers.servers.fee_data import local_time
from handlers.servers.guard import CHARGE_TYPE
from messages.orders import read_time

ORDER_ID = "order_id"
START_FEE_TIME = "start_fee_time"
NEXT_FEE_TIME = "next_fee_time"
#: statusTime of the changeConfigure order that was carried out last: an older one must not undo it.
STATUS_TIME = "status_time"
#: The items of fee data in the snapshots before and after an order.
FEE_ITEMS = (CHARGE_TYPE, START_FEE_TIME, NEXT_FEE_TIME, "purchase_time", ORDER_ID)
#: The item with the names of orders, newest last, separated by commas.
_ORDERS = "orders"
#: The item of earlier versions, for renewals alone. A server that has it goes on with it: there may
#: be no room for another.
_RENEWALS = "renewals"
#: Characters of an order's name, and how many names fit into an item's 255.
_NAME, _NAMES = 12, 19


def fee_time(server: Server, item: str, zone: tzinfo) -> datetime | None:
    """Read a time from a server's fee data, in the billing time zone; None where there is no item.

    Raises `Refused` (`fee_data`) where it cannot be read: without it, a paid term would be lost.
    """
    text = server.metadata.get(item, "")
    if not text.strip():
        return None
    found = local_time(read_time(text), zone)
    if found is None:
        raise failed("fee_data", f"{item} of server {server.id} cannot be read: {text!r}")
    return found


def has_order(server: Server, context: RequestContext) -> bool:
    """Tell whether the order's name is on the server, in whichever item."""
    return any(_name(context) in _names(server, item) for item in (_ORDERS, _RENEWALS))


def with_order(server: Server, context: RequestContext) -> dict[str, str]:
    """Return the metadata item that names this order besides those that it names now."""
    item = _RENEWALS if _RENEWALS in server.metadata else _ORDERS
    others = [one for one in _names(server, item) if one != _name(context)]
    return {item: ",".join([*others, _name(context)][-_NAMES:])}


def without_order(server: Server, context: RequestContext) -> tuple[str, str]:
    """Return the item that names the order, and its text without that name (empty: no other)."""
    name = _name(context)
    item = _ORDERS if name in _names(server, _ORDERS) else _RENEWALS
    return item, ",".join(one for one in _names(server, item) if one != name)


def _name(context: RequestContext) -> str:
    return context.mark[:_NAME]


def _names(server: Server, item: str) -> list[str]:
    return [one for one in server.metadata.get(item, "").split(",") if one]

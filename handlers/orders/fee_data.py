"""Fee data: what a server's metadata say of how it is paid for (contract 4)."""

from datetime import UTC, datetime, tzinfo

from handlers.servers import CHARGE_TYPE
from messages.orders import TIME_FORM, read_time

ORDER_ID = "order_id"
NEXT_FEE_TIME = "next_fee_time"
#: statusTime of the changeConfigure order that was carried out last: an older one must not undo it.
STATUS_TIME = "status_time"
#: What is told of a server's fee data before and after an order.
FEE_ITEMS = (CHARGE_TYPE, "start_fee_time", NEXT_FEE_TIME, "purchase_time", ORDER_ID)


def local_time(text: str | None, zone: tzinfo) -> datetime | None:
    """A time of the billing time zone; None where there is none that could be read."""
    found = read_time(text)
    return found.replace(tzinfo=zone) if found is not None else None


def written(time: datetime) -> str:
    """A time as fee data have it. One that the clocks skip is told as they show it then."""
    return time.astimezone(UTC).astimezone(time.tzinfo).strftime(TIME_FORM)

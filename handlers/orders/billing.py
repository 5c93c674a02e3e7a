"""Fee data: what a server's metadata say of how it is paid for (contract 4)."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo

from handlers.openstack.nova import Server
from handlers.orders.step import failed
from handlers.servers.guard import CHARGE_TYPE
from messages.orders import read_time

ORDER_ID = "order_id"
START_FEE_TIME = "start_fee_time"
NEXT_FEE_TIME = "next_fee_time"
#: statusTime of the changeConfigure order that was carried out last: an older one must not undo it.
STATUS_TIME = "status_time"
#: What is told of a server's fee data before and after an order.
FEE_ITEMS = (CHARGE_TYPE, START_FEE_TIME, NEXT_FEE_TIME, "purchase_time", ORDER_ID)


def fee_time(server: Server, item: str, zone: tzinfo) -> datetime | None:
    """The time that an item of a server's fee data says, in the billing time zone; None where there
    is no item.

    `Refused` (`fee_data`) where it cannot be read: reckoned without it, a paid term would be lost.
    """
    text = server.metadata.get(item, "")
    if not text.strip():
        return None
    found = local_time(read_time(text), zone)
    if found is None:
        raise failed("fee_data", f"{item} of server {server.id} cannot be read: {text!r}")
    return found


def local_time(found: datetime | None, zone: tzinfo) -> datetime | None:
    """A time in the billing time zone, which is its own where it has none; None where no calendar
    has it there.

    Of the two readings of an hour that the clocks skip or repeat the later one: what is paid for is
    not cut short.
    """
    if found is None:
        return None
    if found.tzinfo is not None:
        try:
            return found.astimezone(zone)
        except OverflowError:
            return None
    readings = [found.replace(tzinfo=zone, fold=fold) for fold in (0, 1)]
    return min(readings, key=lambda one: one.utcoffset() or timedelta())


def written(time: datetime) -> str:
    """A time as fee data have it (`TIME_FORM`). One that the clocks skip is told as they show it
    then.
    """
    with suppress(OverflowError):  # at the ends of the calendar, where no clock skips anything
        time = time.astimezone(UTC).astimezone(time.tzinfo)
    return time.replace(tzinfo=None).isoformat(
        " ", "seconds"
    )  # strftime does not write the year 1 in four digits


def shown(text: str | None, zone: tzinfo) -> str | None:
    """An item of fee data for a person: a time as fee data have it, however it is written; all else
    as it is.
    """
    found = local_time(read_time(text), zone)
    return written(found) if found is not None else text

"""Times in the fee data of a server's metadata: in the billing time zone, in one form."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo

from messages.orders import read_time


def local_time(found: datetime | None, zone: tzinfo) -> datetime | None:
    """Convert a time to the billing time zone, which is its own where it has none; None where no
    calendar has it there.

    Of the two readings of an hour that the clocks skip or repeat the later one is taken: what is
    paid for is not cut short.
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
    """Write a time as fee data have it (`TIME_FORM`). One that the clocks skip is written as they
    show it then.
    """
    with suppress(OverflowError):  # at the ends of the calendar, where no clock skips anything
        time = time.astimezone(UTC).astimezone(time.tzinfo)
    # strftime does not write the year 1 in four digits
    return time.replace(tzinfo=None).isoformat(" ", "seconds")


def shown(text: str | None, zone: tzinfo) -> str | None:
    """Format an item of fee data for a view: a time as fee data have it, however it was written;
    any other text as it is.
    """
    found = local_time(read_time(text), zone)
    return written(found) if found is not None else text

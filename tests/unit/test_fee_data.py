"""Times of fee data: read as far as they can be, written as clocks show them."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from handlers.checks import Checks
from handlers.orders.fee_data import local_time, written
from messages.errors import Refused, Transient, wrong
from messages.orders import read_time

BERLIN, SHANGHAI = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Shanghai")


@pytest.mark.parametrize("text", [None, "", "soon", "2026-02-30 00:00:00", "2026-01-01", "2026-01-01T00:00:00Z", 7])
def test_what_is_no_time_is_none(text: object) -> None:
    assert read_time(text) is None


def test_a_time_is_of_the_billing_time_zone() -> None:
    assert local_time(" 2026-11-23 10:00:00 ", SHANGHAI) == datetime(2026, 11, 23, 10, tzinfo=SHANGHAI)
    assert local_time(None, SHANGHAI) is None
    assert written(datetime(2026, 11, 23, 10, 0, 0, 999_999, SHANGHAI)) == "2026-11-23 10:00:00"


def test_an_hour_that_the_clocks_skip_is_told_as_they_show_it() -> None:
    skipped = datetime(2026, 3, 28, 2, 30, tzinfo=BERLIN) + timedelta(days=1)
    assert written(skipped) == "2026-03-29 03:30:00"


def test_checks_are_noted_with_why_they_failed() -> None:
    checks = Checks()
    with checks.of("flavor", "s-1"):
        pass
    for error in (wrong("std_2C4G"), Transient("busy"), Transient("no_connection")):
        with pytest.raises((Refused, Transient)), checks.of("state", "s-1"):
            raise error
    # A cloud that could not be asked is no answer.
    assert [(one.name, one.failure is None, one.later) for one in checks.listed] == [
        ("flavor", True, False), ("state", False, False), ("state", False, True),
    ]  # fmt: skip
    assert checks.failed is checks.listed[1]

"""Times of fee data: read as far as they can be, written as clocks show them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from handlers.context import Checks
from handlers.openstack.nova import Server
from handlers.orders.billing import NEXT_FEE_TIME, fee_time
from handlers.servers.fee_data import local_time, shown, written
from messages.codes import Code
from messages.errors import Refused, Transient, wrong
from messages.orders import read_time
from messages.orders.term import Term, Unit

BERLIN, SHANGHAI = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Shanghai")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        " ",
        "soon",
        7,
        1809795207000,
        ["2026-01-01 00:00:00"],
        "2026-01-01",
        "2026-02-30 00:00:00",
        "2026-13-01 00:00:00",
        "2026-01-01 25:00:00",
        "2026-01-01 10",
        "0000-00-00 00:00:00",
        "10000-01-01 00:00:00",
        "20261123101112",
        "1810111212345",
        "2026-01-01 00:00:00+99:00",
        "2026-01-01 00:00:00 CST",
    ],
)
def test_what_is_no_time_is_none(text: object) -> None:
    assert read_time(text) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2027-05-08 16:53:27", "2027-05-08 16:53:27"),
        (" 2027-05-08  16:53:27 ", "2027-05-08 16:53:27"),
        ("2027-5-8 6:03:27", "2027-05-08 06:03:27"),
        ("2027-05-08 16:53:27.0", "2027-05-08 16:53:27"),
        ("2027-05-08 16:53:27.999999999", "2027-05-08 16:53:27"),
        ("2027-05-08 16:53:27,5", "2027-05-08 16:53:27"),
        ("2027-05-08T16:53:27", "2027-05-08 16:53:27"),
        ("2027-05-08 16:53", "2027-05-08 16:53:00"),
        ("2027-05-08T08:53:27Z", "2027-05-08 16:53:27"),
        ("2027-05-08t08:53:27.123z", "2027-05-08 16:53:27"),
        ("2027-05-08T08:53Z", "2027-05-08 16:53:00"),
        ("2027-05-08 16:53:27 +0800", "2027-05-08 16:53:27"),
        ("2027-05-08T23:53:27-01:00", "2027-05-09 08:53:27"),
        ("2024-02-29 23:59:59", "2024-02-29 23:59:59"),
        ("9999-12-31 23:59:59", "9999-12-31 23:59:59"),
        ("0001-01-01 00:00:00", "0001-01-01 00:00:00"),
    ],
)
def test_a_time_is_read_as_it_is_written_and_told_in_the_billing_time_zone(
    text: str, shown: str
) -> None:
    found = local_time(read_time(text), SHANGHAI)
    assert found is not None
    assert found.tzinfo is SHANGHAI
    assert written(found) == shown


@pytest.mark.parametrize("zone", [SHANGHAI, ZoneInfo("America/New_York")])
def test_the_ends_of_the_calendar_are_times_as_any_other(zone: ZoneInfo) -> None:
    first, last = (
        local_time(read_time(one), zone) for one in ("0001-01-01 00:00:00", "9999-12-31 23:59:59")
    )
    assert first is not None
    assert last is not None
    assert first.timestamp() < last.timestamp()
    assert [written(first), written(last)] == ["0001-01-01 00:00:00", "9999-12-31 23:59:59"]


def test_an_item_of_fee_data_is_shown_as_a_time_where_it_is_one() -> None:
    assert shown("2027-05-08T08:53:27.5Z", SHANGHAI) == "2027-05-08 16:53:27"
    assert [shown(one, SHANGHAI) for one in ("monthly", "1", "soon", None)] == [
        "monthly",
        "1",
        "soon",
        None,
    ]


def test_a_time_that_no_calendar_of_the_billing_time_zone_has_is_none() -> None:
    assert local_time(read_time("9999-12-31T23:59:59Z"), SHANGHAI) is None
    assert local_time(None, SHANGHAI) is None
    assert written(datetime(2026, 11, 23, 10, 0, 0, 999_999, SHANGHAI)) == "2026-11-23 10:00:00"


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        (
            "2026-03-29 02:30:00",
            datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
        ),  # skipped: 03:30 in summer
        ("2026-10-25 02:30:00", datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),  # twice: the second
        (
            "2026-10-25T02:30:00+02:00",
            datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        ),  # told apart by its zone
    ],
)
def test_an_hour_that_the_clocks_skip_or_repeat_is_read_as_the_later_one(
    text: str, instant: datetime
) -> None:
    found = local_time(read_time(text), BERLIN)
    assert found is not None
    assert found.astimezone(UTC) == instant


def server_with(**metadata: str) -> Server:
    flavor = {"original_name": "S1.small.1", "vcpus": 1, "ram": 1024, "disk": 10}
    body = {
        "id": "s-1",
        "tenant_id": "p",
        "status": "ACTIVE",
        "updated": "",
        "flavor": flavor,
        "metadata": metadata,
    }
    return Server.from_api(body)


def test_fee_data_that_say_nothing_have_no_time_and_those_that_cannot_be_read_are_refused() -> None:
    assert fee_time(server_with(), NEXT_FEE_TIME, SHANGHAI) is None
    assert fee_time(server_with(next_fee_time="  "), NEXT_FEE_TIME, SHANGHAI) is None
    for text in ("soon", "2027-05-08", "9999-12-31T23:59:59Z"):
        with pytest.raises(Refused) as refused:
            fee_time(server_with(next_fee_time=text), NEXT_FEE_TIME, SHANGHAI)
        assert (refused.value.code, refused.value.reason) == (Code.FAILED, "fee_data")


@pytest.mark.parametrize("zone", [BERLIN, SHANGHAI, ZoneInfo("America/New_York")])
@pytest.mark.parametrize("unit", list(Unit))
def test_no_term_ends_before_it_begins_whatever_the_clocks_do(zone: ZoneInfo, unit: Unit) -> None:
    for hour in range(0, 24 * 400, 7):
        text = written(datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=hour, minutes=30))
        begin = local_time(read_time(text), zone)
        assert begin is not None
        end = local_time(read_time(written(Term(1, unit).after(begin))), zone)
        assert end is not None
        assert end.timestamp() > begin.timestamp(), text


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
    assert [(one.name, one.failure is None, one.may_pass) for one in checks.listed] == [
        ("flavor", True, False),
        ("state", False, False),
        ("state", False, True),
    ]
    assert checks.failed is checks.listed[1]

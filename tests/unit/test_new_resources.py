"""Resources of a `new` order that an earlier run has created: unfinished, or too old to be."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handlers.openstack.cinder import Volume
from handlers.orders.new.resources import Resources


def volume(age: timedelta) -> Volume:
    created = (datetime.now(UTC) - age).strftime("%Y-%m-%dT%H:%M:%S.000000")
    body: dict[str, Any] = {"id": "1", "status": "available", "size": 1, "created_at": created}
    return Volume.from_api(body)


@pytest.mark.parametrize(
    ("ages", "is_old"), [((23,), False), ((25,), True), ((25, 1), False), ((1000, 30), True)]
)
def test_disks_older_than_an_order_can_be_are_no_unfinished_order(
    ages: tuple[int, ...], is_old: bool
) -> None:
    """They may be what a customer kept when the servers were deleted: they are left alone."""
    disks = tuple(volume(timedelta(hours=one)) for one in ages)
    assert Resources((), disks, ()).is_old() is is_old

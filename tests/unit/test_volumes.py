"""Volumes and their quotas as Cinder tells them."""

from typing import Any

import pytest

from handlers.openstack.cinder import PASSING, USABLE, Volume, VolumeQuota

#: Cinder 29, objects.fields.VolumeStatus, and what it sets in places without listing it there.
STATUSES = {
    *("creating", "available", "deleting", "error", "error_deleting", "error_managing", "managing"),
    *("attaching", "in-use", "detaching", "maintenance", "restoring-backup", "error_restoring"),
    *("reserved", "awaiting-transfer", "backing-up", "error_backing-up", "error_extending"),
    *("downloading", "uploading", "retyping", "extending"),
}
#: Those that somebody has to end, or after which there is no volume.
STAYS = {one for one in STATUSES if one.startswith("error")} | {"deleting", "awaiting-transfer"}


def volume(status: str, **fields: Any) -> Volume:
    body = {"id": "v", "status": status, "size": 1, "created_at": "2026-11-23T10:00:00.000000"}
    return Volume.from_api(body | fields)


def test_each_status_of_cinders_passes_can_be_used_or_stays() -> None:
    assert PASSING | USABLE | STAYS == STATUSES
    assert len(PASSING) + len(USABLE) + len(STAYS) == len(STATUSES)
    found = {one: (volume(one).busy, volume(one).usable) for one in STATUSES}
    assert {one for one, told in found.items() if told == (True, False)} == PASSING
    assert {one for one, told in found.items() if told == (False, True)} == USABLE
    assert {one for one, told in found.items() if told == (False, False)} == STAYS


@pytest.mark.parametrize(
    ("migration", "busy"),
    [
        (None, False),
        ("none", False),
        ("success", False),
        ("error", False),
        ("starting", True),
        ("migrating", True),
        ("completing", True),
    ],
)
def test_a_volume_that_is_moved_to_another_host_is_busy(migration: str | None, busy: bool) -> None:
    moved = volume("in-use", migration_status=migration)
    assert (moved.busy, moved.usable) == (busy, not busy)


def test_what_is_left_counts_what_is_reserved_and_knows_no_limit_below_zero() -> None:
    quota = VolumeQuota.from_api(
        {
            "id": "p",
            "gigabytes": {"limit": 10, "in_use": 4, "reserved": 3},
            "gigabytes_SSD": {"limit": -1, "in_use": 4, "reserved": 0},
            "volumes": {"limit": 1, "in_use": 2, "reserved": 0},
            "per_volume_gigabytes": {"limit": 50, "in_use": 0, "reserved": 0},
        }
    )
    names = ("gigabytes", "gigabytes_SSD", "volumes", "gigabytes_TAPE")
    assert [quota.left(name) for name in names] == [3, None, -1, None]
    assert quota.largest == 50


def test_where_the_usage_is_not_told_the_limits_tell_it() -> None:
    quota = VolumeQuota.from_api(
        {"id": "p", "gigabytes": 10, "gigabytes_SSD": 1, "volumes": -1, "per_volume_gigabytes": -1}
    )
    assert (quota.left("gigabytes"), quota.largest) == (None, None)
    absolute = {
        "maxTotalVolumeGigabytes": 10,
        "totalGigabytesUsed": 4,
        "maxTotalVolumes": -1,
        "totalVolumesUsed": 9,
    }
    told = quota.with_totals(absolute)
    assert [told.left(one) for one in ("gigabytes", "gigabytes_SSD", "volumes")] == [6, None, None]
    assert quota.with_totals({}) == quota

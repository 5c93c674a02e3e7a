"""Plans of orders that earlier versions have stored in the journal are read."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from handlers.orders.change_configure.plan import Change, Growth
from handlers.orders.delete_server import ServerDeletion
from handlers.orders.new.disks import Disk
from handlers.orders.new.plan import CreationPlan, NewServer
from handlers.orders.renew.handler import Renewal, RenewalPlan
from messages.results import ServerSnapshot

CREATION_V1 = """{"servers": [{"number": 1, "set_index": 0, "product_index": 0, "name": "web",
 "flavor_id": "c9a1", "zone": "az-1", "disks": [{"size": 40, "volume_type": "SATA", "image_id": "i"},
 {"size": 100, "volume_type": "SSD", "image_id": null}]}], "network_id": "net-1",
 "subnet_id": "sub-1", "security_groups": ["sg-1"], "purchase_time": "2026-11-23 10:00:00",
 "user_name": "alice"}"""
CREATION_V2 = """{"servers": [{"number": 1, "set_index": 0, "product_index": 0, "name": "web",
 "flavor_id": "c9a1", "zone": "az-1", "disks": [{"size": 40, "volume_type": "SATA", "image_id": "i",
 "zone": "az-1"}, {"size": 100, "volume_type": "SSD", "image_id": null, "zone": null}]}],
 "network_id": "net-1", "subnet_id": "sub-1", "security_groups": ["sg-1"],
 "purchase_time": "2026-11-23 10:00:00", "user_name": "alice", "is_made": false, "refusal": null}"""
CREATION_REFUSED = """{"servers": [{"number": 1, "set_index": 0, "product_index": 0, "name": "web",
 "flavor_id": "", "zone": null, "disks": []}], "network_id": "", "subnet_id": null,
 "security_groups": [], "purchase_time": "2026-11-23 10:00:00", "user_name": null, "is_made": false,
 "refusal": ["quota", "2 more cores ordered, 0 left"]}"""
DELETIONS = """[{"server_id": "s1", "gone": false, "locked": true, "before": {"status": "ACTIVE",
 "flavor": "S1.small", "disks": [{"id": "v1", "size": 40, "type": "SATA"}], "feeData":
 {"charge_type": "monthly", "start_fee_time": null, "next_fee_time": "2027-05-08 16:53:27",
 "purchase_time": null, "order_id": "1"}}, "volumes": ["v1"], "kept_volumes": ["v2"],
 "own_ports": ["p1"], "other_ports": ["p2"], "floating_ips": ["f1"]}, {"server_id": "s2",
 "gone": true, "locked": false, "before": null, "volumes": [], "kept_volumes": [], "own_ports": [],
 "other_ports": [], "floating_ips": []}]"""

#: Before flavors were compared by their content, a plan had only their names.
CHANGES_V1 = """[{"server_id": "s1", "status": "ACTIVE", "updated": "2026-11-23T10:00:00Z",
 "flavor_before": "S1.small.1", "flavor_id": "f2", "flavor_after": "S1.medium.2", "before":
 {"status": "ACTIVE", "flavor": "S1.small.1", "disks": [], "feeData": {"charge_type": "hourly"}},
 "growths": [{"volume_id": "v1", "before": 10, "after": 20, "status": "in-use"}]}]"""
CHANGES_V2 = """[{"server_id": "s1", "status": "ACTIVE", "updated": "2026-11-23T10:00:00Z",
 "flavor_before": ["S1.small.1", 1, 1024, 0], "flavor_id": "f2", "flavor_after":
 ["S1.medium.2", 2, 4096, 0], "before": {"status": "ACTIVE", "flavor": "S1.small.1",
 "disks": [{"id": "v1", "size": 10, "type": "SSD"}], "feeData": {"charge_type": "hourly",
 "start_fee_time": null, "next_fee_time": "2026-12-01 00:00:00", "purchase_time": null,
 "order_id": null}}, "growths": [{"volume_id": "v1", "before": 10, "after": 20, "status": "in-use",
 "volume_type": "SSD"}], "found": false, "found_resize": "req-1"}]"""
RENEWALS_V1 = """{"now": "2026-11-23 10:00:00", "renewals": [{"server_id": "s1",
 "until": "2027-01-01 00:00:00", "starts": true, "unmarks": true, "before": {"status": "SHUTOFF",
 "flavor": "S1.small.1", "disks": [], "feeData": {"next_fee_time": "2026-12-01 00:00:00"}}}]}"""
RENEWALS_V2 = """{"now": "2026-11-23 10:00:00", "renewals": [{"server_id": "s1",
 "until": "2027-01-01 00:00:00", "starts": false, "unmarks": true, "before": {"status": "ACTIVE",
 "flavor": "S1.small.1", "disks": [{"id": "v1", "size": 10, "type": "SSD"}], "feeData":
 {"charge_type": "hourly", "start_fee_time": null, "next_fee_time": null, "purchase_time": null,
 "order_id": null}}, "found": true}]}"""


def creation(zone: str | None) -> CreationPlan:
    disks = (Disk(40, "SATA", "i", zone), Disk(100, "SSD", None))
    server = NewServer(1, 0, 0, "web", "c9a1", "az-1", disks)
    return CreationPlan((server,), "net-1", "sub-1", ("sg-1",), "2026-11-23 10:00:00", "alice")


@pytest.mark.parametrize(("text", "zone"), [(CREATION_V1, None), (CREATION_V2, "az-1")])
def test_the_plan_of_a_new_order_is_read(text: str, zone: str | None) -> None:
    stored = TypeAdapter(CreationPlan)
    assert stored.validate_python(json.loads(text)) == creation(zone)


def test_the_plan_of_a_new_order_that_cannot_be_finished_is_read() -> None:
    plan = TypeAdapter(CreationPlan).validate_python(json.loads(CREATION_REFUSED))
    assert plan.refusal == ("quota", "2 more cores ordered, 0 left")


def test_the_plan_of_a_deletion_is_read() -> None:
    first, second = TypeAdapter(list[ServerDeletion]).validate_python(json.loads(DELETIONS))
    assert (first.server_id, first.locked, first.gone) == ("s1", True, False)
    assert (first.volumes, first.kept_volumes) == (("v1",), ("v2",))
    assert (first.own_ports, first.other_ports) == (("p1",), ("p2",))
    assert first.floating_ips == ("f1",)
    assert first.before is not None
    assert first.before.fee_data.next_fee_time == "2027-05-08 16:53:27"
    assert second == ServerDeletion("s2", gone=True)


def test_the_plan_of_a_changed_configuration_is_read() -> None:
    stored = TypeAdapter(list[Change])
    (old,) = stored.validate_python(json.loads(CHANGES_V1))
    assert (old.flavor_before, old.flavor_after) == ("S1.small.1", "S1.medium.2")
    assert old.growths == (Growth("v1", 10, 20, "in-use"),)
    assert (old.resizes, old.found, old.found_resize) == (True, False, None)
    (new,) = stored.validate_python(json.loads(CHANGES_V2))
    assert new.flavor_before == ("S1.small.1", 1, 1024, 0)
    assert new.flavor_after == ("S1.medium.2", 2, 4096, 0)
    assert new.growths == (Growth("v1", 10, 20, "in-use", "SSD"),)
    assert (new.found_resize, new.is_before_known) == ("req-1", False)


def test_the_plan_of_a_renewal_is_read() -> None:
    stored = TypeAdapter(RenewalPlan)
    old, new = (stored.validate_python(json.loads(one)) for one in (RENEWALS_V1, RENEWALS_V2))
    before = ServerSnapshot.model_validate(
        {
            "status": "SHUTOFF",
            "flavor": "S1.small.1",
            "disks": [],
            "feeData": {"next_fee_time": "2026-12-01 00:00:00"},
        }
    )
    renewal = Renewal("s1", "2027-01-01 00:00:00", starts=True, unmarks=True, before=before)
    assert old == RenewalPlan("2026-11-23 10:00:00", (renewal,))
    assert renewal.was_until == "2026-12-01 00:00:00"
    assert (new.renewals[0].found, new.renewals[0].was_until) == (True, None)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (list[Change], CHANGES_V2),
        (RenewalPlan, RENEWALS_V2),
        (CreationPlan, CREATION_V2),
        (CreationPlan, CREATION_REFUSED),
        (list[ServerDeletion], DELETIONS),
    ],
)
def test_a_plan_is_stored_as_the_version_before_stored_it(kind: Any, text: str) -> None:
    """So that a worker of that version, which runs beside this one, can go on with it."""
    stored: TypeAdapter[Any] = TypeAdapter(kind)
    record = json.loads(text)
    assert stored.dump_python(stored.validate_python(record), mode="json") == record

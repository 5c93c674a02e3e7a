"""Plans of orders that earlier versions have stored in the journal are read."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from handlers.orders.delete_server import ServerDeletion
from handlers.orders.new.disks import Disk
from handlers.orders.new.plan import CreationPlan, NewServer

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
    assert first.before["feeData"]["next_fee_time"] == "2027-05-08 16:53:27"
    assert second == ServerDeletion("s2", gone=True)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
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

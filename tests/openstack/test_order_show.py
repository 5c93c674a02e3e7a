"""Tests how far an order is while the cloud is at it, on both clouds."""

import time
from typing import Any

from sandbox.control_plane import ControlPlane
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.openstack.test_changes import change
from tests.support.orders import ended, publish
from tests.support.tenant import Tenant


def test_an_order_says_which_server_it_waits_for_until_it_has_its_result(
    requester: Requester, tenant: Tenant, cloud: SimulatedOpenStack | ControlPlane
) -> None:
    server_id = tenant.make_server(disk=None)
    cloud.fault("virt.finish_migration", match=server_id, delay=4)

    def ask(key: str, tenant_name: str = "tenant-a") -> Any:
        asked = requester.command("order.show", tenant=tenant_name, key=key)
        return requester.result_of(asked).body

    order = change(server_id, ("std_2C4G", "S1.medium.2"))
    message_id, key = publish(requester, order), order["orderId"]
    seen: list[dict[str, Any]] = []
    limit = time.monotonic() + 120
    while not seen or seen[-1]["state"] != "done":
        assert time.monotonic() < limit, seen[-3:]
        answer = ask(key)
        # Until its worker has begun it is not known.
        assert answer["code"] == 200 or (not seen and answer["data"] == {"reason": "not_found"})
        if answer["code"] == 200:
            seen.append(answer["data"])
        requester.listen(0.2)
    waits = [one["waits_for"] for one in seen if one["waits_for"] is not None]
    assert {one["reason"] for one in waits} == {"resource"}
    assert {(one["resource"]["kind"], one["resource"]["id"]) for one in waits} == {
        ("server", server_id)
    }
    assert any(one["resource"]["status"].startswith("resize") for one in waits), waits
    progress = [one["progress"] for one in seen]
    assert progress == sorted(progress)
    assert (progress[-1], seen[-1]["waits_for"]) == (100, None)
    result, _ = ended(requester, message_id)
    assert seen[-1]["result"] == result.body
    assert ask(key, "tenant-b")["code"] == "101.001002"

"""Tests what a `new` order makes, with the answer to it lost: made once, or the order is undone and
says so (46, 47, 52).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support.new_orders import NOTHING, new, records
from tests.support.orders import carried_out, publish, reported
from tests.support.stage import dying, settled
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow

#: A time-out that a test can wait for, and so can what may still land.
QUICK = {"call_timeout": 1.5, "effects": {"late": 6.0}}
CALLS = {
    "volume": ("api.cinder", "^POST .*/volumes$"),
    "port": ("api.neutron", "^POST .*/ports$"),
    "server": ("api.nova", "^POST .*/servers$"),
}


@pytest.fixture
def shop(declared: str, tmp_path: Path) -> Iterator[Workshop]:
    """A cloud of its own: whose call is spoiled cannot be told by its path."""
    with SimulatedOpenStack(pace=0.3) as cloud, Workshop(declared, cloud, tmp_path) as found:
        dying(found, [], cloud=QUICK)
        yield found


@pytest.mark.parametrize("made", CALLS)
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "error": "database is away", "after": True},
        {"status": 503, "error": "overloaded"},
        {"status": 504, "error": "gateway time-out", "after": True},
        {"answer": "hangup", "after": True},
        {"delay": 3, "after": True},
        {"delay": 3},
    ],
    ids=lambda fault: "-".join(
        str(fault.get(name)) for name in ("status", "answer", "delay", "after")
    ),
)
def test_what_is_made_though_its_answer_is_lost_is_made_once(
    shop: Workshop, made: str, fault: dict[str, Any]
) -> None:
    tenant = shop.tenant()
    before = records(tenant)
    point, match = CALLS[made]
    shop.cloud.fault(point, match=match, times=2, **fault)
    with Requester(shop.broker_url) as requester:
        result, _ = carried_out(
            requester, new(tenant, count=3, chosen={"subnetId": tenant.subnet()})
        )
        assert reported(result) == (200, "success", True)
        (product_set,) = result.body["data"]["productSetList"]
        ids = {product["instanceId"] for product in product_set["productList"]}
        settled(shop, requester)
    found = records(tenant) - before
    assert (found.servers, len(found.volumes), len(found.ports)) == (frozenset(ids), 6, 3)
    assert len(ids) == 3
    assert {one["metadata"]["ecs_part"] for one in tenant.servers_ever()} == {"1", "2", "3"}
    assert len(tenant.servers_ever()) == 3


@pytest.mark.parametrize("made", CALLS)
def test_what_may_never_have_been_made_ends_the_order_and_leaves_nothing(
    shop: Workshop, made: str
) -> None:
    tenant = shop.tenant()
    before = records(tenant)
    point, match = CALLS[made]
    shop.cloud.fault(point, match=match, times=1, status=504, error="gateway time-out")
    with Requester(shop.broker_url) as requester:
        result, statuses = carried_out(
            requester, new(tenant, count=3, chosen={"subnetId": tenant.subnet()})
        )
    assert (result.body["code"], result.body["data"]["reason"]) == ("101.001040", "outcome_unknown")
    assert reported(result)[1:] == ("fail", False)
    assert statuses[-2:] == ["reverting", "failed"]
    assert records(tenant) - before == NOTHING


def test_an_order_outlasts_a_cloud_that_is_down_in_the_middle(shop: Workshop) -> None:
    tenant = shop.tenant()
    before = records(tenant)
    shop.cloud.fault("api.nova", match="^POST .*/servers$", status=503, error="down")
    with Requester(shop.broker_url) as requester:
        order = new(tenant, count=2)
        publish(requester, order)
        requester.wait(lambda one: one.body.get("status") == "waiting_retry", 60)
        shop.cloud.clear_faults()
        result = requester.wait(lambda one: one.body.get("code") is not None, 120)
    assert reported(result) == (200, "success", True)
    found = records(tenant) - before
    assert (len(found.servers), len(found.volumes), len(found.ports)) == (2, 4, 2)

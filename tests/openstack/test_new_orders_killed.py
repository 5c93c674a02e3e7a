"""`new` orders whose worker is killed, on the simulated cloud and on the real one: never a server too many."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.broker import PrivateBroker
from sandbox.requester import Requester
from tests.faults.dying_worker import Hold, Instant
from tests.faults.invariants import await_ends, check
from tests.faults.kinds import new_servers, taken_away
from tests.faults.stage import dying, settled
from tests.openstack.conftest import Cloud
from tests.workshop import Workshop, eventually
from workers.topology import declare, topology


@pytest.fixture
def own(broker: PrivateBroker, cloud: Cloud, tmp_path: Path) -> Iterator[Workshop]:
    url = broker.add_vhost(f"killed-{tmp_path.name}")
    declare(url, topology())
    with Workshop(url, cloud, tmp_path) as found:
        yield found


def test_five_servers_are_five_wherever_the_worker_dies(own: Workshop, cloud: Cloud) -> None:
    """An order of five dies as the third is made; beside it smaller ones, each at an instant of its own."""
    tenant = own.tenant()
    instants = [Instant.CALL_EXECUTED]
    instants += [one for one in Instant if one is not Instant.EFFECT_NOT_BEGUN]
    asked = [new_servers("killed", "create:3" if not number else "create:2", 2 if number else 5)(tenant, cloud)
             for number, _ in enumerate(instants)]  # fmt: skip
    asked += [new_servers("killed disk", "volume:2.1", 2)(tenant, cloud), taken_away(tenant, cloud)]
    instants += [Instant.CALL_EXECUTED, Instant.CALL_EXECUTED]
    holds = [Hold(one.message_id, instant, one.effect) for one, instant in zip(asked, instants, strict=True)]
    worker = dying(own, holds)
    with Requester(own.broker_url) as requester:
        for one in asked:
            one.publish(requester)
        eventually(lambda: not worker.alive, 240)
        assert (own.folder / "held").exists()
        own.worker()
        await_ends(requester, asked, 280)
        settled(own, requester)
        check(requester.heard, asked, tenant, None)

"""`new` orders whose worker is killed, on the simulated cloud and on the real one: never a server too many."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.broker import PrivateBroker
from sandbox.requester import Requester
from tests.faults.dying_worker import Hold, Instant
from tests.faults.invariants import await_ends, check
from tests.faults.kinds import Ask, new_servers, taken_away
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


#: Where all can die at once: a worker that hears no confirms (8) comes no further with anything.
TOGETHER = [one for one in Instant if one not in (Instant.EFFECT_NOT_BEGUN, Instant.PUBLISHED)]


@pytest.mark.timeout(600)
def test_five_servers_are_five_wherever_the_worker_dies(own: Workshop, cloud: Cloud) -> None:
    """An order of five dies as the third is made; beside it smaller ones, each at an instant of its own."""
    tenant = own.tenant()
    dies: list[tuple[Ask, Instant]] = [(new_servers("five", "create:3", 5), Instant.CALL_EXECUTED)]
    dies += [(new_servers("two", "create:2", 2), instant) for instant in TOGETHER]
    dies += [(new_servers("disk", "volume:2.1", 2), Instant.CALL_EXECUTED), (taken_away, Instant.CALL_EXECUTED)]
    asked = [ask(tenant, cloud) for ask, _ in dies]
    holds = [Hold(one.message_id, instant, one.effect) for one, (_, instant) in zip(asked, dies, strict=True)]
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

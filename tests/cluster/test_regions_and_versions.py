"""Two regions, and two versions, of workers on one cluster whose queues lose their leaders. Every
request has one result, nothing is done twice, nothing is dead-lettered.
"""

import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sandbox.cluster import Cluster
from sandbox.documents import REGION
from sandbox.openstack import SimulatedOpenStack
from sandbox.postgres import PrivatePostgres
from tests.support.lasting import LastingRequester
from tests.support.orders import paid, publish
from tests.support.traffic import Traffic
from tests.support.workshop import Workshop
from tests.upgrade.versions import VERSION_1_0, unpack
from workers.amqp.names import Names
from workers.amqp.topology import declare, topology

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

#: Seconds of requests before and after a leader is killed.
WHILE = 2.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=3) as found:
        yield found


@pytest.fixture
def vhost(cluster: Cluster) -> str:
    """The name of a fresh virtual host."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.add_vhost(name)
    return name


class Region:
    """A cloud, a namespace, users who ask without end, and workers."""

    def __init__(
        self, cluster: Cluster, vhost: str, folder: Path, stack: ExitStack, region: str = REGION
    ) -> None:
        self.namespace = "ecs" if region == REGION else region.replace("-", "_")
        self.region = region
        self.cloud = stack.enter_context(SimulatedOpenStack(0.2, region))
        # Users are with the first node; the leaders are with the one that declares.
        first, second, third = urls = cluster.urls_of(vhost)
        home = second if region == REGION else third
        declare(home, topology(names=Names(self.namespace)))
        folder.mkdir()
        self.shop = stack.enter_context(Workshop(first, self.cloud, folder))
        self.shop.settings |= {
            "ECS_BROKER_URL": ",".join(urls),
            "ECS_NAMESPACE": self.namespace,
            "ECS_REGION": region,
        }
        tenant = self.shop.tenant()
        self.servers = tenant.make_servers(6)
        self._renewed = iter([tenant.make_server(disk=None) for _ in range(8)])
        self.requester = LastingRequester(first, namespace=self.namespace)
        stack.callback(self.requester.close)
        self.traffic = Traffic(self.requester, self.servers, [])

    def renew(self) -> None:
        """Send an order of this region."""
        order = paid("renew", next(self._renewed), duration="1", durationUnit="M")
        order["productList"][0]["region"] = self.region
        self.traffic.orders.append(publish(self.requester, order))

    def check(self) -> None:
        """Wait for all that was asked; each has one result, and was done once."""
        traffic, requester = self.traffic, self.requester
        changes = [*traffic.reboots, *traffic.tags, *traffic.orders]
        everything = [*traffic.reads, *changes]
        requester.wait(lambda _: all(map(traffic.answers, everything)), 90)
        for message_id, server_id in traffic.reboots.items():
            requester.last_update_of("server", message_id, resource_id=server_id)
        requester.listen(1.0)
        for one in everything:
            found = traffic.answers(one)
            # A leader that dies with the confirm makes a copy of a result.
            told = {(answer.body["code"], answer.properties["message_id"]) for answer in found}
            assert len(told) == 1, told
            assert {code for code, _ in told} == {200}, found[0].body
        assert {one.correlation_id for one in requester.heard if one.correlation_id} == {
            *everything
        }, "of another region"
        for server_id in self.servers:
            asked = [one for one in traffic.reboots.values() if one == server_id]
            done = self.shop.tenant().actions(server_id)
            assert done == ["create", *["reboot"] * len(asked)]
        executed = self.cloud.executed()
        assert sum("PUT" in one and "/tags" in one for one in executed) == len(traffic.tags)
        assert sum(one.endswith("/metadata metadata") for one in executed) == len(traffic.orders)
        assert [requester.depth(f"{self.namespace}.{one}") for one in ("dead", "undelivered")] == [
            0,
            0,
        ]


def ask_for(seconds: float, *regions: Region) -> None:
    """Let requests of all come by turns for so long."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        for one in regions:
            one.traffic.ask()


@pytest.mark.long
def test_each_of_two_regions_goes_on_when_the_leaders_of_ones_queues_are_killed(
    cluster: Cluster, vhost: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        regions = []
        for name in (REGION, "cn-south-1"):
            regions.append(Region(cluster, vhost, tmp_path / name, stack, name))
            regions[-1].shop.worker()
        ask_for(WHILE, *regions)
        for one in regions:
            one.renew()
            leader = cluster.leader_of(f"{one.namespace}.orders", vhost)
            leader.kill()
            one.renew()
            ask_for(2 * WHILE, *regions)
            leader.start()
        for one in regions:
            one.check()


def test_workers_of_the_version_before_are_replaced_while_leaders_are_killed(
    cluster: Cluster, vhost: str, tmp_path: Path, postgres: PrivatePostgres
) -> None:
    before = {
        "PYTHONPATH": str(unpack(VERSION_1_0, tmp_path)),
        # It reads one URL.
        "ECS_BROKER_URL": cluster.nodes[0].url_of(vhost),
    }
    with ExitStack() as stack:
        found = Region(cluster, vhost, tmp_path / "region", stack)
        shop, traffic = found.shop, found.traffic
        shop.settings["ECS_JOURNAL_URL"] = postgres.add_database(vhost.replace("-", "_"))
        old = [shop.worker(**before) for _ in range(2)]
        found.renew()
        ask_for(WHILE, found)
        new = [shop.worker(wait=False)]
        traffic.until(lambda: not new[0].problems(), 60)
        # Both versions hold requests when the leaders die.
        leader = cluster.leader_of("ecs.orders", vhost)
        found.renew()
        traffic.ask()
        leader.kill()
        found.renew()
        ask_for(2 * WHILE, found)
        old[0].kill()
        new.append(shop.worker(wait=False))
        traffic.until(lambda: not new[1].problems(), 60)
        old[1].signal(signal.SIGTERM)
        traffic.until(lambda: not old[1].alive, 60)
        leader.start()
        found.renew()
        # Back: the version before goes on with what this one has begun.
        again = shop.worker(wait=False, **before)
        traffic.until(lambda: not again.problems(), 60)
        for one in new:
            one.kill()
        found.renew()
        ask_for(WHILE, found)
        found.check()

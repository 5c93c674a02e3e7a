"""A classic reply queue is on one node of a cluster: a reply that is due while that node is away
comes once the node is back, or goes to `ecs.results` (fault 75).
"""

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from sandbox.cluster import Cluster, ClusterNode
from sandbox.openstack import SimulatedOpenStack
from tests.support.lasting import LastingRequester
from tests.support.names import NAMES
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology
from workers.pipeline.replies import REPLY_PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

#: Seconds within which what is asked has been answered, on a busy machine.
SOON = 90.0
UNKNOWN = "101.001033"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as found:
        yield found


class Place:
    """A worker and a requester that are connected to the first and third node; reply queues on the
    second one; and a queue that hears all of `ecs.results`.
    """

    def __init__(self, cluster: Cluster, shop: Workshop, requester: LastingRequester) -> None:
        self.cluster, self.shop, self.requester = cluster, shop, requester
        self.node: ClusterNode = cluster.nodes[1]
        self.vhost = shop.broker_url.rpartition("/")[2]
        self.results = f"results-{uuid.uuid4().hex[:8]}"
        with self.channel() as channel:
            quorum = {"x-queue-type": "quorum"}
            channel.queue_declare(self.results, durable=True, arguments=quorum)
            channel.queue_bind(self.results, NAMES.results_exchange, "#")

    @contextmanager
    def channel(self, node: ClusterNode | None = None) -> Iterator[Any]:
        url = (node or self.cluster.nodes[0]).url_of(self.vhost)
        with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
            yield connection.channel()

    def reply_queue(self) -> str:
        """Declare a queue on the second node; a reply has come into it."""
        name = f"classic-{uuid.uuid4().hex[:8]}"
        with self.channel(self.node) as channel:
            channel.queue_declare(name, durable=True)
            self.show(name)
            assert self.cluster.leader_of(name, self.vhost) is self.node
            eventually(lambda: bool(self.taken(channel, name)), SOON)
        return name

    def show(self, queue: str) -> str:
        """Ask for something that is answered at once; the message's id."""
        return self.requester.command("server.show", server_id=str(uuid.uuid4()), reply_to=queue)

    def reboot(self, queue: str) -> None:
        """Ask for something that is done and answered once."""
        server_id = self.shop.tenant().make_server(disk=None)
        action = {"server_id": server_id, "body": {"reboot": {"type": "HARD"}}}
        self.requester.command("server.action", reply_to=queue, **action)

    def is_away(self, queue: str) -> bool:
        """Tell whether the brokers that are left know of no such queue."""
        with self.channel() as channel:
            try:
                channel.queue_declare(queue, passive=True)
            except ChannelClosedByBroker:
                return True
        return False

    def told(self, channel: Any, queue: str) -> list[Any]:
        """Take the reboot's replies out of a queue. The one before it may be there again: a node
        that is killed may not have written down that it was taken.
        """
        return [one for one in self.taken(channel, queue) if one["code"] != UNKNOWN]

    @staticmethod
    def taken(channel: Any, queue: str) -> list[Any]:
        """Take all messages out of a queue; their bodies."""
        found = []
        while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
            found.append(json.loads(got[2]))
        return found


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    name = f"classic-{uuid.uuid4().hex[:8]}"
    first, _, third = cluster.add_vhost(name)
    declare(first, topology())
    with SimulatedOpenStack(pace=0.1) as cloud, Workshop(first, cloud, tmp_path) as shop:
        # The worker's own connections are no part of this.
        shop.settings["ECS_BROKER_URL"] = f"{first},{third}"
        shop.worker()
        with closing(LastingRequester(first, hears_all=False)) as requester:
            yield Place(cluster, shop, requester)


def test_a_reply_to_a_queue_whose_node_restarts_comes_once_there_or_to_the_results_exchange(
    place: Place,
) -> None:
    queue = place.reply_queue()
    place.node.kill()
    eventually(lambda: place.is_away(queue), SOON)
    place.reboot(queue)
    # How long it takes to start, and with it where the reply goes, is the machine's matter.
    place.node.start()
    found: list[Any] = []
    with place.channel() as channel:

        def is_told() -> bool:
            for one in (queue, place.results):
                found.extend(place.told(channel, one))
            return bool(found)

        eventually(is_told, SOON)
        place.requester.listen(REPLY_PATIENCE)  # a second one would come within this
        is_told()
    assert [one["code"] for one in found] == [200]


def test_replies_to_a_queue_whose_node_stays_away_go_to_the_results_exchange(
    place: Place,
) -> None:
    queue = place.reply_queue()
    place.node.kill()
    try:
        eventually(lambda: place.is_away(queue), SOON)
        asked_at = time.monotonic()
        place.reboot(queue)
        with place.channel() as channel:
            found: list[Any] = []

            def is_told() -> bool:
                found.extend(place.told(channel, place.results))
                return bool(found)

            eventually(is_told, SOON)
            # Not before it has been awaited.
            assert time.monotonic() - asked_at > REPLY_PATIENCE - 1
            assert [one["code"] for one in found] == [200]
            # Others are served meanwhile and afterwards.
            asked = place.show(place.requester.reply_to)
            assert place.requester.result_of(asked, SOON).body["code"] == UNKNOWN
        assert "reply.nobody_waits" in place.shop.logs()
    finally:
        place.node.bring_back()
    eventually(lambda: not place.is_away(queue), SOON)
    # It got no second copy.
    with place.channel() as channel:
        assert place.told(channel, queue) == place.told(channel, place.results) == []

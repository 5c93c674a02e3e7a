"""Two workers on a cluster of three brokers, and what is done to its nodes."""

import random
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika
import psutil

from sandbox.cluster import Cluster, ClusterNode
from sandbox.openstack import SimulatedOpenStack
from sandbox.processes import SandboxError
from tests.faults.campaign.site import Stage
from tests.support.giving_back import limit_deliveries
from tests.support.lasting import LastingRequester
from tests.support.names import NAMES, ORDERS_QUEUE
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

#: Seconds: of the workers' connections, and for which a node is cut off or stands still.
HEARTBEAT, AWAY = 4, (5.0, 25.0)
#: Seconds after which a queue that was declared outlasts all its nodes.
_SETTLED = 8.0

#: What RabbitMQ 4 needs (docs/operations/rabbitmq-cluster.md).
POLICY = ("ecs", r"^ecs\.", '{"delivery-limit": -1}', "--apply-to", "quorum_queues")


@dataclass
class ClusterStage(Stage):
    """Every method but `mend` is a fault; what it has struck, `mend` repairs."""

    cluster: Cluster
    vhost: str
    struck: list[ClusterNode] = field(default_factory=list)
    #: Nodes that had to be restarted because they stayed apart when the fault was over.
    restarted: int = 0
    orphan: str = ""
    #: Brings back what is away for a while.
    _timer: threading.Timer | None = None

    def probe(self) -> LastingRequester:
        """Return somebody who asks and waits for the reply alone.

        RabbitMQ may leave a queue without a leader for minutes whose node dies a moment after it
        was declared.
        """
        found = super().probe()
        time.sleep(_SETTLED)
        return found

    def kill_own(self) -> None:
        """The node that one of the workers is connected to."""
        self._strike(self._node_of(self.chance.choice(self.workers).pid)).kill()

    def kill_leader(self) -> None:
        """The node with the leader of the orders' queue."""
        self._strike(self._leader()).kill()

    def cut(self) -> None:
        """A node's link is down for a while."""
        node = self._strike(self._leader() if self.chance.random() < 0.5 else self._any())
        node.cut()
        self._bring_back_later(node)

    def pause(self) -> None:
        """A node stands still for a while."""
        node = self._strike(self._leader() if self.chance.random() < 0.5 else self._any())
        node.pause()
        self._bring_back_later(node)

    def stop_next(self) -> None:
        """One node after the other, drained or not, as an upgrade does."""
        nodes = self.cluster.nodes
        last = self.struck[-1] if self.struck else nodes[-1]
        node = self._strike(nodes[(nodes.index(last) + 1) % len(nodes)])
        if self.chance.random() < 0.5:
            node.drain()
        node.shut_down()

    def kill_all(self) -> None:
        """All nodes at once, as a power cut does; they come back."""
        for node in self.cluster.nodes:
            node.kill()
        for node in self.cluster.nodes:
            node.launch()
        for node in self.cluster.nodes:
            node.wait_ready()

    def orphan_a_queue(self) -> None:
        """A quorum queue that hears all results and updates, and that a command names for its
        reply, has lost its only member.
        """
        name = f"orphan-{uuid.uuid4().hex[:8]}"
        node = self._strike(self._any())
        arguments = {"x-queue-type": "quorum", "x-quorum-initial-group-size": 1}
        with _channel(node.url_of(self.vhost)) as channel:
            channel.queue_declare(name, durable=True, arguments=arguments)
            for exchange in (NAMES.results_exchange, NAMES.status_exchange):
                channel.queue_bind(name, exchange, "#")
        eventually(lambda: self.cluster.leader_of(name, self.vhost) is node)
        node.kill()
        requester = self.requester()
        requester.command("server.list", reply_to=name)
        requester.close()
        self.orphan = name

    def delete_orphan(self) -> None:
        """The queue is there again, with what was for it, and goes."""
        self.mend()
        with _channel(self.cluster.nodes[0].url_of(self.vhost)) as channel:
            channel.queue_delete(self.orphan)

    def mend(self) -> None:
        """Have the cluster whole again."""
        if self._timer is not None:
            self._timer.join()
            self._timer = None
        for node in self.struck[-1:]:
            node.bring_back()
        self.restarted += self.cluster.settle(self.struck[-1:])

    def _strike(self, node: ClusterNode) -> ClusterNode:
        self.struck.append(node)
        return node

    def _bring_back_later(self, node: ClusterNode) -> None:
        # Whether requests are answered meanwhile or not: a node that stays away for as long as they
        # are not is another fault.
        self._timer = threading.Timer(self.chance.uniform(*AWAY), node.bring_back)
        self._timer.daemon = True
        self._timer.start()

    def _any(self) -> ClusterNode:
        return self.chance.choice(self.cluster.nodes)

    def _leader(self) -> ClusterNode:
        try:
            return self.cluster.leader_of(ORDERS_QUEUE, self.vhost)
        except SandboxError:  # an election
            return self._any()

    def _node_of(self, pid: int) -> ClusterNode:
        hosts = {one.raddr.ip for one in psutil.Process(pid).net_connections() if one.raddr}
        connected = [one for one in self.cluster.nodes if one.host in hosts]
        return self.chance.choice(connected or self.cluster.nodes)


@contextmanager
def cluster_stage(
    cluster: Cluster,
    folder: Path,
    chance: random.Random,
    pace: float,
    *,
    workers: int = 2,
    limited: bool = False,
) -> Iterator[ClusterStage]:
    """A stage with a virtual host, a cloud and a journal of its own; everything but the cluster
    ends with it. `limited`: RabbitMQ gives up on what was given back 20 times.
    """
    vhost = f"stage-{uuid.uuid4().hex[:8]}"
    urls = cluster.add_vhost(vhost)
    if limits_by_itself(cluster) and not limited:
        cluster.rabbitmqctl("set_policy", "-p", vhost, *POLICY)
    elif limited and not limits_by_itself(cluster):
        limit_deliveries(cluster, urls[0])
    declare(urls[0], topology())
    with SimulatedOpenStack(pace=pace) as cloud, Workshop(urls[0], cloud, folder) as workshop:
        workshop.settings["ECS_BROKER_URL"] = several(urls)
        stage = ClusterStage(urls, cloud, workshop, chance, cluster, vhost)
        stage.workers = [workshop.worker() for _ in range(workers)]
        yield stage


def limits_by_itself(cluster: Cluster) -> bool:
    """Tell whether its RabbitMQ has a delivery limit of its own: since version 4."""
    return int(cluster.version().partition(".")[0]) >= 4


def several(urls: Sequence[str]) -> str:
    """The value of ECS_BROKER_URL that names several brokers."""
    return ",".join(f"{one}?heartbeat={HEARTBEAT}&socket_timeout=2" for one in urls)


@contextmanager
def _channel(url: str) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection.channel()
    finally:
        connection.close()

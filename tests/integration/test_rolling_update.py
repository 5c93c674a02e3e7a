"""Workers of the version before are replaced one by one while requests come. Every request has one
result, nothing is done twice, nothing is parked.

`tests/upgrade/45eb87a/worker.tar.xz` is the last worker before `ecs.reads`, whole, so that a clone
without history has it: `git archive 45eb87a messages handlers workers | xz -9`.
"""

import signal
import tarfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Heard, Requester, Source
from tests.support.orders import paid, publish
from tests.support.workshop import REPOSITORY, Workshop, eventually

ARCHIVE = REPOSITORY / "tests" / "upgrade" / "45eb87a" / "worker.tar.xz"
REBOOT = {"reboot": {"type": "HARD"}}
#: Seconds between two requests.
PACE = 0.1


@pytest.fixture
def old_version(tmp_path: Path) -> Path:
    """The folder of the version before."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path / "before", filter="data")
    return tmp_path / "before"


@pytest.fixture
def own_cloud() -> Iterator[SimulatedOpenStack]:
    with SimulatedOpenStack(pace=0.2) as cloud:
        yield cloud


class Traffic:
    """Reads and changes without end, one after the other; and a renewal now and then."""

    def __init__(self, requester: Requester, servers: list[str], renewed: list[str]) -> None:
        self._requester = requester
        self._servers, self._renewed = cycle(servers), iter(renewed)
        self.reads: list[str] = []
        #: The servers that are rebooted, and those that get tags, by message id.
        self.reboots: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.orders: list[str] = []

    def until(self, holds: Callable[[], bool], seconds: float) -> None:
        """Go on until something holds."""
        limit = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < limit, f"does not hold after {seconds} s"
            self.ask()

    def ask(self) -> None:
        """Publish some reads and a change."""
        command, server_id = self._requester.command, next(self._servers)
        for operation, fields in (
            ("server.list", {}),
            ("server.show", {"server_id": server_id}),
            ("image.list", {}),
        ):
            self.reads.append(command(operation, **fields))
            self._requester.listen(PACE)
        if len(self.reboots) <= len(self.tags):
            self.reboots[command("server.action", server_id=server_id, body=REBOOT)] = server_id
        else:
            self.tags[command("server.tags.update", server_id=server_id, tags="web")] = server_id
        self._requester.listen(PACE)

    def renew(self) -> None:
        """Send an order."""
        order = paid("renew", next(self._renewed), duration="1", durationUnit="M")
        self.orders.append(publish(self._requester, order))

    def answers(self, message_id: str) -> list[Heard]:
        """The results of a request that have been heard."""
        return [
            one
            for one in self._requester.heard
            if one.source is not Source.STATUS and one.correlation_id == message_id
        ]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_old_workers_beside_new_ones_lose_nothing_and_do_nothing_twice(
    vhost: str, own_cloud: SimulatedOpenStack, tmp_path: Path, old_version: Path
) -> None:
    with Workshop(vhost, own_cloud, tmp_path) as shop:
        shown = shop.command("topology", "show", "-o", "json", PYTHONPATH=str(old_version))
        assert "server.#" in shown.stdout
        assert "ecs.reads" not in shown.stdout
        tenant = shop.tenant()
        servers = tenant.make_servers(8)
        renewed = [tenant.make_server(disk=None) for _ in range(3)]
        old = shop.worker(PYTHONPATH=str(old_version))
        with Requester(vhost) as requester:
            traffic = Traffic(requester, servers, renewed)
            traffic.renew()
            traffic.until(lambda: len(requester.heard) > 20, 30)
            new = shop.worker(wait=False)
            traffic.renew()
            traffic.until(lambda: not new.problems(), 30)
            # The old one has the retired bindings made again: a read comes to both queues.
            beside = len(traffic.reads)
            traffic.until(
                lambda: any(len(traffic.answers(one)) > 1 for one in traffic.reads[beside:]), 60
            )
            old.signal(signal.SIGTERM)
            traffic.renew()
            traffic.until(lambda: not old.alive, 60)
            for _ in range(5):
                traffic.ask()
            everything = [*traffic.reads, *traffic.reboots, *traffic.tags, *traffic.orders]
            requester.wait(lambda _: all(map(traffic.answers, everything)), 60)
            for message_id, server_id in traffic.reboots.items():
                requester.last_update_of("server", message_id, resource_id=server_id)
            requester.listen(1.0)

            for one in everything:
                found = traffic.answers(one)
                assert {answer.body["code"] for answer in found} == {200}
                assert len({answer.properties["message_id"] for answer in found}) == 1
            for one in (*traffic.reboots, *traffic.tags, *traffic.orders):
                assert len(traffic.answers(one)) == 1
            for one in traffic.reboots:
                assert sum(update.is_final for update in requester.updates_of(one)) == 1
            for server_id in servers:
                asked = [one for one in traffic.reboots.values() if one == server_id]
                assert tenant.actions(server_id) == ["create", *["reboot"] * len(asked)]
            done = own_cloud.executed()
            assert sum("PUT" in one and "/tags" in one for one in done) == len(traffic.tags)
            assert sum(one.endswith("/metadata metadata") for one in done) == len(traffic.orders)
            assert [requester.depth(one) for one in ("ecs.dead", "ecs.undelivered")] == [0, 0]

            # With the old one gone, no binding of its stays: a read comes once.
            assert shop.command("topology", "apply").returncode == 0
            last = [requester.command("server.list") for _ in range(20)]
            requester.wait(lambda _: all(map(traffic.answers, last)), 30)
            eventually(lambda: requester.depth("ecs.servers") == 0)
            requester.listen(1.0)
            assert [len(traffic.answers(one)) for one in last] == [1] * len(last)

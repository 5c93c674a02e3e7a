"""Two workers and everything that they depend on; what is done to each of them."""

import random
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from sandbox.postgres import PrivatePostgres
from sandbox.worker import WorkerProcess
from tests.support.invariants import resident_megabytes
from tests.support.lasting import LastingRequester
from tests.support.proxy import Drip, Proxy, Way
from tests.support.workshop import Workshop
from tests.upgrade.versions import VERSION_1_0, unpack
from workers.amqp.topology import declare, topology

#: Seconds; of the workers' connections, where the network is bad.
HEARTBEAT = 3
_TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@dataclass
class Stage:
    """Two workers under load, and whom they are asked by; methods that are faults strike, and are
    over when they return.
    """

    #: Where users reach the broker, or the nodes of its cluster; the workers may come another way.
    urls: Sequence[str]
    cloud: SimulatedOpenStack
    workshop: Workshop
    chance: random.Random
    workers: list[WorkerProcess] = field(default_factory=list, kw_only=True)

    def requester(self) -> LastingRequester:
        """Return somebody else who asks."""
        return LastingRequester(*self.urls)

    def probe(self) -> LastingRequester:
        """Return somebody who asks and waits for the reply alone."""
        return LastingRequester(*self.urls, hears_all=False)

    def kill(self) -> None:
        """One of the workers, and another takes its place."""
        number = self.chance.randrange(2)
        self.workers[number].kill()
        self.workers[number] = self.workshop.worker(wait=False)

    def largest(self) -> int:
        """Megabytes of the larger worker."""
        return round(max(resident_megabytes(worker.pid) for worker in self.workers))


@dataclass
class Site(Stage):
    """One broker, and what else the workers need; every public method is a fault."""

    broker: PrivateBroker
    network: Proxy | None = None
    database: PrivatePostgres | None = None
    #: Which of the workers are of version 1.0.0.
    _earlier: set[int] = field(default_factory=set)

    def change_version(self) -> None:
        """One of the workers is killed, or told to end, and one of the other version, 1.0.0 or this
        one, takes its place: now both are one version, now each is another.
        """
        number = self.chance.randrange(2)
        ended = self.workers[number]
        if self.chance.random() < 0.5:
            ended.kill()
        else:
            ended.signal(signal.SIGTERM)
        self._earlier ^= {number}
        environment = {"PYTHONPATH": str(self._version_1_0)} if number in self._earlier else {}
        self.workers[number] = self.workshop.worker(wait=False, **environment)

    def stop_a_while(self) -> None:
        """One of the workers stands still, longer than the broker bears."""
        worker = self.chance.choice(self.workers)
        worker.signal(signal.SIGSTOP)
        time.sleep(self.chance.uniform(2, 12))
        worker.signal(signal.SIGCONT)

    def restart_broker(self) -> None:
        """As an upgrade does."""
        self.broker.restart()

    def spoil_network(self) -> None:
        """Between the workers and their broker: resets, silence, connections that hang, drops."""
        network = self._network
        times = self.chance.uniform(0.5, 3 * HEARTBEAT)
        match self.chance.choice(["reset", "reset", "silence", "deaf", "dumb", "hang", "drip"]):
            case "reset":
                network.reset()
            case "silence":
                _for(times, network.blackhole)
            case "deaf":
                _for(times, lambda: network.blackhole(Way.DOWN))
            case "dumb":
                _for(times, lambda: network.blackhole(Way.UP))
            case "hang":
                network.hang()
            case "drip":
                _for(times, lambda: network.drips.update(dict.fromkeys(Way, Drip(100, 0.01))))
        network.clear()

    def spoil_journal(self) -> None:
        """The database stops at once, is locked, or loses its connections, some of them in their
        COMMIT.
        """
        match self.chance.choice(["stop", "kill", "lock", "terminate", "terminate"]):
            case "stop":
                self._database.stop_immediately()
                time.sleep(self.chance.uniform(0.2, 5))
                self._database.start()
            case "kill":
                self._database.kill()
                self._database.start()
            case "lock":
                with self._sql() as execute:
                    execute("LOCK TABLE requests, effects IN ACCESS EXCLUSIVE MODE")
                    time.sleep(self.chance.uniform(1, 8))
            case "terminate":
                for _ in range(self.chance.randint(1, 20)):
                    with self._sql() as execute:
                        execute(_TERMINATE)
                    time.sleep(0.1)

    def spoil_answers(self) -> None:
        """A few calls of the worker's fail, or are done and not answered."""
        service = self.chance.choice(["nova", "nova", "cinder", "glance", "neutron", "keystone"])
        fault = self.chance.choice(
            [
                {"status": 500, "error": "database is away", "after": True},
                {"status": 500, "error": "database is away"},
                {"status": 503, "error": "overloaded", "retry_after": "1"},
                {"status": 429, "error": "slow down"},
                {"answer": "html", "after": True},
                {"answer": "hangup", "after": True},
                {"answer": "cut"},
                {"delay": 3},
                {"status": 401, "error": "expired"},
            ]
        )
        self.cloud.fault(
            f"api.{service}", user="ecs-worker", times=self.chance.randint(1, 4), **fault
        )

    def take_cloud_down(self) -> None:
        """For everybody, longer than a call is tried again."""
        services = self.chance.choice(
            [["nova"], ["glance"], ["cinder", "neutron"], ["nova", "cinder", "glance", "neutron"]]
        )
        for service in services:
            self.cloud.fault(f"api.{service}", user="ecs-worker", status=503, error="down")
        time.sleep(self.chance.uniform(3, 15))
        self.cloud.clear_faults("api.")

    def largest(self) -> int:
        """Megabytes of the larger worker."""
        return round(max(resident_megabytes(worker.pid) for worker in self.workers))

    @cached_property
    def _version_1_0(self) -> Path:
        return unpack(VERSION_1_0, self.workshop.folder)

    @property
    def _network(self) -> Proxy:
        assert self.network is not None
        return self.network

    @property
    def _database(self) -> PrivatePostgres:
        assert self.database is not None
        return self.database

    @contextmanager
    def _sql(self) -> Iterator[Callable[[str], None]]:
        """One transaction in the journal; what cannot be had just then is let be."""
        engine = create_engine(self.workshop.settings["ECS_JOURNAL_URL"], poolclass=NullPool)
        with suppress(OperationalError), engine.begin() as connection:

            def execute(statement: str) -> None:
                connection.execute(text(statement))

            yield execute


def _for(seconds: float, begin: Callable[[], None]) -> None:
    begin()
    time.sleep(seconds)


@contextmanager
def site(
    broker: PrivateBroker,
    folder: Path,
    chance: random.Random,
    *,
    network: bool,
    database: PrivatePostgres | None,
    pace: float,
) -> Iterator[Site]:
    """A site with a virtual host, a cloud and a journal of its own; everything but broker and
    database ends with it.
    """
    name = f"site-{uuid.uuid4().hex[:8]}"
    url = broker.add_vhost(name)
    declare(url, topology())
    with (
        SimulatedOpenStack(pace=pace) as cloud,
        Workshop(url, cloud, folder) as workshop,
        Proxy(broker.port) as proxy,
    ):
        found = Site([url], cloud, workshop, chance, broker, database=database)
        if network:
            found.network = proxy
            workshop.settings["ECS_BROKER_URL"] = (
                f"{proxy.url_of(url)}?heartbeat={HEARTBEAT}&stack_timeout=2"
            )
        if database is not None:
            workshop.settings["ECS_JOURNAL_URL"] = database.add_database(name)
        found.workers = [workshop.worker(), workshop.worker()]
        yield found

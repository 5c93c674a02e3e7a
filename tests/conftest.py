"""Provides what the tests run on: real servers of their own, started once for all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from sandbox.postgres import PrivatePostgres
from sandbox.processes import Server
from tests.support.fork_server import FORK_SERVER
from tests.support.vhosts import fresh_vhost
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

# The clock of a machine that does other work besides says nothing about a test.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


#: Seconds for a test of the real control plane beside all other tests, its start included, which may
#: wait for another's.
_REAL_LIMIT = 1800


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_real = set()
    for item in items:
        if not item.get_closest_marker("openstack"):
            continue
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_REAL_LIMIT))
        test = item.nodeid.partition("[")[0]
        is_further = item.get_closest_marker("once_on_real") and test in on_real
        if is_further or item.get_closest_marker("long_on_real"):
            item.add_marker(pytest.mark.long)
        on_real.add(test)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("no_fork_server"):
        FORK_SERVER.is_used = False
    else:
        Server.start_guardian = staticmethod(FORK_SERVER.guardian)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz",
        type=int,
        default=20_000,
        help="mutated messages through intake; a tenth through a worker",
    )
    parser.addoption(
        "--no-fork-server",
        action="store_true",
        help="start every process anew, as its user does, instead of forking one",
    )
    parser.addoption("--fuzz-seed", type=int, default=1, help="other messages for another number")


@pytest.fixture(scope="session")
def fuzz(request: pytest.FixtureRequest) -> int:
    """Provide the number of mutated messages that are sent through intake, where a test does so."""
    return int(request.config.getoption("fuzz"))


@pytest.fixture(scope="session")
def fuzz_seed(request: pytest.FixtureRequest) -> int:
    """Which ones."""
    return int(request.config.getoption("fuzz_seed"))


@pytest.fixture(scope="session")
def broker() -> Iterator[PrivateBroker]:
    """A RabbitMQ node that the tests share; each has a virtual host of its own."""
    with PrivateBroker() as node:
        yield node


@pytest.fixture(scope="session")
def postgres() -> Iterator[PrivatePostgres]:
    with PrivatePostgres() as server:
        yield server


@pytest.fixture(scope="session")
def simulated() -> Iterator[SimulatedOpenStack]:
    """A cloud that is quick: what takes time takes a third of it."""
    with SimulatedOpenStack(pace=0.3) as cloud:
        yield cloud


@pytest.fixture
def vhost(broker: PrivateBroker) -> Iterator[str]:
    """The URL of a fresh virtual host without any queue."""
    with fresh_vhost(broker) as url:
        yield url


@pytest.fixture
def declared(vhost: str) -> str:
    """The URL of a fresh virtual host with the topology."""
    declare(vhost, topology())
    return vhost


@pytest.fixture
def workshop(declared: str, simulated: SimulatedOpenStack, tmp_path: Path) -> Iterator[Workshop]:
    """Broker, simulated cloud and journal of one test, and a worker where the test starts one."""
    with Workshop(declared, simulated, tmp_path) as found:
        yield found
        # Before what the test made is taken away.
        simulated.clear_faults()

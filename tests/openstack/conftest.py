"""The suite runs twice: on the simulated cloud in `make test-fast`, on the real one in `make test`."""

from collections.abc import Iterator

import pytest

from sandbox.broker import PrivateBroker
from sandbox.control_plane import ControlPlane
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from sandbox.worker import WorkerProcess
from tests.support.tenant import Tenant
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

Cloud = SimulatedOpenStack | ControlPlane


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as cloud:
        yield cloud


@pytest.fixture(
    scope="session", params=["simulated", pytest.param("real", marks=pytest.mark.openstack)]
)
def cloud(request: pytest.FixtureRequest) -> Cloud:
    found: Cloud = request.getfixturevalue(
        "simulated" if request.param == "simulated" else "control_plane"
    )
    return found


@pytest.fixture(autouse=True)
def _no_faults(cloud: Cloud) -> Iterator[None]:
    yield
    cloud.clear_faults()


@pytest.fixture(scope="session")
def shop(
    broker: PrivateBroker, cloud: Cloud, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    """One worker for the whole suite, with broker and journal of its own for each cloud."""
    folder = tmp_path_factory.mktemp("shop")
    url = broker.add_vhost(folder.name)
    declare(url, topology())
    with Workshop(url, cloud, folder) as found:
        yield found


@pytest.fixture(scope="session")
def worker(shop: Workshop) -> WorkerProcess:
    return shop.worker()


@pytest.fixture
def requester(shop: Workshop, worker: WorkerProcess) -> Iterator[Requester]:
    """A user of the worker; one at a time, for the order results are shared."""
    assert worker.alive
    with Requester(shop.broker_url) as found:
        yield found


@pytest.fixture
def tenant(cloud: Cloud) -> Iterator[Tenant]:
    """tenant-a; what the test makes is deleted after it."""
    found = Tenant(cloud.clouds_yaml, "tenant-a")
    yield found
    found.close()

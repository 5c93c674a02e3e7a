"""What the demo runs on: started before it, taken away after it."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.broker import PrivateBroker
from sandbox.control_plane import ControlPlane
from sandbox.documents import REGION
from sandbox.openstack import SimulatedOpenStack
from sandbox.worker import WorkerProcess
from workers.amqp.topology import declare, topology
from workers.demo.screen import Screen
from workers.demo.tenant import Servers, Tenant


@dataclass(slots=True)
class Stage:
    """The running parts."""

    broker: PrivateBroker
    tenant: Tenant
    servers: Servers
    worker: WorkerProcess
    settings: Mapping[str, str]
    folder: Path

    def stop_worker(self) -> None:
        """End the worker that is there by then."""
        self.worker.stop()

    def start_another_worker(self) -> None:
        """A new worker in the place of one that is gone."""
        self.worker = WorkerProcess(self.settings, self.folder, "worker-2").start()


@contextmanager
def staged(openstack: str, screen: Screen) -> Iterator[Stage]:
    """Start everything, and take everything away at the end, however it ends."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ecs-demo-")))
        with screen.step("RabbitMQ, a private node"):
            broker = stack.enter_context(PrivateBroker())
        with screen.step(
            "OpenStack, the real one" if openstack == "real" else "OpenStack, simulated"
        ):
            cloud: ControlPlane | SimulatedOpenStack = (
                ControlPlane() if openstack == "real" else SimulatedOpenStack()
            )
            stack.enter_context(cloud)
            os.environ["OS_CLIENT_CONFIG_FILE"] = str(cloud.clouds_yaml)
            tenant = Tenant()
            stack.callback(tenant.close)
        with screen.step("three servers of a tenant"):
            servers = tenant.make_servers()
            stack.callback(tenant.remove, servers)
        settings = {
            "ECS_BROKER_URL": broker.url,
            "ECS_JOURNAL_URL": f"sqlite:///{folder}/journal.db",
            "OS_CLIENT_CONFIG_FILE": str(cloud.clouds_yaml),
            "OS_CLOUD": "ecs-worker",
            "ECS_ADMIN_CLOUD": "admin",
            "ECS_TRUST_PUBLISHERS": "true",
            "ECS_REGION": REGION,
            "ECS_LOG_FORMAT": "console",
        }
        with screen.step("ecs-worker, its journal in SQLite"):
            declare(broker.url, topology())
            stage = Stage(
                broker, tenant, servers, WorkerProcess(settings, folder), settings, folder
            )
            stack.callback(stage.stop_worker)
            stage.worker.start()
        yield stage

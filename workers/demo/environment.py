"""The demo's environment: a broker, a cloud with a tenant's servers, and a worker."""

import asyncio
import functools
import os
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from handlers.openstack.cloud import Cloud
from handlers.openstack.sessions import CloudSettings, Service
from messages.record import record
from sandbox.broker import PrivateBroker
from sandbox.control_plane import ControlPlane
from sandbox.documents import REGION
from sandbox.openstack import SimulatedOpenStack
from sandbox.worker import WorkerProcess
from workers.amqp.topology import declare, topology
from workers.demo.screen import Screen

T = TypeVar("T")

TENANT = "tenant-a"
_SYSTEM_DISK = {
    "boot_index": 0,
    "source_type": "image",
    "destination_type": "volume",
    "volume_size": 40,
    "volume_type": "SATA",
    "delete_on_termination": True,
}


@record
class Servers:
    """Ids: a server with a volume for its system disk, one with a local disk, one that is not paid
    for; their image.
    """

    web: str
    database: str
    unpaid: str
    image: str


class Tenant:
    """The cloud as the tenant's own user sees it; `OS_CLIENT_CONFIG_FILE` names the cloud."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._cloud = Cloud(CloudSettings(cloud=TENANT, threads=4))
        projects = self._run(self._cloud.list_projects())
        (project_id,) = [one.id for one in projects if one.name == TENANT]
        self._project = self._run(self._cloud.project(project_id))

    def create_servers(self) -> Servers:
        """Create three servers, and return once they are ACTIVE."""
        image = self._get(Service.IMAGE, "/images")["images"][0]["id"]
        flavors = self._get(Service.COMPUTE, "/flavors/detail")["flavors"]
        small = next(one["id"] for one in flavors if one["name"] == "S1.small.1")

        def create(name: str, metadata: dict[str, str], **disk: Any) -> str:
            body = {"name": name, "flavorRef": small, "networks": "none", "metadata": metadata}
            posted = self._project.post(Service.COMPUTE, "/servers", {"server": body | disk})
            server_id: str = self._run(posted).body["server"]["id"]
            return server_id

        paid, volume = {"charge_type": "monthly"}, {**_SYSTEM_DISK, "uuid": image}
        servers = Servers(
            web=create("web", paid, block_device_mapping_v2=[volume]),
            database=create("database", paid, imageRef=image),
            unpaid=create("unpaid", {}, imageRef=image),
            image=image,
        )
        for one in (servers.web, servers.database, servers.unpaid):
            self._run(self._until_active(one))
        return servers

    async def _until_active(self, server_id: str) -> None:
        path = f"/servers/{server_id}"
        async with asyncio.timeout(120):
            while True:
                server = (await self._project.get(Service.COMPUTE, path)).body["server"]
                if server["status"] == "ACTIVE":
                    return
                if server["status"] == "ERROR":
                    raise RuntimeError(f"a server could not be created: {server.get('fault')}")
                await asyncio.sleep(0.2)

    def server(self, server_id: str) -> dict[str, Any]:
        """Return the server as Nova shows it."""
        found: dict[str, Any] = self._get(Service.COMPUTE, f"/servers/{server_id}")["server"]
        return found

    def volume_size(self, server_id: str) -> int:
        """Return the GiB of the server's first volume."""
        volume = self.server(server_id)["os-extended-volumes:volumes_attached"][0]["id"]
        size: int = self._get(Service.VOLUME, f"/volumes/{volume}")["volume"]["size"]
        return size

    def actions(self, server_id: str) -> list[str]:
        """Return the names in the server's action log, oldest first."""
        path = f"/servers/{server_id}/os-instance-actions"
        listed = self._get(Service.COMPUTE, path)["instanceActions"]
        return [one["action"] for one in reversed(listed)]

    def resource_ids(self) -> set[str]:
        """Return the ids of all servers, volumes and ports of the tenant."""
        servers = self._get(Service.COMPUTE, "/servers/detail")["servers"]
        volumes = self._get(Service.VOLUME, "/volumes/detail")["volumes"]
        ports = self._get(Service.NETWORK, f"/ports?project_id={self._project.id}")["ports"]
        return {one["id"] for one in (*servers, *volumes, *ports)}

    def delete(self, servers: Servers) -> None:
        """Delete the three servers."""
        for one in (servers.web, servers.database, servers.unpaid):
            self._run(self._project.delete(Service.COMPUTE, f"/servers/{one}"))

    def close(self) -> None:
        """Close the connection."""
        self._run(self._cloud.close())
        self._runner.close()

    def _get(self, service: Service, path: str) -> dict[str, Any]:
        body: dict[str, Any] = self._run(self._project.get(service, path)).body
        return body

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)


@dataclass(slots=True)
class Environment:
    """The running parts. `settings` are those of the worker, and `folder` is where it runs;
    `make_worker` makes a worker of that name, which is not started yet; `simulated_url` is where
    the simulated cloud takes faults, None for the real one.
    """

    folder: Path
    settings: Mapping[str, str]
    broker: PrivateBroker
    tenant: Tenant
    servers: Servers
    worker: WorkerProcess
    make_worker: Callable[[str], WorkerProcess]
    simulated_url: str | None

    def stop_worker(self) -> None:
        """Stop the worker that runs by then."""
        self.worker.stop()

    def start_another_worker(self) -> None:
        """Start a worker in the place of one that is gone."""
        self.worker = self.make_worker("worker-2").start()


@contextmanager
def environment(openstack: str, screen: Screen) -> Iterator[Environment]:
    """Start everything, and stop and delete everything at the end. Raises `SandboxError`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ecs-demo-")))
        with screen.step("RabbitMQ, a private node"):
            broker = stack.enter_context(PrivateBroker())
        is_real = openstack == "real"
        with screen.step("OpenStack, the real one" if is_real else "OpenStack, simulated"):
            cloud: ControlPlane | SimulatedOpenStack = (
                ControlPlane() if is_real else SimulatedOpenStack()
            )
            stack.enter_context(cloud)
            os.environ["OS_CLIENT_CONFIG_FILE"] = str(cloud.clouds_yaml)
            tenant = Tenant()
            stack.callback(tenant.close)
        with screen.step("three servers of a tenant"):
            servers = tenant.create_servers()
            stack.callback(tenant.delete, servers)
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
            make_worker = functools.partial(WorkerProcess, settings, folder)
            running = Environment(
                folder,
                settings,
                broker,
                tenant,
                servers,
                make_worker("worker-1"),
                make_worker,
                cloud.url if isinstance(cloud, SimulatedOpenStack) else None,
            )
            stack.callback(running.stop_worker)
            running.worker.start()
        yield running

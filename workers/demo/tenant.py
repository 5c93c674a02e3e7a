"""The tenant's own view of the cloud: makes servers, and looks what was done to them."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from handlers.openstack.cloud import Cloud
from handlers.openstack.project import Project
from handlers.openstack.sessions import CloudSettings, Service

T = TypeVar("T")
_NAME = "tenant-a"
_SYSTEM_DISK = 40


@dataclass(frozen=True, slots=True)
class Servers:
    """Ids: a server with a volume for its system disk, one with a local disk, one that is not paid
    for; their image.
    """

    web: str
    database: str
    unpaid: str
    image: str


class Tenant:
    """A connection as the tenant's own user; `OS_CLIENT_CONFIG_FILE` says to which cloud."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._cloud = Cloud(CloudSettings(cloud=_NAME, threads=4))
        self._project = self._run(self._own_project())

    def make_servers(self) -> Servers:
        """Three servers, once they run."""
        image = self._get(Service.IMAGE, "/images")["images"][0]["id"]
        flavors = self._get(Service.COMPUTE, "/flavors/detail")["flavors"]
        small = next(flavor["id"] for flavor in flavors if flavor["name"] == "S1.small.1")
        paid = {"charge_type": "monthly"}
        servers = Servers(
            web=self._make("web", small, paid, _system_disk(image)),
            database=self._make("database", small, paid, {"imageRef": image}),
            unpaid=self._make("unpaid", small, {}, {"imageRef": image}),
            image=image,
        )
        for one in (servers.web, servers.database, servers.unpaid):
            self._run(self._active(one))
        return servers

    def server(self, server_id: str) -> dict[str, Any]:
        """The server as Nova shows it."""
        found: dict[str, Any] = self._get(Service.COMPUTE, f"/servers/{server_id}")["server"]
        return found

    def volume_size(self, server_id: str) -> int:
        """GiB of the server's first volume."""
        volume = self.server(server_id)["os-extended-volumes:volumes_attached"][0]["id"]
        size: int = self._get(Service.VOLUME, f"/volumes/{volume}")["volume"]["size"]
        return size

    def actions(self, server_id: str) -> list[str]:
        """The names in the server's action log, oldest first."""
        listed = self._get(Service.COMPUTE, f"/servers/{server_id}/os-instance-actions")[
            "instanceActions"
        ]
        return [one["action"] for one in reversed(listed)]

    def everything(self) -> tuple[set[str], set[str], set[str]]:
        """The ids of all servers, volumes and ports that the tenant has."""
        servers = self._get(Service.COMPUTE, "/servers/detail")["servers"]
        volumes = self._get(Service.VOLUME, "/volumes/detail")["volumes"]
        ports = self._get(Service.NETWORK, f"/ports?project_id={self._project.id}")["ports"]
        return (
            {one["id"] for one in servers},
            {one["id"] for one in volumes},
            {one["id"] for one in ports},
        )

    def remove(self, servers: Servers) -> None:
        """Delete what was made."""
        for one in (servers.web, servers.database, servers.unpaid):
            self._run(self._project.delete(Service.COMPUTE, f"/servers/{one}"))

    def close(self) -> None:
        """Close the connection."""
        self._run(self._cloud.close())
        self._runner.close()

    def _get(self, service: Service, path: str) -> dict[str, Any]:
        body: dict[str, Any] = self._run(self._project.get(service, path)).body
        return body

    def _make(self, name: str, flavor: str, metadata: dict[str, str], disk: dict[str, Any]) -> str:
        body = {"name": name, "flavorRef": flavor, "networks": "none", "metadata": metadata, **disk}
        made = self._run(self._project.post(Service.COMPUTE, "/servers", {"server": body}))
        server_id: str = made.body["server"]["id"]
        return server_id

    async def _active(self, server_id: str) -> None:
        async with asyncio.timeout(120):
            while True:
                server = (await self._project.get(Service.COMPUTE, f"/servers/{server_id}")).body[
                    "server"
                ]
                if server["status"] == "ACTIVE":
                    return
                if server["status"] == "ERROR":
                    raise RuntimeError(f"a server could not be made: {server.get('fault')}")
                await asyncio.sleep(0.2)

    async def _own_project(self) -> Project:
        (project,) = [one for one in await self._cloud.list_projects() if one.name == _NAME]
        return await self._cloud.project(project.id)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)


def _system_disk(image: str) -> dict[str, Any]:
    disk = {
        "boot_index": 0,
        "uuid": image,
        "source_type": "image",
        "destination_type": "volume",
        "volume_size": _SYSTEM_DISK,
        "volume_type": "SATA",
        "delete_on_termination": True,
    }
    return {"block_device_mapping_v2": [disk]}

"""Find what was created for a `new` order in the cloud by its mark, without the journal."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from handlers.context import MARK, PART, ProjectContext
from handlers.effects.concurrency import SingleFlightCache
from handlers.openstack import cinder, neutron, nova
from handlers.openstack.cinder import Volume
from handlers.openstack.neutron import Resource
from handlers.openstack.nova import ERROR, GONE, Server
from handlers.orders.billing import NEXT_FEE_TIME
from messages.orders import OrderNew
from messages.record import record

#: Seconds for which one list serves all callers: less than lies between two looks at the same.
_CACHE_SECONDS = 0.4
#: The longest time for which an order is retried.
_LONGEST_ORDER = timedelta(days=1)
#: Length of `2026-11-23T10:00:00`, as Cinder writes a time of UTC.
_SECOND = 19


@record
class Resources:
    """The servers, volumes and ports in the cloud that were created for the order."""

    servers: tuple[Server, ...]
    volumes: tuple[Volume, ...]
    ports: tuple[Resource, ...]

    def is_complete(self, order: OrderNew) -> bool:
        """Tell whether the order was carried out to its end, whatever became of its servers since.

        Fee dates are written when all of its servers are there: one that has them speaks for all.
        """
        if any(NEXT_FEE_TIME in one.metadata for one in self.servers):
            return True
        usable = [one for one in self.servers if one.status not in {ERROR, "BUILD", *GONE}]
        return len(usable) == order.count

    def is_old(self) -> bool:
        """Tell whether it has been there for longer than an order is retried."""
        newest = max(one.created[:_SECOND] for one in self.volumes)
        return newest < (datetime.now(UTC) - _LONGEST_ORDER).isoformat()[:_SECOND]


class OrderResources:
    """Looks for what bears the mark of one order; `has_ports`: the order creates ports itself."""

    def __init__(self, context: ProjectContext, *, has_ports: bool) -> None:
        self._context = context
        self._has_ports = has_ports
        self._cache = SingleFlightCache(_CACHE_SECONDS)
        #: Nothing that bears the mark was there when this run planned the order.
        self.none_before = False

    async def servers(self) -> list[Server]:
        """List the servers, without those that the cloud only keeps for a while."""
        return [one for one in await self._all_servers() if one.status not in GONE]

    async def _all_servers(self) -> list[Server]:
        # Nova lets only an admin ask by metadata, and a name may have been changed since.
        project, mark = self._context.project, self._context.mark
        found = await self._cache.get("servers", lambda: nova.list_servers(project))
        return [one for one in found if one.metadata.get(MARK) == mark]

    async def volumes(self) -> list[Volume]:
        """List the volumes."""
        project, mark = self._context.project, {MARK: self._context.mark}
        return await self._cache.get("volumes", lambda: cinder.list_marked(project, mark))

    async def ports(self) -> list[Resource]:
        """List the ports."""
        if not self._has_ports:
            return []
        project, mark = self._context.project, self.port_mark
        return await self._cache.get("ports", lambda: neutron.list_ports_described(project, mark))

    async def find_server(self, part: str) -> str | None:
        """Look for a server by its number in the order; returns its id."""
        servers = await self.servers()
        return next((one.id for one in servers if one.metadata.get(PART) == part), None)

    async def find_volume(self, part: str) -> str | None:
        """Look for a volume by the server's number and its own, `1.0`; returns its id."""
        volumes = await self.volumes()
        return next((one.id for one in volumes if one.metadata.get(PART) == part), None)

    async def find_port(self, name: str) -> str | None:
        """Look for a port by its name; returns its id."""
        return next((one["id"] for one in await self.ports() if one["name"] == name), None)

    @property
    def port_mark(self) -> str:
        """The description of the order's ports."""
        return f"{MARK}={self._context.mark}"

    def forget(self) -> None:
        """Forget what was seen a moment ago: it may be gone."""
        self._cache = SingleFlightCache(_CACHE_SECONDS)

    async def find_all(self) -> Resources:
        """Look for everything that there is now."""
        self.forget()
        retrying = self._context.retrying
        servers, disks, ports = await asyncio.gather(
            retrying(self.servers), retrying(self.volumes), retrying(self.ports)
        )
        return Resources(tuple(servers), tuple(disks), tuple(ports))

    async def find_earlier(self) -> Resources | None:
        """Look for what an earlier run has created; None where that is nothing, which costs one
        call.

        No server is without a volume of its own: volumes are created first, and are deleted with
        their server.
        """
        if not await self._context.retrying(self.volumes):
            self.none_before = True
            return None
        found = await self.find_all()
        # One that the cloud keeps after its deletion tells, too, that the order was carried out.
        return replace(found, servers=tuple(await self._context.retrying(self._all_servers)))

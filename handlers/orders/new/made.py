"""Find what was made for a `new` order in the cloud, by the order's mark, without the journal."""

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from handlers.context import MARK, ProjectContext
from handlers.effects.concurrency import SingleFlightCache
from handlers.openstack import cinder, neutron, nova
from handlers.openstack.cinder import Volume
from handlers.openstack.neutron import Thing
from handlers.openstack.nova import ERROR, GONE, Server
from handlers.orders.billing import NEXT_FEE_TIME
from messages.orders import OrderNew

#: Seconds for which one answer serves all who ask: less than lies between two looks at the same.
_LOOK_LASTS = 0.4
#: For so long an order is tried.
_LONGEST_ORDER = timedelta(days=1)
#: Length of `2026-11-23T10:00:00`, as Cinder writes a time of UTC.
_SECOND = 19


@dataclass(frozen=True, slots=True)
class Left:
    """The servers, volumes and ports in the cloud that were made for the order."""

    servers: tuple[Server, ...]
    volumes: tuple[Volume, ...]
    ports: tuple[Thing, ...]

    def is_complete(self, order: OrderNew) -> bool:
        """Tell whether the order was carried out to its end, whatever became of its servers since.

        Fee dates are written when all of its servers are there: one that has them speaks for all.
        """
        if any(NEXT_FEE_TIME in one.metadata for one in self.servers):
            return True
        well = [one for one in self.servers if one.status not in {ERROR, "BUILD", *GONE}]
        return len(well) == order.count

    def is_old(self) -> bool:
        """Tell whether it has been there for longer than an order is tried."""
        newest = max(one.created[:_SECOND] for one in self.volumes)
        return newest < (datetime.now(UTC) - _LONGEST_ORDER).isoformat()[:_SECOND]


class Made:
    """Look for what bears the mark of one order.

    `has_ports`: the order makes ports of its own.
    """

    def __init__(self, context: ProjectContext, *, has_ports: bool) -> None:
        self._context = context
        self._has_ports = has_ports
        self._looks = SingleFlightCache(_LOOK_LASTS)

    async def servers(self) -> list[Server]:
        """List the servers that there are, without those that the cloud only keeps for a while."""
        return [one for one in await self._marked_servers() if one.status not in GONE]

    async def _marked_servers(self) -> list[Server]:
        # Nova lets only an admin ask by metadata, and a name may have been changed since.
        project, mark = self._context.project, self._context.mark
        found = await self._looks.get("servers", lambda: nova.list_servers(project))
        return [one for one in found if one.metadata.get(MARK) == mark]

    async def volumes(self) -> list[Volume]:
        """List the volumes that there are."""
        project, mark = self._context.project, {MARK: self._context.mark}
        return await self._looks.get("volumes", lambda: cinder.list_marked(project, mark))

    async def ports(self) -> list[Thing]:
        """List the ports that there are."""
        if not self._has_ports:
            return []
        project, mark = self._context.project, self.port_mark
        return await self._looks.get("ports", lambda: neutron.list_ports_described(project, mark))

    @property
    def port_mark(self) -> str:
        """Return the description that the order's ports have."""
        return f"{MARK}={self._context.mark}"

    def look_afresh(self) -> None:
        """Forget what was seen a moment ago: it may be gone."""
        self._looks = SingleFlightCache(_LOOK_LASTS)

    async def left(self) -> Left:
        """Return all that there is now."""
        self.look_afresh()
        retrying = self._context.retrying
        servers, disks, ports = await asyncio.gather(
            retrying(self.servers), retrying(self.volumes), retrying(self.ports)
        )
        return Left(tuple(servers), tuple(disks), tuple(ports))

    async def earlier(self) -> Left | None:
        """Return what an earlier run has made; None where that is nothing, which costs one call.

        No server is without a volume of its own: volumes are made first and go with their server.
        """
        if not await self._context.retrying(self.volumes):
            return None
        left = await self.left()
        # One that the cloud keeps after its deletion tells, too, that the order was carried out.
        return replace(left, servers=tuple(await self._context.retrying(self._marked_servers)))

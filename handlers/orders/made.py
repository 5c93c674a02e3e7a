"""What was made for a `new` order: found in the cloud by the order's mark, whatever the journal knows of it."""

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from handlers import compute, networks, volumes
from handlers.compute import ERROR, GONE, Server
from handlers.context import Context
from handlers.marks import MARK
from handlers.networks import Thing
from handlers.orders.fee_data import NEXT_FEE_TIME
from handlers.recent import Recent
from handlers.volumes import Volume
from messages.orders import NewServers

#: Seconds for which a look at what was made serves all who look: less than lies between two looks at the same.
_LOOK_LASTS = 0.4
#: For so long an order is tried.
_LONGEST_ORDER = timedelta(days=1)
#: Length of `2026-11-23T10:00:00`, as Cinder writes a time of UTC.
_SECOND = 19


@dataclass(frozen=True, slots=True)
class Left:
    """What there is in the cloud of what was made for the order."""

    servers: tuple[Server, ...]
    volumes: tuple[Volume, ...]
    ports: tuple[Thing, ...]

    def is_complete(self, order: NewServers) -> bool:
        """Whether the order was carried out to its end, whatever was done with its servers since.

        Fee dates are written when all of its servers are there: one that has them speaks for all.
        """
        if any(NEXT_FEE_TIME in one.metadata for one in self.servers):
            return True
        well = [one for one in self.servers if one.status not in {ERROR, "BUILD", *GONE}]
        return len(well) == order.count

    def is_old(self) -> bool:
        """Whether it has been there for longer than an order is tried for: then nobody is still at making it."""
        newest = max(one.created[:_SECOND] for one in self.volumes)
        return newest < (datetime.now(UTC) - _LONGEST_ORDER).isoformat()[:_SECOND]


class Made:
    """Looks for what bears the mark of one order. `has_ports`: whether the order makes ports of its own."""

    def __init__(self, context: Context, *, has_ports: bool) -> None:
        self._context = context
        self._has_ports = has_ports
        self._looks = Recent(_LOOK_LASTS)

    async def servers(self) -> list[Server]:
        """The servers that there are; none that the cloud only keeps for a while."""
        return [one for one in await self._marked_servers() if one.status not in GONE]

    async def _marked_servers(self) -> list[Server]:
        # Nova lets only an admin ask by metadata, and a name may have been changed since: all are looked at.
        project, mark = self._context.project, self._context.mark
        found = await self._looks.get("servers", lambda: compute.list_servers(project))
        return [one for one in found if one.metadata.get(MARK) == mark]

    async def volumes(self) -> list[Volume]:
        """The volumes that there are."""
        project, mark = self._context.project, {MARK: self._context.mark}
        return await self._looks.get("volumes", lambda: volumes.list_marked(project, mark))

    async def ports(self) -> list[Thing]:
        """The ports that there are."""
        if not self._has_ports:
            return []
        project, mark = self._context.project, self.port_mark
        return await self._looks.get("ports", lambda: networks.list_ports_described(project, mark))

    @property
    def port_mark(self) -> str:
        """The description that the order's ports have."""
        return f"{MARK}={self._context.mark}"

    def look_afresh(self) -> None:
        """What was seen a moment ago may be gone."""
        self._looks = Recent(_LOOK_LASTS)

    async def left(self) -> Left:
        """All that there is now."""
        self.look_afresh()
        patiently = self._context.patiently
        servers, disks, ports = await asyncio.gather(
            patiently(self.servers), patiently(self.volumes), patiently(self.ports)
        )
        return Left(tuple(servers), tuple(disks), tuple(ports))

    async def earlier(self) -> Left | None:
        """What an earlier run has made; None where it has made nothing. One call in that case.

        There is no server without a volume of its own, for volumes are made first and go with their server.
        """
        if not await self._context.patiently(self.volumes):
            return None
        left = await self.left()
        # One that the cloud keeps after its deletion tells, too, that the order was carried out.
        return replace(left, servers=tuple(await self._context.patiently(self._marked_servers)))

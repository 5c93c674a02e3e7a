"""What a server is before an order, and after it: told in the result, so that the message alone
settles a dispute.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from handlers.context import ProjectContext
from handlers.openstack.cinder import Volume, get_volume
from handlers.openstack.errors import NotFound
from handlers.openstack.nova import Server
from handlers.orders.billing import FEE_ITEMS
from handlers.orders.order_markers import has_order
from handlers.servers.disks import system_and_data
from handlers.servers.guard import find_server
from messages.order_results import ProductOutcome
from messages.orders import InstanceProduct

#: `status` (Nova's word), `flavor`, `disks` (`id`, `size` in GiB, `type`; the system disk first),
#: `feeData`.
Snapshot = Mapping[str, Any]


def snapshot_of(server: Server, volumes: Iterable[Volume]) -> Snapshot:
    """The picture of a server with these volumes; a local system disk has neither id nor type."""
    system, data = system_and_data(server, volumes)
    local = [] if system is not None else [{"id": None, "size": server.disk, "type": None}]
    disks = [
        {"id": one.id, "size": one.size, "type": one.volume_type}
        for one in (system, *data)
        if one is not None
    ]
    return {
        "status": server.status,
        "flavor": server.flavor_name,
        "disks": [*local, *disks],
        "feeData": {item: server.metadata.get(item) for item in FEE_ITEMS},
    }


async def take_snapshot(server: Server, context: ProjectContext) -> Snapshot:
    """The picture of a server as it is."""
    return snapshot_of(server, await volumes_of(server, context))


async def volumes_of(server: Server, context: ProjectContext) -> list[Volume]:
    """The server's volumes that there are."""
    return await volumes_there(server.volume_ids, context)


async def volumes_there(volume_ids: Iterable[str], context: ProjectContext) -> list[Volume]:
    """Those of the volumes that there are."""

    async def volume(volume_id: str) -> Volume | None:
        try:
            return await context.retrying(lambda: get_volume(context.project, volume_id))
        except NotFound:  # detached and deleted since
            return None

    found = await asyncio.gather(*map(volume, volume_ids))
    return [one for one in found if one is not None]


async def unchanged_outcomes(
    products: Iterable[InstanceProduct], context: ProjectContext
) -> list[list[ProductOutcome]]:
    """Look up the outcomes of the one set of an order of which nothing was begun."""
    return [list(await asyncio.gather(*(_unchanged(one, context) for one in products)))]


async def _unchanged(product: InstanceProduct, context: ProjectContext) -> ProductOutcome:
    """What is told of a server to which this run does nothing.

    An earlier run may have changed it of which the journal knows nothing: the order's mark tells.
    """
    server = await find_server(context, product.instance_id)
    if server is None:
        return ProductOutcome(product.ordered, product.instance_id, None, changed=False)
    picture, changed = await take_snapshot(server, context), has_order(server, context)
    return ProductOutcome(
        product.ordered,
        product.instance_id,
        server.status,
        changed=changed,
        before=None if changed else picture,
        after=picture,
    )

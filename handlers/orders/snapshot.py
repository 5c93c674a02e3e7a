"""The servers that an order names, as the cloud shows them: at rest, and before and after the
order.

The snapshots are a part of the result, so that the message alone settles a dispute.
"""

import asyncio
from collections.abc import Iterable

from handlers.context import ProjectContext
from handlers.openstack.cinder import Volume, get_volume
from handlers.openstack.errors import NotFound
from handlers.openstack.nova import GONE, Server
from handlers.orders.billing import FEE_ITEMS, has_order
from handlers.servers.disks import system_and_data
from handlers.servers.guard import find_server, unknown_server, wait_until_idle
from messages.errors import Transient
from messages.orders import InstanceProduct
from messages.results import Disk, ProductOutcome, ServerSnapshot, StoredFeeData


async def idle_server(server_id: str, context: ProjectContext) -> Server:
    """Find the tenant's server and wait until no task is under way.

    Raises `Refused` where there is none, `Transient` where it stays busy.
    """
    with context.checks.of("instance", server_id):
        server = await find_remaining(server_id, context)
        if server is None:
            raise unknown_server(server_id, None)
        server = await wait_until_idle(context, server, context.busy_until)
        if server.status in GONE:
            raise unknown_server(server_id, None)
        if server.busy:
            raise Transient("busy", detail=f"the server is busy with {server.task_state}")
    return server


async def find_remaining(server_id: str, context: ProjectContext) -> Server | None:
    """Find the tenant's server; None also for one that the cloud keeps for a while after its
    deletion.
    """
    server = await find_server(context, server_id)
    return server if server is not None and server.status not in GONE else None


async def find_volumes(volume_ids: Iterable[str], context: ProjectContext) -> list[Volume]:
    """Find those of the volumes that there are."""

    async def find(volume_id: str) -> Volume | None:
        try:
            return await context.retrying(lambda: get_volume(context.project, volume_id))
        except NotFound:  # detached and deleted since
            return None

    found = await asyncio.gather(*map(find, volume_ids))
    return [one for one in found if one is not None]


async def take_snapshot(server: Server, context: ProjectContext) -> ServerSnapshot:
    """Take the snapshot of a server as it is."""
    return snapshot_of(server, await find_volumes(server.volume_ids, context))


def snapshot_of(server: Server, volumes: Iterable[Volume]) -> ServerSnapshot:
    """Return the snapshot of a server with these volumes; a local system disk has neither id nor
    type.
    """
    system, data = system_and_data(server, volumes)
    local = [] if system is not None else [Disk(id=None, size=server.disk, type=None)]
    disks = [
        Disk(id=one.id, size=one.size, type=one.volume_type)
        for one in (system, *data)
        if one is not None
    ]
    return ServerSnapshot(
        status=server.status,
        flavor=server.flavor_name,
        disks=[*local, *disks],
        fee_data=StoredFeeData(**{item: server.metadata.get(item) for item in FEE_ITEMS}),
    )


async def unchanged_outcomes(
    products: Iterable[InstanceProduct], context: ProjectContext
) -> list[list[ProductOutcome]]:
    """Look up the outcomes of an order to whose servers this run does nothing, as its one set.

    An earlier run may have changed a server of which the journal knows nothing: the order's name on
    the server tells.
    """

    async def outcome(product: InstanceProduct) -> ProductOutcome:
        server = await find_server(context, product.instance_id)
        if server is None:
            return ProductOutcome(product.ordered, product.instance_id, None, changed=False)
        snapshot, changed = await take_snapshot(server, context), has_order(server, context)
        return ProductOutcome(
            product.ordered,
            product.instance_id,
            server.status,
            changed=changed,
            before=None if changed else snapshot,
            after=snapshot,
        )

    return [list(await asyncio.gather(*map(outcome, products)))]

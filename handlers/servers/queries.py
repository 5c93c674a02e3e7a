"""server.list and server.show: a constant number of calls, whatever the page."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from handlers.context import ProjectContext
from handlers.openstack import neutron, nova
from handlers.openstack.cinder import Volume, get_volume, list_volumes
from handlers.openstack.errors import CloudRefusal, NotFound
from handlers.openstack.glance import Image, find_images, list_images_of_snapshots
from handlers.openstack.neutron import Resource
from handlers.openstack.nova import Server
from handlers.servers.disks import image_of, system_and_data
from handlers.servers.guard import FEW, require_server
from handlers.servers.pages import find_page
from handlers.servers.view import ViewSources, policy_of, server_details, server_view
from messages.codes import Code
from messages.commands import ServerList, ServerShow
from messages.errors import Transient
from messages.results import Result
from messages.views import ServerPage, ShownServer


@dataclass(frozen=True, slots=True)
class _Networks:
    routers: list[Resource]
    subnets: list[Resource]
    floating_ips: list[Resource]


async def show_servers(task: ServerList, context: ProjectContext) -> Result:
    """Show a page of the tenant's servers, and how many there are in all."""
    found, volumes, hosts, nets = await asyncio.gather(
        find_page(task, context), _all_volumes(context), _hosts(context), _networks(context)
    )
    sources = await _sources(found.servers, volumes, hosts, nets, context)
    shown = [server_view(server, sources) for server in found.servers]
    return Result.of(Code.OK, ServerPage(total_count=found.total, servers=shown))


async def show_server(task: ServerShow, context: ProjectContext) -> Result:
    """Show one server."""
    server = await require_server(context, task.server_id)
    volumes, hosts, nets = await asyncio.gather(
        volumes_of_server(server, context), _hosts(context), _networks(context)
    )
    sources = await _sources([server], volumes, hosts, nets, context)
    return Result.of(Code.OK, ShownServer(server=server_details(server, sources)))


async def _sources(
    servers: Sequence[Server],
    volumes: dict[str, Volume],
    hosts: dict[str, str],
    nets: _Networks,
    context: ProjectContext,
) -> ViewSources:
    project = context.project
    if not servers:
        return ViewSources(context.policy.region, {}, {}, {}, {}, (), (), {}, {})
    devices = [one.id for one in servers] + [one["id"] for one in nets.routers]
    ports, (images, of_snapshots), policies = await asyncio.gather(
        context.retrying(lambda: neutron.list_ports(project, "device_id", devices)),
        images_of_servers(servers, volumes, context),
        _policies(nets.floating_ips, context),
    )
    return ViewSources(
        region=context.policy.region,
        volumes=volumes,
        images=images,
        subnets=_by_id(nets.subnets),
        routers=_by_id(nets.routers),
        ports=ports,
        floating_ips=nets.floating_ips,
        policies=_by_id(policies),
        hosts=hosts,
        images_of_snapshots=of_snapshots,
        zone=context.policy.billing_zone,
    )


async def _networks(context: ProjectContext) -> _Networks:
    project = context.project
    return _Networks(
        *await asyncio.gather(
            context.retrying(lambda: neutron.list_routers(project)),
            context.retrying(lambda: neutron.list_subnets(project)),
            context.retrying(lambda: neutron.list_floating_ips(project)),
        )
    )


async def images_of_servers(
    servers: Iterable[Server], volumes: dict[str, Volume], context: ProjectContext
) -> tuple[dict[str, Image], dict[str, str]]:
    """Return the servers' images by id, and ids of images by those of the snapshots that they consist of.

    `volumes` are all that the servers have, by id.
    """
    disks = [
        (one, system_and_data(one, [volumes[id_] for id_ in one.volume_ids if id_ in volumes])[0])
        for one in servers
    ]
    listed: list[Image] = []
    # One call more, only where a disk was made from a snapshot: Cinder names the image where its
    # line began.
    if any(disk is not None and disk.snapshot_id is not None for _, disk in disks):
        listed = await context.retrying(lambda: list_images_of_snapshots(context.project))
    of_snapshots = {
        one.boot_snapshot_id: one.id for one in listed if one.boot_snapshot_id is not None
    }
    known = {one.id: one for one in listed}
    wanted = (
        {image_of(server, disk, of_snapshots) for server, disk in disks} - known.keys() - {None}
    )
    found = await context.retrying(
        lambda: find_images(context.project, [one for one in wanted if one is not None])
    )
    return known | found, of_snapshots


async def _all_volumes(context: ProjectContext) -> dict[str, Volume]:
    """Cinder cannot be asked for several by their ids."""
    found = await context.retrying(lambda: list_volumes(context.project))
    return {volume.id: volume for volume in found}


async def volumes_of_server(server: Server, context: ProjectContext) -> dict[str, Volume]:
    """Return the server's volumes that there are, by id."""
    if len(server.volume_ids) > FEW:
        return await _all_volumes(context)
    found = await asyncio.gather(*(_volume(one, context) for one in server.volume_ids))
    return {volume.id: volume for volume in found if volume is not None}


async def _volume(volume_id: str, context: ProjectContext) -> Volume | None:
    try:
        return await context.retrying(lambda: get_volume(context.project, volume_id))
    except NotFound:
        return None


async def _policies(floating_ips: Iterable[Resource], context: ProjectContext) -> list[Resource]:
    """Asked for only where one is used: not every Neutron has them."""
    if not any(policy_of(one) for one in floating_ips):
        return []
    return await context.retrying(lambda: neutron.list_policies(context.project))


async def _hosts(context: ProjectContext) -> dict[str, str]:
    """Return the hosts by the ids under which the tenant sees them.

    An extra for the operator's console: where the admin cloud does not tell, the view is made
    without.
    """
    if not context.cloud.has_admin:
        return {}
    try:
        hosts = await nova.list_compute_hosts(await context.cloud.admin())
    except (CloudRefusal, Transient):
        return {}
    return {nova.host_id(context.project.id, host): host for host in hosts}


def _by_id(things: Iterable[Any]) -> dict[str, Any]:
    return {thing["id"]: thing for thing in things}

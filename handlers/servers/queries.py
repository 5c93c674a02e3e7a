"""server.list and server.show: a constant number of calls, whatever the page.

Whatever does not need another call's answer is asked for at once: a list takes about as long as the
slowest of its calls, that of the servers themselves. Without a search Nova sorts and counts: the
page in one detailed call, the ids of all in a plain one where there are more. A search that Nova
does not make as the contract means it is made here, among all servers or among those that Nova has
narrowed them down to.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from handlers.context import ProjectContext
from handlers.openstack import neutron, nova
from handlers.openstack.cinder import Volume, get_volume, list_volumes
from handlers.openstack.errors import CloudRefusal, NotFound
from handlers.openstack.glance import Image, find_images, list_images_of_snapshots
from handlers.openstack.neutron import Resource
from handlers.openstack.nova import Server, SortBy
from handlers.servers.disks import image_of, system_and_data
from handlers.servers.guard import FEW, require_server
from handlers.servers.view import (
    ViewSources,
    inner_addresses,
    mac_addresses,
    policy_of,
    server_details,
    server_view,
)
from messages.codes import Code
from messages.commands import UNUSUAL, Page, Search, ServerList, ServerShow, Sort
from messages.errors import Transient
from messages.fields import is_uuid
from messages.record import record
from messages.results import Result
from messages.updates import is_unusual
from messages.views import ServerPage, ShownServer

#: Nova's columns for the fields by which it sorts as the contract does; a status it makes up of two
#: columns.
_COLUMNS = {"createTime": "created_at", "name": "display_name"}
#: The statuses that Nova lets anybody filter by. It may find more than those in the status, never
#: fewer.
_FILTERED = frozenset(
    {
        "active",
        "build",
        "error",
        "hard_reboot",
        "migrating",
        "password",
        "paused",
        "reboot",
        "rebuild",
        "rescue",
        "resize",
        "revert_resize",
        "shelved",
        "shelved_offloaded",
        "shutoff",
        "suspended",
        "verify_resize",
    }
)
#: A value that may be part of an id or of an address.
_ID_OR_ADDRESS = re.compile(r"[0-9a-f:.-]+")
#: Ports that are listed before it is known whose are wanted: for each server of the page, and
#: besides.
_PORTS_EACH, _PORTS_BESIDES = 2, 50
_BAD_REQUEST = 400


@record
class _Networks:
    routers: list[Resource]
    subnets: list[Resource]
    floating_ips: list[Resource]
    #: All of the project's; None where they were not asked for, or are too many.
    ports: list[Resource] | None


async def show_servers(task: ServerList, context: ProjectContext) -> Result:
    """Show a page of the tenant's servers, and how many there are in all."""
    # A first page may be all that there is; another one is a small part of it.
    is_first = task.search is None and task.page.number == 1
    ports = _PORTS_EACH * task.page.size + _PORTS_BESIDES if is_first else 0
    found, volumes, hosts, nets = await asyncio.gather(
        _find_page(task, context),
        _all_volumes(context),
        _hosts(context),
        _networks(context, ports),
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
    if not servers:
        return ViewSources(context.policy.region, {}, {}, {}, {}, (), (), {}, {})
    ports, (images, of_snapshots), policies = await asyncio.gather(
        _ports(servers, nets, context),
        images_of_servers(servers, volumes, context),
        _policies(nets.floating_ips, context),
    )
    return ViewSources(
        region=context.policy.region,
        volumes=volumes,
        images=images,
        subnets={one["id"]: one for one in nets.subnets},
        routers={one["id"]: one for one in nets.routers},
        ports=ports,
        floating_ips=nets.floating_ips,
        policies={one["id"]: one for one in policies},
        hosts=hosts,
        images_of_snapshots=of_snapshots,
        zone=context.policy.billing_zone,
    )


async def _ports(
    servers: Sequence[Server], nets: _Networks, context: ProjectContext
) -> list[Resource]:
    """Return the ports of the servers and of the routers: asked for by these only where those that
    are known already do not have them all.
    """
    known, project = nets.ports, context.project
    devices = [one.id for one in servers] + [one["id"] for one in nets.routers]
    if known is not None:
        # RACE: what was made since the ports were listed is not among them.
        macs = {port["mac_address"] for port in known}
        devices = [one.id for one in servers if not macs.issuperset(mac_addresses(one))]
    others = await context.retrying(lambda: neutron.list_ports(project, "device_id", devices))
    return [*{port["id"]: port for port in [*(known or ()), *others]}.values()]


async def _networks(context: ProjectContext, ports: int = 0) -> _Networks:
    """Return what the project's networks consist of; `ports`: so many of its ports at the most."""
    project = context.project

    async def all_ports() -> list[Resource] | None:
        if not ports:
            return None
        return await context.retrying(lambda: neutron.list_few_ports(project, ports))

    return _Networks(
        *await asyncio.gather(
            context.retrying(lambda: neutron.list_routers(project)),
            context.retrying(lambda: neutron.list_subnets(project)),
            context.retrying(lambda: neutron.list_floating_ips(project)),
            all_ports(),
        )
    )


async def images_of_servers(
    servers: Iterable[Server], volumes: dict[str, Volume], context: ProjectContext
) -> tuple[dict[str, Image], dict[str, str]]:
    """Return the servers' images by id, and ids of images by those of the snapshots that they
    consist of.

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


# Pages.


@record
class _Found:
    """The servers of one page, in order, and how many there are on all of them."""

    total: int
    servers: Sequence[Server]


async def _find_page(task: ServerList, context: ProjectContext) -> _Found:
    """Find the page that is asked for."""
    search, sort, page = task.search, task.sort, task.page
    found = await _sorted_by_nova(sort, page, context) if search is None else None
    if found is None:
        servers = await _candidates(search, context)
        mine = [
            one for one in servers if one.project_id == context.project.id and _matches(one, search)
        ]
        found = _Found(len(mine), page.of(_sorted(mine, sort)))
    return found


async def _sorted_by_nova(sort: Sort, page: Page, context: ProjectContext) -> _Found | None:
    """Find the page by Nova; None where it sorts differently, or the list changed meanwhile."""
    column = _COLUMNS.get(sort.field)
    if column is None:
        return None
    project, by = context.project, SortBy(column, sort.descending)
    if page.number == 1 and sort.field == "createTime":
        # Most tenants have no more than one page: one server more would tell of another.
        limit = page.size + 1
        part, more = await context.retrying(lambda: nova.list_part(project, by, limit, None))
        total = len(part)
        if more:
            total = max(total, len(await context.retrying(lambda: nova.list_names(project, by))))
        return _Found(total, _sorted(part[: page.size], sort))
    named = await context.retrying(lambda: nova.list_names(project, by))
    by_id = sorted(named, key=lambda one: one.id)
    by_name = sorted(by_id, key=lambda one: one.name, reverse=sort.descending)
    if sort.field == "name" and named != by_name:
        return None  # the database compares names in a way of its own
    begin = (page.number - 1) * page.size
    if begin >= len(named):
        return _Found(len(named), ())
    marker = named[begin - 1].id if begin else None
    try:
        part, _ = await context.retrying(lambda: nova.list_part(project, by, page.size, marker))
    except CloudRefusal as error:
        if error.status != _BAD_REQUEST:
            raise
        return None  # the server before the page is gone
    return _Found(len(named), _sorted(part, sort))


# With one, or sorted here.


async def _candidates(search: Search | None, context: ProjectContext) -> list[Server]:
    """List all that may match: as few as Nova can be told to find."""
    if search is not None and search.field == "uuid":
        server_id = search.value.lower()
        if not is_uuid(server_id):
            return []
        try:
            return [await context.retrying(lambda: nova.get_server(context.project, server_id))]
        except NotFound:
            return []
    filters = _narrowing(search) if search is not None else {}
    return await context.retrying(lambda: nova.list_servers(context.project, **filters))


def _narrowing(search: Search) -> dict[str, str]:
    """Return filters of Nova's that leave out nothing that matches."""
    wanted = search.value.lower()
    if search.field == "status" and wanted in _FILTERED:
        return {"status": wanted.upper()}
    if search.field == "name" or (search.field is None and not _ID_OR_ADDRESS.fullmatch(wanted)):
        pattern = _rough_pattern(wanted)
        return {"name": pattern} if pattern else {}
    return {}


def _rough_pattern(part: str) -> str:
    """Return a regular expression that matches at least the names that hold this part, in whatever
    dialect.

    Only letters and digits of ASCII are sure to mean the same to every database, and only if both
    cases are named.
    """
    runs = re.findall("[a-z0-9]+", part)
    return ".*".join(
        "".join(f"[{one}{one.upper()}]" if one.isalpha() else one for one in run) for run in runs
    )


def _matches(server: Server, search: Search | None) -> bool:
    """Compare texts in whatever case; no character is special."""
    if search is None:
        return True
    wanted = search.value.lower()
    name = str(server.body.get("name") or "").lower()
    match search.field:
        case "name":
            return wanted in name
        case "ip":
            return _has_address(server, wanted)
        case "uuid":
            return wanted == server.id
        case "status":
            return (
                is_unusual(server.status) if wanted == UNUSUAL else wanted == server.status.lower()
            )
        case _:
            return wanted in name or wanted in server.id or _has_address(server, wanted)


def _has_address(server: Server, part: str) -> bool:
    return any(part in address.lower() for address in inner_addresses(server))


_KEYS: dict[str, Callable[[Server], Any]] = {
    "name": lambda one: str(one.body.get("name") or ""),
    "status": lambda one: one.status,
    "createTime": lambda one: str(one.body.get("created") or ""),
}


def _sorted(servers: Iterable[Server], sort: Sort) -> Sequence[Server]:
    """Sort; ties are in the order of the ids."""
    return sorted(
        sorted(servers, key=lambda one: one.id), key=_KEYS[sort.field], reverse=sort.descending
    )

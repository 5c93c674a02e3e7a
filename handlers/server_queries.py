"""server.list and server.show: a constant number of calls, whatever the page."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from handlers import compute, networks
from handlers.compute import Server
from handlers.context import Context
from handlers.disks import image_of, system_and_data
from handlers.errors import CloudRefusal
from handlers.images import find_images
from handlers.server_view import Surroundings, Thing, inner_addresses, policy_of, server_details, server_view
from handlers.servers import find_server, unknown_server
from handlers.volumes import Volume, list_volumes
from messages.codes import Code
from messages.errors import Transient
from messages.paging import Sort
from messages.results import Result
from messages.servers import ListServers, Search, ShowServer
from messages.status import is_unusual

#: The value that a search by status takes for everything that is not well.
_UNUSUAL = "unusual"


async def show_servers(task: ListServers, context: Context) -> Result:
    """A page of the tenant's servers, and how many there are in all."""
    found, volumes, hosts = await asyncio.gather(
        context.patiently(lambda: compute.list_servers(context.project)), _volumes(context), _hosts(context)
    )
    mine = [server for server in found if server.project_id == context.project.id]
    matching = _sorted([server for server in mine if _matches(server, task.search)], task.sort)
    shown = task.page.of(matching)
    around = await _around(shown, volumes, hosts, context)
    return Result.of(
        Code.OK, {"totalCount": len(matching), "servers": [server_view(server, around) for server in shown]}
    )


async def show_server(task: ShowServer, context: Context) -> Result:
    """One server."""
    server = await find_server(context, task.server_id)
    if server is None:
        raise unknown_server(task.server_id, None)
    volumes, host = await asyncio.gather(_volumes(context), _host(task.server_id, context))
    around = await _around([server], volumes, {server.id: host}, context)
    return Result.of(Code.OK, {"server": server_details(server, around)})


def _matches(server: Server, search: Search | None) -> bool:
    """Characters are only characters, in whatever case."""
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
            return is_unusual(server.status) if wanted == _UNUSUAL else wanted == server.status.lower()
        case _:
            return wanted in name or wanted in server.id or _has_address(server, wanted)


def _has_address(server: Server, part: str) -> bool:
    return any(part in address.lower() for address in inner_addresses(server))


def _sorted(servers: Iterable[Server], sort: Sort) -> Sequence[Server]:
    """Ties are always in the order of the ids."""
    keys = {
        "name": lambda one: str(one.body.get("name") or ""),
        "status": lambda one: one.status,
        "createTime": lambda one: str(one.body.get("created") or ""),
    }
    by_id = sorted(servers, key=lambda one: one.id)
    return sorted(by_id, key=keys[sort.field], reverse=sort.descending)


async def _around(
    servers: Sequence[Server], volumes: dict[str, Volume], hosts: dict[str, str | None], context: Context
) -> Surroundings:
    project = context.project
    if not servers:
        return Surroundings(project.region, {}, {}, {}, {}, (), (), {}, {})
    routers, subnets, floating_ips = await asyncio.gather(
        context.patiently(lambda: networks.list_routers(project)),
        context.patiently(lambda: networks.list_subnets(project)),
        context.patiently(lambda: networks.list_floating_ips(project)),
    )
    devices = [one.id for one in servers] + [one["id"] for one in routers]
    ports, images, policies = await asyncio.gather(
        context.patiently(lambda: networks.list_ports(project, devices)),
        context.patiently(lambda: find_images(project, _image_ids(servers, volumes))),
        _policies(floating_ips, context),
    )
    return Surroundings(
        region=project.region, volumes=volumes, images=images, subnets=_by_id(subnets), routers=_by_id(routers),
        ports=ports, floating_ips=floating_ips, policies=_by_id(policies), hosts=hosts,
    )  # fmt: skip


def _image_ids(servers: Iterable[Server], volumes: dict[str, Volume]) -> set[str]:
    found = set()
    for server in servers:
        system, _ = system_and_data(server, [volumes[one] for one in server.volume_ids if one in volumes])
        found.add(image_of(server, system))
    return {one for one in found if one is not None}


async def _volumes(context: Context) -> dict[str, Volume]:
    found = await context.patiently(lambda: list_volumes(context.project))
    return {volume.id: volume for volume in found}


async def _policies(floating_ips: Iterable[Thing], context: Context) -> list[Thing]:
    """Asked for only where one is used: not every Neutron has them."""
    if not any(policy_of(one) for one in floating_ips):
        return []
    return await context.patiently(lambda: networks.list_policies(context.project))


async def _hosts(context: Context) -> dict[str, str | None]:
    """An extra for the operator's console: where the admin cloud does not tell, the view is made without."""
    if not context.cloud.has_admin:
        return {}
    try:
        return await compute.list_hosts(await context.cloud.admin(), context.project.id)
    except (CloudRefusal, Transient):
        return {}


async def _host(server_id: str, context: Context) -> str | None:
    if not context.cloud.has_admin:
        return None
    try:
        return await compute.get_host(await context.cloud.admin(), server_id)
    except (CloudRefusal, Transient):
        return None


def _by_id(things: Iterable[Any]) -> dict[str, Any]:
    return {thing["id"]: thing for thing in things}

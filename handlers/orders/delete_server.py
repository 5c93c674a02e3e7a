"""Delete a server with what came with it.

Deleted with it are the disks that Nova itself would delete, its system disk where that was made for
it, and the ports that Nova or a `new` order made. Disks and ports that were attached later are
detached and kept, and so are floating IPs.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from handlers.context import MARK, ProjectContext
from handlers.effects.ledger import EffectId, EffectKind
from handlers.openstack import neutron, nova
from handlers.openstack.cinder import Volume, has_snapshots
from handlers.openstack.errors import CloudRefusal, Conflict, Forbidden, NotFound
from handlers.openstack.neutron import Resource
from handlers.openstack.nova import GONE, Server
from handlers.orders.delete_resources import Deletions, gone_already
from handlers.orders.progress import OrderProgress
from handlers.orders.saga import do_steps
from handlers.orders.snapshot import find_volumes, snapshot_of
from handlers.orders.step import Ready, Step, failed
from handlers.servers.disks import system_and_data
from handlers.servers.guard import find_server, unknown_server, wait_until_idle
from messages.errors import Refused
from messages.record import record
from messages.results import ServerSnapshot
from messages.updates import OrderStatus

#: Length of `2026-11-23T10:00:00`: Nova and Cinder write the same second in two ways.
_SECOND = 19


@record
class ServerDeletion:
    """The plan of one deletion, as it is stored in the journal; ids.

    With `gone` nothing is to be deleted; the other fields are then what the cloud still holds.
    """

    server_id: str
    gone: bool
    locked: bool = False
    #: The server as it was.
    before: ServerSnapshot | None = None
    volumes: tuple[str, ...] = ()
    kept_volumes: tuple[str, ...] = ()
    #: Made by a `new` order: Nova deletes only those that it made itself.
    own_ports: tuple[str, ...] = ()
    other_ports: tuple[str, ...] = ()
    floating_ips: tuple[str, ...] = ()


async def plan_deletion(server_id: str, context: ProjectContext) -> ServerDeletion:
    """Plan which resources are deleted with a server, and which are kept.

    Raises `Refused` for a server that is known to be another tenant's.
    """
    with context.checks.of("instance", server_id):
        server = await _find_idle(server_id, context)
    if server is None:
        return ServerDeletion(server_id, gone=True)
    attached, is_gone = await find_volumes(server.volume_ids, context), server.status in GONE
    deleted = _came_with(server, attached)
    if not is_gone:
        deleted -= await _held(server_id, [one for one in attached if one.id in deleted], context)
    ports = await context.retrying(
        lambda: neutron.list_ports(context.project, "device_id", [server_id])
    )
    floating_ips = await context.retrying(lambda: neutron.list_floating_ips(context.project))
    own = [port["id"] for port in ports if _is_own(port)]
    other = [port["id"] for port in ports if not _is_own(port)]
    return ServerDeletion(
        server_id,
        gone=is_gone,
        locked=server.locked,
        before=snapshot_of(server, attached),
        volumes=tuple(one.id for one in attached if one.id in deleted),
        kept_volumes=tuple(one.id for one in attached if one.id not in deleted),
        own_ports=tuple(own),
        other_ports=tuple(other),
        floating_ips=tuple(
            one["id"] for one in floating_ips if one.get("port_id") in {*own, *other}
        ),
    )


async def _find_idle(server_id: str, context: ProjectContext) -> Server | None:
    """The server once no task is under way; None where Nova does not know it any more.

    A task that is still under way when the time is up does not matter: Nova deletes a server in
    whatever state.
    """
    server = await find_server(context, server_id)
    if server is None:
        owner = await context.retrying(lambda: context.cloud.owner_of(server_id))
        if owner not in (None, context.project.id):
            raise unknown_server(server_id, None)
        return None
    try:
        return await wait_until_idle(context, server, context.busy_until)
    except Refused:  # it went meanwhile
        return None


def _came_with(server: Server, attached: Iterable[Volume]) -> set[str]:
    """The ids of the disks that are deleted with the server.

    Nova keeps a disk unless whoever made the server said otherwise, the system disk, too. But one
    that was made for the server is the server's; one that is older was somebody's before, and
    stays.
    """
    system, _ = system_and_data(server, attached)
    deleted = set(server.mortal_volume_ids)
    if system is not None and system.created[:_SECOND] >= server.created[:_SECOND]:
        deleted.add(system.id)
    return deleted


async def _held(server_id: str, volumes: Iterable[Volume], context: ProjectContext) -> set[str]:
    """The ids of those volumes that Cinder will not delete, though their server can be deleted.

    One with snapshots (createImage of a server leaves some, on which its image rests), one of a
    group, and one that another server uses, too.
    """

    async def held(volume: Volume) -> str | None:
        if volume.group_id is not None or volume.server_ids - {server_id}:
            return volume.id
        has_any = await context.retrying(lambda: has_snapshots(context.project, volume.id))
        return volume.id if has_any else None

    return {one for one in await asyncio.gather(*map(held, volumes)) if one is not None}


def _is_own(port: Resource) -> bool:
    return str(port.get("description") or "").startswith(f"{MARK}=")


def deletion_steps(
    deletion: ServerDeletion, context: ProjectContext, progress: OrderProgress
) -> list[Step]:
    """The steps that delete the server and what goes with it; none where it is gone.

    What the cloud does not delete once the server is gone is kept, see `kept_resources`.
    """
    if deletion.gone:
        return []
    server_id, deletions = deletion.server_id, Deletions(context, progress)
    kept = {
        "volumes": deletion.kept_volumes,
        "ports": deletion.other_ports,
        "floatingIps": deletion.floating_ips,
    }
    kept_ids = {kind: list(ids) for kind, ids in kept.items() if ids}
    delete = deletions.server(
        server_id, before=deletion.before, after={"kept": kept_ids} if kept_ids else None
    )
    unlock = _unlock_step(deletion, context)

    async def refused(error: CloudRefusal) -> None:
        if isinstance(error, NotFound):
            return
        server = await find_server(context, server_id)
        if not isinstance(error, Conflict) or server is None or not server.locked:
            raise error
        # Locked since it was planned.
        await do_steps([replace(unlock, prepare=None), delete], context, progress)

    return [
        *(_release_step(one, deletion, context) for one in deletion.floating_ips),
        unlock,
        replace(delete, refused=refused),
        *(
            deletions.volume(one, EffectId(EffectKind.DELETE, server_id), server_id)
            for one in deletion.volumes
        ),
        *(deletions.port(one, server_id) for one in deletion.own_ports),
    ]


def _release_step(floating_ip_id: str, deletion: ServerDeletion, context: ProjectContext) -> Step:
    """Take a floating IP off the server, but not off another server where it may be by now."""
    ports = {*deletion.own_ports, *deletion.other_ports}

    async def is_off(_: object = None) -> str | None:
        is_released = await neutron.is_released(context.project, floating_ip_id, ports)
        return "" if is_released else None

    return Step(
        name="release",
        effect=EffectId(EffectKind.RELEASE, floating_ip_id),
        instance_id=deletion.server_id,
        before=deletion.server_id,
        target=floating_ip_id,
        act=lambda: neutron.release_floating_ip(context.project, floating_ip_id),
        landed=is_off,
        marked=is_off,
        refused=gone_already,
        status=OrderStatus.DELETING,
    )


def _unlock_step(deletion: ServerDeletion, context: ProjectContext) -> Step:
    """Remove the lock that forbids the deletion; an admin's lock needs the admin cloud."""
    effect = EffectId(EffectKind.UNLOCK, deletion.server_id)

    async def prepare() -> Ready | None:
        return Ready() if deletion.locked else None

    async def landed(_: object) -> str | None:
        found = await find_server(context, deletion.server_id)
        return "" if found is None or not found.locked else None

    async def refused(error: CloudRefusal) -> None:
        if not isinstance(error, Forbidden):
            return await gone_already(error)
        if not context.cloud.has_admin:
            raise failed("locked", "an admin has locked the server") from None
        admin = await context.cloud.admin()
        act = partial(nova.unlock, admin, deletion.server_id)
        return await context.effects.once(effect, act, landed, None)

    return Step(
        name="unlock",
        effect=effect,
        instance_id=deletion.server_id,
        prepare=prepare,
        act=lambda: nova.unlock(context.project, deletion.server_id),
        landed=landed,
        refused=refused,
        status=OrderStatus.DELETING,
        printed=False,
    )


async def kept_resources(
    deletion: ServerDeletion, context: ProjectContext
) -> dict[str, dict[str, list[str]]]:
    """The ids of what there still is of what was at the server, by kind, as the result's `kept`;
    empty where there is nothing.

    The cloud is asked: Nova deletes some of it itself, and some of it may be held for reasons that
    could not be planned for.
    """
    volumes = await find_volumes([*deletion.kept_volumes, *deletion.volumes], context)
    port_ids = (*deletion.other_ports, *deletion.own_ports)
    ports = (
        await context.retrying(lambda: neutron.list_ports(context.project, "id", port_ids))
        if port_ids
        else []
    )
    kept = {
        "volumes": [one.id for one in volumes if one.status != "deleting"],
        "floatingIps": list(deletion.floating_ips),
        "ports": [port["id"] for port in ports],
    }
    found = {kind: ids for kind, ids in kept.items() if ids}
    return {"kept": found} if found else {}

"""Delete a server with what came with it.

Deleted with it are the disks that Nova itself would delete, its system disk where that was made for
it, and the ports that Nova or a `new` order made. Disks and ports that were attached later are
detached and kept, and so are floating IPs.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from handlers.context import MARK, ProjectContext, RequestContext
from handlers.effects.backoff import Deadline
from handlers.openstack import neutron, nova
from handlers.openstack.cinder import Volume, has_snapshots
from handlers.openstack.cloud import Project
from handlers.openstack.errors import CloudRefusal, Conflict, Forbidden, NotFound
from handlers.openstack.neutron import Thing
from handlers.openstack.nova import GONE, Server
from handlers.orders.delete_resources import delete_port, delete_server, delete_volume
from handlers.orders.progress import OrderProgress
from handlers.orders.saga import all_done
from handlers.orders.snapshot import Snapshot, snapshot_of, volumes_of, volumes_there
from handlers.orders.step import Deed, failed
from handlers.servers.disks import system_and_data
from handlers.servers.guard import find_server, unknown_server, wait_until_idle
from messages.errors import Refused

#: Cinder's answer where a volume cannot be deleted as it is: it has had a snapshot since, or been
#: put into a group.
_BAD_STATE = 400
#: Length of `2026-11-23T10:00:00`: Nova and Cinder write the same second in two ways.
_SECOND = 19


@dataclass(frozen=True, slots=True)
class ServerDeletion:
    """The plan of one deletion, as it is stored in the journal; ids.

    With `gone` nothing is to be deleted; the other fields are then what the cloud still holds.
    """

    server_id: str
    gone: bool
    locked: bool = False
    #: The server as it was.
    before: Snapshot | None = None
    volumes: tuple[str, ...] = ()
    kept_volumes: tuple[str, ...] = ()
    #: Made by a `new` order: Nova deletes only those that it made itself.
    own_ports: tuple[str, ...] = ()
    other_ports: tuple[str, ...] = ()
    floating_ips: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The record for the journal."""
        record: dict[str, Any] = _STORED.dump_python(self, mode="json")
        return record

    @classmethod
    def from_json(cls, record: Any) -> "ServerDeletion":
        """The plan in a record of the journal, also of an earlier version's."""
        return _STORED.validate_python(record)


_STORED = TypeAdapter(ServerDeletion)


async def plan_deletion(server_id: str, context: ProjectContext) -> ServerDeletion:
    """Plan which resources are deleted with a server, and which are kept.

    Raises `Refused` for a server that is known to be another tenant's.
    """
    with context.checks.of("instance", server_id):
        server = await _find_idle(server_id, context)
    if server is None:
        return ServerDeletion(server_id, gone=True)
    attached, is_gone = await volumes_of(server, context), server.status in GONE
    deleted = _came_with(server, attached)
    if not is_gone:
        deleted -= await _held(server_id, [one for one in attached if one.id in deleted], context)
    ports = await context.retrying(lambda: neutron.list_ports(context.project, [server_id]))
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
        return await wait_until_idle(
            context, server, min(context.times.hold, Deadline.after(context.times.wait_timeout))
        )
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


def _is_own(port: Thing) -> bool:
    return str(port.get("description") or "").startswith(f"{MARK}=")


def deletion_steps(deletion: ServerDeletion) -> list[Deed]:
    """The steps of `carry_out_deletion`, for a preview."""
    if deletion.gone:
        return []
    server_id = deletion.server_id
    kept = {
        "volumes": deletion.kept_volumes,
        "ports": deletion.other_ports,
        "floatingIps": deletion.floating_ips,
    }
    kept_ids = {kind: list(ids) for kind, ids in kept.items() if ids}
    after = {"kept": kept_ids} if kept_ids else None
    return [
        *(Deed("release", server_id, server_id, None, target=one) for one in deletion.floating_ips),
        Deed("delete", server_id, deletion.before, after, can_be_undone=False),
        *(Deed("deleteVolume", server_id, server_id, None, False, one) for one in deletion.volumes),
        *(Deed("deletePort", server_id, server_id, None, False, one) for one in deletion.own_ports),
    ]


async def carry_out_deletion(
    deletion: ServerDeletion, context: ProjectContext, progress: OrderProgress
) -> None:
    """Delete the server and what goes with it, each once. What the cloud does not delete once the
    server is gone is kept, see `kept_resources`.
    """
    if deletion.gone:
        return
    await all_done(_release(one, deletion, context) for one in deletion.floating_ips)
    if deletion.locked:
        await _unlock(deletion.server_id, context)
    try:
        deleted = await delete_server(deletion.server_id, context, progress)
    except Conflict as error:
        server = await find_server(context, deletion.server_id)
        if server is None or not server.locked:
            raise error.as_failure() from error
        await _unlock(deletion.server_id, context)  # locked since
        deleted = await delete_server(deletion.server_id, context, progress)
    if not deleted:
        return
    since = f"delete:{deletion.server_id}"
    await all_done(_delete_volume(one, since, context) for one in deletion.volumes)
    await all_done(delete_port(one, context) for one in deletion.own_ports)


async def _release(floating_ip_id: str, deletion: ServerDeletion, context: ProjectContext) -> None:
    """Take a floating IP off the server, but not off another server where it may be by now."""
    ports = {*deletion.own_ports, *deletion.other_ports}

    async def is_off(_: object = None) -> str | None:
        is_released = await neutron.is_released(context.project, floating_ip_id, ports)
        return "" if is_released else None

    try:
        await context.effects.once(
            f"release:{floating_ip_id}",
            lambda: neutron.release_floating_ip(context.project, floating_ip_id),
            is_off,
            None,
            marked=is_off,
        )
    except NotFound:
        return


async def _unlock(server_id: str, context: ProjectContext) -> None:
    """Undo the lock that forbids the deletion: the tenant's own, or an admin's with the admin cloud."""

    async def landed(_: object) -> str | None:
        found = await find_server(context, server_id)
        return "" if found is None or not found.locked else None

    async def by(project: Project) -> None:
        await context.effects.once(
            f"unlock:{server_id}", lambda: nova.unlock(project, server_id), landed, None
        )

    try:
        await by(context.project)
    except NotFound:
        return
    except Forbidden:
        if not context.cloud.has_admin:
            raise failed("locked", "an admin has locked the server") from None
        await by(await context.cloud.admin())


async def _delete_volume(volume_id: str, since: str, context: ProjectContext) -> None:
    """Delete a volume of a server that is gone. There is no way back: a volume that Cinder holds is
    kept.
    """
    try:
        await delete_volume(volume_id, since, context)
    except CloudRefusal as refusal:
        if refusal.status != _BAD_STATE:
            raise


async def kept_resources(
    deletion: ServerDeletion, context: ProjectContext
) -> dict[str, dict[str, list[str]]]:
    """The ids of what there still is of what was at the server, by kind, as the result's `kept`;
    empty where there is nothing.

    The cloud is asked: Nova deletes some of it itself, and some of it may be held for reasons that
    could not be planned for.
    """
    volumes = await volumes_there([*deletion.kept_volumes, *deletion.volumes], context)
    port_ids = (*deletion.other_ports, *deletion.own_ports)
    ports = (
        await context.retrying(lambda: neutron.find_ports(context.project, port_ids))
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


def request_ids(deletion: ServerDeletion, context: RequestContext) -> list[str]:
    """OpenStack's request ids of the calls that were made for a deletion."""
    if deletion.gone:
        return []
    server_id = deletion.server_id
    effects = [
        *(f"release:{one}" for one in deletion.floating_ips),
        f"unlock:{server_id}",
        *(f"delete:{one}" for one in (server_id, *deletion.volumes, *deletion.own_ports)),
    ]
    return [found for one in effects if (found := context.effects.request_id(one)) is not None]

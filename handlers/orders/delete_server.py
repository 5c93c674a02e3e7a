"""A server that goes, and what goes with it.

What came with it goes: the disks that Nova itself would delete with it, its system disk where that
was made for it, the ports that Nova or a `new` order made. What was attached later is detached and
kept, and floating IPs are.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from handlers.context import MARK, ProjectContext, RequestContext
from handlers.effects.backoff import Deadline
from handlers.openstack import neutron, nova
from handlers.openstack.cinder import Volume, has_snapshots
from handlers.openstack.cloud import Project
from handlers.openstack.errors import CloudRefusal, Conflict, Forbidden, NotFound
from handlers.openstack.neutron import Thing
from handlers.openstack.nova import GONE, Server
from handlers.orders.delete_resources import remove_port, remove_server, remove_volume
from handlers.orders.progress import Course
from handlers.orders.saga import all_of, failed
from handlers.orders.snapshot import Picture, picture_of, volumes_of, volumes_there
from handlers.orders.step import Deed
from handlers.servers.disks import system_and_data
from handlers.servers.guard import find_server, unknown_server, wait_until_idle
from messages.errors import Refused

#: Cinder's answer where a volume cannot be deleted as it is: it has had a snapshot since, or been
#: put into a group.
_BAD_STATE = 400
#: Length of `2026-11-23T10:00:00`: Nova and Cinder write the same second in two ways.
_SECOND = 19


@dataclass(frozen=True, slots=True)
class Departure:
    """One server to go; ids. With `gone` there is nothing to do; the rest is then what the cloud
    still holds of it.
    """

    server_id: str
    gone: bool
    locked: bool = False
    #: The server as it was.
    before: Picture | None = None
    volumes: tuple[str, ...] = ()
    kept_volumes: tuple[str, ...] = ()
    #: Made by a `new` order: Nova deletes only those that it made itself.
    own_ports: tuple[str, ...] = ()
    other_ports: tuple[str, ...] = ()
    floating_ips: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The record for the journal."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Departure":
        """What the journal kept."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in record.items()
        }
        return cls(**fields)


async def plan_departure(server_id: str, context: ProjectContext) -> Departure:
    """What goes with a server and what is kept. `Refused` for a server that is known to be another
    tenant's.
    """
    with context.checks.of("instance", server_id):
        server = await _server(server_id, context)
    if server is None:
        return Departure(server_id, gone=True)
    attached, is_gone = await volumes_of(server, context), server.status in GONE
    going = _came_with(server, attached)
    if not is_gone:
        going -= await _held(server_id, [one for one in attached if one.id in going], context)
    ports = await context.retrying(lambda: neutron.list_ports(context.project, [server_id]))
    listed = await context.retrying(lambda: neutron.list_floating_ips(context.project))
    port_ids = {port["id"] for port in ports}
    return Departure(
        server_id,
        gone=is_gone,
        locked=server.locked,
        before=picture_of(server, attached),
        volumes=tuple(one.id for one in attached if one.id in going),
        kept_volumes=tuple(one.id for one in attached if one.id not in going),
        own_ports=tuple(port["id"] for port in ports if _is_own(port)),
        other_ports=tuple(port["id"] for port in ports if not _is_own(port)),
        floating_ips=tuple(one["id"] for one in listed if one.get("port_id") in port_ids),
    )


def departure_deeds(departure: Departure) -> list[Deed]:
    """What `leave` does."""
    if departure.gone:
        return []
    server_id = departure.server_id
    staying = {
        "volumes": departure.kept_volumes,
        "ports": departure.other_ports,
        "floatingIps": departure.floating_ips,
    }
    kept_ids = {kind: list(ids) for kind, ids in staying.items() if ids}
    return [
        *(
            Deed("release", server_id, server_id, None, target=one)
            for one in departure.floating_ips
        ),
        Deed(
            "delete",
            server_id,
            departure.before,
            {"kept": kept_ids} if kept_ids else None,
            can_be_undone=False,
        ),
        *(
            Deed("deleteVolume", server_id, server_id, None, False, one)
            for one in departure.volumes
        ),
        *(
            Deed("deletePort", server_id, server_id, None, False, one)
            for one in departure.own_ports
        ),
    ]


async def leave(departure: Departure, context: ProjectContext, course: Course) -> None:
    """Have it go; each step once. What the cloud does not let go once the server is gone stays, see
    `kept`.
    """
    if departure.gone:
        return
    await all_of(_release(one, departure, context) for one in departure.floating_ips)
    if departure.locked:
        await _unlock(departure.server_id, context)
    try:
        released = await remove_server(departure.server_id, context, course)
    except Conflict as error:
        server = await find_server(context, departure.server_id)
        if server is None or not server.locked:
            raise error.as_failure() from error
        await _unlock(departure.server_id, context)  # locked since
        released = await remove_server(departure.server_id, context, course)
    if not released:
        return
    since = f"delete:{departure.server_id}"
    await all_of(_remove_volume(one, since, context) for one in departure.volumes)
    await all_of(remove_port(one, context) for one in departure.own_ports)


async def kept(departure: Departure, context: ProjectContext) -> dict[str, list[str]]:
    """What there still is of what was at the server, by kind; no kind of which there is nothing.

    Asked of the cloud: Nova takes some of it away itself, and some of it may be held by what nobody
    foresaw.
    """
    there = await volumes_there([*departure.kept_volumes, *departure.volumes], context)
    ports = (*departure.other_ports, *departure.own_ports)
    found = (
        await context.retrying(lambda: neutron.find_ports(context.project, ports)) if ports else []
    )
    staying = {
        "volumes": [one.id for one in there if one.status != "deleting"],
        "floatingIps": list(departure.floating_ips),
        "ports": [port["id"] for port in found],
    }
    return {kind: ids for kind, ids in staying.items() if ids}


def request_ids(departure: Departure, context: RequestContext) -> list[str]:
    """OpenStack's ids of the calls by which it went."""
    server_id = departure.server_id
    gone = [server_id, *departure.volumes, *departure.own_ports]
    effects = [
        *(f"release:{one}" for one in departure.floating_ips),
        f"unlock:{server_id}",
        *(f"delete:{one}" for one in gone),
    ]
    return [found for one in effects if (found := context.effects.request_id(one)) is not None]


async def _server(server_id: str, context: ProjectContext) -> Server | None:
    """The server once nothing is under way with it; None where Nova knows it no more.

    What is still under way when the time is up ends with the server: Nova deletes it in whatever
    state.
    """
    server = await find_server(context, server_id)
    if server is None:
        owner = await context.retrying(lambda: context.cloud.owner_of(server_id))
        if owner not in (None, context.project.id):
            raise unknown_server(server_id, None)
        return None
    try:
        return await wait_until_idle(
            context, server, min(context.hold, Deadline.after(context.wait_timeout))
        )
    except Refused:  # it went meanwhile
        return None


def _came_with(server: Server, attached: Iterable[Volume]) -> set[str]:
    """The ids of the disks that go with the server.

    Nova keeps a disk unless whoever made the server said otherwise, the system disk, too. But one
    that was made for the server is the server's; one that is older was somebody's before, and
    stays.
    """
    system, _ = system_and_data(server, attached)
    going = set(server.mortal_volume_ids)
    if system is not None and system.created[:_SECOND] >= server.created[:_SECOND]:
        going.add(system.id)
    return going


async def _held(server_id: str, volumes: Iterable[Volume], context: ProjectContext) -> set[str]:
    """The ids of those volumes that Cinder will not delete, which does not keep their server from
    going.

    One with snapshots (createImage of a server leaves some, on which its image rests), one of a
    group, and one that another server uses, too.
    """

    async def is_held(volume: Volume) -> bool:
        if volume.group_id is not None or volume.server_ids - {server_id}:
            return True
        return await context.retrying(lambda: has_snapshots(context.project, volume.id))

    listed = list(volumes)
    held = await asyncio.gather(*map(is_held, listed))
    return {one.id for one, is_one in zip(listed, held, strict=True) if is_one}


async def _remove_volume(volume_id: str, since: str, context: ProjectContext) -> None:
    """Delete a volume of a server that is gone, for which there is no way back: what Cinder holds
    is kept.
    """
    try:
        await remove_volume(volume_id, since, context)
    except CloudRefusal as refusal:
        if refusal.status != _BAD_STATE:
            raise


def _is_own(port: Thing) -> bool:
    return str(port.get("description") or "").startswith(f"{MARK}=")


async def _release(floating_ip_id: str, departure: Departure, context: ProjectContext) -> None:
    """Take a floating IP off the server; from another server, where it may be by now, it is not
    taken.
    """
    ports = {*departure.own_ports, *departure.other_ports}

    async def is_off() -> str | None:
        is_off = await neutron.is_released(context.project, floating_ip_id, ports)
        return "" if is_off else None

    async def landed(_: object) -> str | None:
        return await is_off()

    try:
        await context.effects.once(
            f"release:{floating_ip_id}",
            lambda: neutron.release_floating_ip(context.project, floating_ip_id),
            landed,
            None,
            marked=is_off,
        )
    except NotFound:
        return


async def _unlock(server_id: str, context: ProjectContext) -> None:
    """Undo the lock that keeps a server from going: the tenant's own, or an admin's with the admin
    cloud.
    """

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

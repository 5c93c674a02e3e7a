"""Taking away servers, volumes and ports: each once, and followed until it is gone. What is gone
already is done.
"""

from collections.abc import Awaitable, Callable

from handlers.context import ProjectContext
from handlers.effects.once import Landed
from handlers.openstack import cinder, neutron, nova
from handlers.openstack.cinder import PASSING, Volume
from handlers.openstack.cloud import Reply
from handlers.openstack.errors import CloudRefusal, NotFound
from handlers.openstack.nova import ERROR, GONE, SOFT_DELETED, Server
from handlers.orders.progress import Course
from handlers.orders.saga import failed
from handlers.orders.steps import with_fault

#: What Nova sets before it accepts a deletion.
_GOING = frozenset({"deleting", "soft-deleting"})
#: What Cinder sets when it accepts the deletion of a volume, and where that has failed.
_VANISHING = frozenset({"deleting", "error_deleting"})
#: States of a volume that the going server, or something else that ends by itself, will leave.
_BUSY = PASSING | {"in-use"}


async def remove_server(server_id: str, context: ProjectContext, course: Course) -> bool:
    """Delete a server; `Refused` where it stays.

    Returns False where the cloud keeps it for a while (`SOFT_DELETED`), and with it what it uses.
    """
    effect = f"delete:{server_id}"

    async def landed(_: object) -> str | None:
        server = await _server(server_id, context)
        return "" if server is None or server.task_state in _GOING else None

    if await _done(effect, lambda: nova.delete_server(context.project, server_id), landed, context):
        return await _until_gone(server_id, effect, context, course)
    return True


async def reclaim_server(server_id: str, context: ProjectContext, course: Course) -> bool:
    """Delete a server for good that the cloud keeps for a while; False where it does not allow
    that.
    """
    effect = f"force-delete:{server_id}"

    async def landed(_: object) -> str | None:
        server = await nova.get_server(context.project, server_id)
        return "" if server.status == "DELETED" or server.task_state in _GOING else None

    try:
        if await _done(
            effect, lambda: nova.force_delete(context.project, server_id), landed, context
        ):
            await _until_gone(server_id, effect, context, course, gone=frozenset({"DELETED"}))
    except CloudRefusal:
        return False
    return True


async def remove_volume(volume_id: str, since: str, context: ProjectContext) -> None:
    """Delete a volume once nothing uses it any more; `Refused` where it stays.

    `since` is the effect from whose beginning that is waited for.
    """
    effect = f"delete:{volume_id}"
    if not context.effects.begun(effect) and await _when_free(volume_id, since, context) is None:
        return

    async def landed(_: object) -> str | None:
        volume = await _volume(volume_id, context)
        return "" if volume is None or volume.status in _VANISHING else None

    try:
        begun = await _done(
            effect, lambda: cinder.delete_volume(context.project, volume_id), landed, context
        )
    except CloudRefusal:
        # Nova, which deletes some disks itself, may have been quicker.
        found = await _volume(volume_id, context)
        if found is not None and found.status not in _VANISHING:
            raise
        begun = found is not None
    if begun:
        last = await _follow_volume(
            volume_id, effect, context, lambda one: one.status == "error_deleting"
        )
        if last is not None:
            raise failed("delete_failed", f"volume {volume_id} is {last.status}")


async def remove_port(port_id: str, context: ProjectContext) -> None:
    """Delete a port, which is done when it is answered."""

    async def landed(_: object) -> str | None:
        return None  # a port that is gone says so

    await _done(
        f"delete:{port_id}", lambda: neutron.delete_port(context.project, port_id), landed, context
    )


async def _done(
    effect: str, do: Callable[[], Awaitable[Reply]], landed: Landed, context: ProjectContext
) -> bool:
    """Whether it is on its way; False where there is nothing any more."""
    try:
        await context.effects.once(effect, do, landed, None)
    except NotFound:
        return False
    return True


async def _until_gone(
    server_id: str,
    effect: str,
    context: ProjectContext,
    course: Course,
    gone: frozenset[str] = GONE,
) -> bool:
    """Wait until a server is gone; False where the cloud keeps it. One that could not be deleted
    ends in ERROR.

    That it has no task says nothing: Nova confirms a resize before it deletes, and then forgets the
    task for a moment.
    """
    with context.watchers.servers.follow(server_id) as feed:
        while True:
            try:
                server = await context.next(feed, effect)
            except NotFound:
                return True
            except TimeoutError:
                raise failed("timeout", f"server {server_id} is not gone in time") from None
            if server.status in gone:
                return server.status != SOFT_DELETED
            if server.status == ERROR and server.task_state not in _GOING:
                fault = (await with_fault(server, context)).fault
                raise failed("delete_failed", f"server {server_id} is {server.status}: {fault}")
            await course.tell_server(server)


async def _when_free(volume_id: str, since: str, context: ProjectContext) -> Volume | None:
    """The volume once it can be deleted; None where it is gone."""
    return await _follow_volume(volume_id, since, context, lambda one: one.status not in _BUSY)


async def _follow_volume(
    volume_id: str, effect: str, context: ProjectContext, ended: Callable[[Volume], bool]
) -> Volume | None:
    """The volume once something holds of it; None where it is gone, or going."""
    volume = await _volume(volume_id, context)
    if volume is None or ended(volume):
        return volume
    with context.watchers.volumes.follow(volume_id) as feed:
        while True:
            try:
                volume = await context.next(feed, effect)
            except NotFound:
                return None
            except TimeoutError:
                raise failed("timeout", f"volume {volume_id} is still {volume.status}") from None
            if ended(volume):
                return volume


async def _server(server_id: str, context: ProjectContext) -> Server | None:
    try:
        server = await nova.get_server(context.project, server_id)
    except NotFound:
        return None
    return server if server.status not in GONE else None


async def _volume(volume_id: str, context: ProjectContext) -> Volume | None:
    try:
        return await context.retrying(lambda: cinder.get_volume(context.project, volume_id))
    except NotFound:
        return None

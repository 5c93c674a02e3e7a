"""Delete servers, volumes and ports: each once, and followed until it is gone.

A resource that is gone already counts as deleted.
"""

from collections.abc import Awaitable, Callable

from handlers.context import ProjectContext
from handlers.effects.once import Landed
from handlers.openstack import cinder, neutron, nova
from handlers.openstack.cinder import PASSING, Volume
from handlers.openstack.cloud import Reply
from handlers.openstack.errors import CloudRefusal, NotFound
from handlers.openstack.nova import ERROR, GONE, SOFT_DELETED
from handlers.orders.instances import find_remaining
from handlers.orders.progress import OrderProgress
from handlers.orders.step import failed
from handlers.orders.steps import with_fault

#: The tasks that Nova sets before it accepts a deletion.
_DELETING_SERVER = frozenset({"deleting", "soft-deleting"})
#: The states that Cinder sets when it accepts the deletion of a volume, and when that has failed.
_DELETING_VOLUME = frozenset({"deleting", "error_deleting"})
#: States that a volume leaves by itself, or when its server is gone.
_BUSY = PASSING | {"in-use"}


async def delete_server(server_id: str, context: ProjectContext, progress: OrderProgress) -> bool:
    """Delete a server and wait until it is gone. Raises `Refused` where it stays.

    Returns False where the cloud keeps it for a while (`SOFT_DELETED`), with what it uses.
    """
    effect = f"delete:{server_id}"

    async def landed(_: object) -> str | None:
        server = await find_remaining(server_id, context)
        return "" if server is None or server.task_state in _DELETING_SERVER else None

    if not await _accepted(
        effect, lambda: nova.delete_server(context.project, server_id), landed, context
    ):
        return True
    return await _follow_server(server_id, effect, context, progress)


async def force_delete_server(
    server_id: str, context: ProjectContext, progress: OrderProgress
) -> bool:
    """Delete for good a server that the cloud keeps; False where the cloud does not allow it."""
    effect = f"force-delete:{server_id}"

    async def landed(_: object) -> str | None:
        server = await nova.get_server(context.project, server_id)
        gone = server.status == "DELETED" or server.task_state in _DELETING_SERVER
        return "" if gone else None

    try:
        if await _accepted(
            effect, lambda: nova.force_delete(context.project, server_id), landed, context
        ):
            await _follow_server(server_id, effect, context, progress, gone=frozenset({"DELETED"}))
    except CloudRefusal:
        return False
    return True


async def delete_volume(volume_id: str, since: str, context: ProjectContext) -> None:
    """Delete a volume once nothing uses it, and wait until it is gone. Raises `Refused` where it
    stays, `CloudRefusal` where Cinder does not take the deletion.

    `since` is the effect from whose beginning the wait for its users is timed.
    """
    effect = f"delete:{volume_id}"
    if not context.effects.begun(effect):
        free = await _follow_volume(volume_id, since, context, lambda it: it.status not in _BUSY)
        if free is None:
            return

    async def landed(_: object) -> str | None:
        volume = await _find_volume(volume_id, context)
        return "" if volume is None or volume.status in _DELETING_VOLUME else None

    try:
        accepted = await _accepted(
            effect, lambda: cinder.delete_volume(context.project, volume_id), landed, context
        )
    except CloudRefusal:
        # Nova, which deletes some disks itself, may have been quicker.
        found = await _find_volume(volume_id, context)
        if found is not None and found.status not in _DELETING_VOLUME:
            raise
        accepted = found is not None
    if accepted:
        last = await _follow_volume(
            volume_id, effect, context, lambda it: it.status == "error_deleting"
        )
        if last is not None:
            raise failed("delete_failed", f"volume {volume_id} is {last.status}")


async def delete_port(port_id: str, context: ProjectContext) -> None:
    """Delete a port. It is gone when Neutron has answered."""

    async def landed(_: object) -> str | None:
        return None  # deleted again, a port that is gone is answered 404

    await _accepted(
        f"delete:{port_id}", lambda: neutron.delete_port(context.project, port_id), landed, context
    )


async def _accepted(
    effect: str, call: Callable[[], Awaitable[Reply]], landed: Landed, context: ProjectContext
) -> bool:
    """Call once; False where the resource is gone already."""
    try:
        await context.effects.once(effect, call, landed, None)
    except NotFound:
        return False
    return True


async def _follow_server(
    server_id: str,
    effect: str,
    context: ProjectContext,
    progress: OrderProgress,
    gone: frozenset[str] = GONE,
) -> bool:
    """Wait until a server is gone; False where the cloud keeps it. Raises `Refused` where it ends
    in ERROR or the time limit passes.

    A server without a task may still be on its way: Nova confirms a resize before it deletes, and
    then has no task for a moment.
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
            if server.status == ERROR and server.task_state not in _DELETING_SERVER:
                fault = (await with_fault(server, context)).fault
                raise failed("delete_failed", f"server {server_id} is {server.status}: {fault}")
            await progress.publish_server(server)


async def _follow_volume(
    volume_id: str, effect: str, context: ProjectContext, ended: Callable[[Volume], bool]
) -> Volume | None:
    """Wait until a volume is as `ended` says, and return it; None where it is gone."""
    volume = await _find_volume(volume_id, context)
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


async def _find_volume(volume_id: str, context: ProjectContext) -> Volume | None:
    try:
        return await context.retrying(lambda: cinder.get_volume(context.project, volume_id))
    except NotFound:
        return None

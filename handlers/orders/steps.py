"""What steps of orders are made of: done once, followed to the end. A step that fails for good
raises `Refused`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from handlers.context import ProjectContext
from handlers.effects.backoff import Deadline
from handlers.effects.once import EffectName, Landed, Marked
from handlers.openstack import nova
from handlers.openstack.cinder import Volume
from handlers.openstack.errors import CloudRefusal, Conflict, NotFound
from handlers.openstack.nova import ERROR, METADATA_STATES, InstanceAction, Server
from handlers.openstack.sessions import Reply
from handlers.openstack.watch import Poller, Watched
from handlers.orders.progress import OrderProgress
from handlers.orders.step import failed
from messages.errors import Transient

W = TypeVar("W", bound=Watched)

#: Seconds by which the action log and the fault may lag behind the server, and between two looks at
#: them.
_LOG_LATE, _LOG_EVERY = 5.0, 0.2


async def once(
    context: ProjectContext,
    effect: EffectName,
    do: Callable[[], Awaitable[Reply]],
    landed: Landed,
    marker: str | None,
    *,
    marked: Marked | None = None,
) -> None:
    """Do it at most once; what the cloud refuses is the step's failure."""
    try:
        await context.effects.once(effect, do, landed, marker, marked=marked)
    except CloudRefusal as error:
        raise error.as_failure() from error


def logged(context: ProjectContext, server_id: str, action: str) -> Landed:
    """Whether Nova's action log has an action of this kind since the marker."""

    async def landed(since: str) -> str | None:
        return await nova.find_action(context.project, server_id, action, since)

    return landed


async def logged_action(
    server_id: str, request_id: str | None, context: ProjectContext, *, until_ended: bool
) -> InstanceAction | None:
    """The entry of Nova's action log; it may be closed only a moment after the server is no longer
    busy.
    """
    if request_id is None:
        return None
    limit = Deadline.after(_LOG_LATE)
    while True:
        action = await context.retrying(
            lambda: nova.get_action(context.project, server_id, request_id)
        )
        if action.failed or action.finished or limit.passed or not until_ended:
            return action
        await asyncio.sleep(_LOG_EVERY)


async def follow_server(
    server_id: str,
    effect: EffectName,
    context: ProjectContext,
    progress: OrderProgress,
    ended: Callable[[Server], bool],
) -> Server:
    """The server once something holds of it; what it does until then is told."""
    with context.watchers.servers.follow(server_id) as feed:
        while True:
            server = await _news(feed, effect, "the server", context)
            await progress.publish_server(server)
            if ended(server):
                return server


async def with_fault(server: Server, context: ProjectContext) -> Server:
    """A server once Nova has written why it is in ERROR, which it does only after it says so;
    seconds at most.
    """
    limit, server_id = Deadline.after(_LOG_LATE), server.id
    while server.status == ERROR and server.fault is None and not limit.passed:
        await asyncio.sleep(_LOG_EVERY)
        try:
            server = await context.retrying(lambda: nova.get_server(context.project, server_id))
        except NotFound:
            break
    return server


async def follow_volume(
    volume_id: str, effect: EffectName, context: ProjectContext, ended: Callable[[Volume], bool]
) -> Volume:
    """The volume once something holds of it."""
    with context.watchers.volumes.follow(volume_id) as feed:
        while not ended(volume := await _news(feed, effect, "the volume", context)):
            pass
        return volume


async def _news(feed: Poller[W], effect: EffectName, what: str, context: ProjectContext) -> W:
    """What the feed says next; a step that hears nothing in time, or whose thing goes away, has
    failed.
    """
    try:
        return await context.next(feed, effect)
    except TimeoutError:
        raise failed("timeout", f"{effect} has not ended in time") from None
    except NotFound:
        raise failed("not_found", f"{what} is gone") from None


async def server_now(server_id: str, context: ProjectContext) -> Server:
    """The server as it is."""
    try:
        return await context.retrying(lambda: nova.get_server(context.project, server_id))
    except NotFound:
        raise failed("not_found", "the server is gone") from None


async def write_fee_data(
    server_id: str,
    metadata: Mapping[str, str],
    context: ProjectContext,
    *,
    marked: Marked | None = None,
) -> None:
    """Note what the server is now paid by."""

    async def landed(_: object) -> str | None:
        server = await nova.get_server(context.project, server_id)
        return "" if metadata.items() <= server.metadata.items() else None

    await change_metadata(
        server_id,
        f"metadata:{server_id}",
        lambda: nova.set_metadata(context.project, server_id, metadata),
        landed,
        context,
        marked=marked,
    )


async def change_metadata(
    server_id: str,
    effect: EffectName,
    do: Callable[[], Awaitable[Reply]],
    landed: Landed,
    context: ProjectContext,
    *,
    marked: Marked | None = None,
) -> None:
    """Change a server's metadata once; see `metadata_refused`."""
    try:
        await context.effects.once(effect, do, landed, None, marked=marked)
    except CloudRefusal as error:
        await metadata_refused(server_id, context)(error)


def metadata_refused(
    server_id: str, context: ProjectContext
) -> Callable[[CloudRefusal], Awaitable[None]]:
    """Return the `Step.refused` of a change of metadata.

    Nova allows it while nothing is under way: raises `Transient` where something was, and `Refused`
    otherwise.
    """

    async def refused(error: CloudRefusal) -> None:
        if isinstance(error, Conflict):
            server = await server_now(server_id, context)
            if server.busy or (server.status in METADATA_STATES and not server.locked):
                raise Transient("busy", detail=str(error)) from error
        raise error.as_failure() from error

    return refused


async def declare(
    server_id: str, effect: EffectName, context: ProjectContext, *, well: bool
) -> None:
    """Have the admin cloud declare a server well that is in ERROR, or put it back there."""
    admin = await context.cloud.admin()

    async def landed(_: object) -> str | None:
        server = await nova.get_server(context.project, server_id)
        return "" if (server.status != ERROR) is well else None

    await once(
        context,
        effect,
        do=lambda: nova.reset_state(admin, server_id, well=well),
        landed=landed,
        marker=None,
    )

"""The steps of a changeConfigure order on one server. Each may be run again and does nothing twice.

A step that fails for good raises `Refused` with FAILED and a reason.
"""

import asyncio
from collections.abc import Awaitable, Callable

from handlers import compute, volumes
from handlers.cloud import Reply
from handlers.compute import AT_REST, InstanceAction, Server
from handlers.context import Context
from handlers.deadlines import Deadline
from handlers.effects import Landed
from handlers.errors import CloudRefusal, NotFound
from handlers.orders.course import Course
from handlers.orders.plan import Change, Growth
from handlers.orders.undertaking import failed
from handlers.volumes import Volume
from messages.errors import Refused

_SECOND = 19
#: Events of Nova's action log in which a host is looked for.
_SCHEDULING = frozenset({"cold_migrate", "conductor_migrate_server"})
#: Seconds by which the action log may lag behind the server, and between two looks at it.
_LOG_LATE, _LOG_EVERY = 5.0, 0.2
_VERIFY = "VERIFY_RESIZE"


async def resize(change: Change, context: Context, course: Course) -> None:
    """Bring the server to its new flavor, to be confirmed or reverted."""
    if change.flavor_id is None:
        return
    effect = f"resize:{change.server_id}"
    flavor_id = change.flavor_id
    await _once(
        context, effect,
        do=lambda: compute.resize(context.project, change.server_id, flavor_id),
        landed=_logged(context, change.server_id, "resize"), marker=change.updated,
    )  # fmt: skip
    if context.effects.begun(f"confirm:{change.server_id}") or context.effects.begun(f"revert:{change.server_id}"):
        return
    server = await _follow(change.server_id, effect, context, course, lambda server: not server.busy)
    await _verify(server, change, effect, context)


async def _verify(server: Server, change: Change, effect: str, context: Context) -> None:
    """A status proves nothing: a resize that found no host is ACTIVE, too. Flavor and action log do."""
    right = server.flavor_name == change.flavor_after and server.status in (_VERIFY, *AT_REST)
    action = await _logged_action(server.id, context.effects.request_id(effect), context, until_ended=not right)
    if action is not None and action.failed:
        raise failed("no_host" if action.detail in _SCHEDULING else "resize_failed", f"event {action.detail} failed")
    if not right:
        raise failed("resize_failed", f"the server is {server.status} with flavor {server.flavor_name}")


async def _logged_action(
    server_id: str, request_id: str | None, context: Context, *, until_ended: bool
) -> InstanceAction | None:
    """The entry of Nova's action log; it may be closed only a moment after the server is no longer busy."""
    if request_id is None:
        return None
    limit = Deadline.after(_LOG_LATE)
    while True:
        action = await context.patiently(lambda: compute.get_action(context.project, server_id, request_id))
        if action.failed or action.finished or limit.passed or not until_ended:
            return action
        await asyncio.sleep(_LOG_EVERY)


async def extend(growth: Growth, context: Context) -> None:
    """Grow one volume."""
    effect = f"extend:{growth.volume_id}"

    async def landed(_: object) -> str | None:
        volume = await volumes.get_volume(context.project, growth.volume_id)
        grown_or_trying = volume.size >= growth.after or volume.status in ("extending", "error_extending")
        return "" if grown_or_trying else None

    await _once(
        context, effect,
        do=lambda: volumes.extend(context.project, growth.volume_id, growth.after), landed=landed, marker=None,
    )  # fmt: skip
    volume = await _follow_volume(growth, effect, context)
    if volume.size < growth.after:
        raise failed("extend_failed", f"volume {growth.volume_id} is {volume.status}")


async def confirm(change: Change, context: Context, course: Course) -> None:
    """Keep the new flavor; there is no way back from here."""
    if not change.resizes:
        return
    effect = f"confirm:{change.server_id}"
    server = await _get(change.server_id, context)
    if server.status in AT_REST and server.flavor_name == change.flavor_after and not context.effects.begun(effect):
        return  # the cloud confirms by itself
    try:
        await _once(
            context, effect,
            do=lambda: compute.confirm_resize(context.project, change.server_id),
            landed=_logged(context, change.server_id, "confirmResize"), marker=server.updated,
        )  # fmt: skip
    except Refused:
        # The cloud's own confirmation may have been quicker.
        server = await _get(change.server_id, context)
        if server.status not in AT_REST or server.flavor_name != change.flavor_after:
            raise
    # Nova confirms without setting a task: only the status tells when it has.
    done = await _follow(
        change.server_id, effect, context, course, lambda server: not server.busy and server.status != _VERIFY
    )
    if done.status not in AT_REST or done.flavor_name != change.flavor_after:
        raise failed("confirm_failed", f"the server is {done.status} with flavor {done.flavor_name}")


async def revert(change: Change, context: Context, course: Course) -> None:
    """Go back to the old flavor, where the resize has come as far as to be confirmed."""
    effect = f"revert:{change.server_id}"
    server = await _get(change.server_id, context)
    if server.status == _VERIFY or context.effects.begun(effect):
        await _once(
            context, effect,
            do=lambda: compute.revert_resize(context.project, change.server_id),
            landed=_logged(context, change.server_id, "revertResize"), marker=server.updated,
        )  # fmt: skip
        await _follow(
            change.server_id, effect, context, course, lambda server: not server.busy and server.status != _VERIFY
        )


async def rescue(server: Server, context: Context) -> Server:
    """A server that a failed resize left in ERROR is declared well, where there is an admin cloud to do it."""
    if server.status != "ERROR" or not context.cloud.has_admin:
        return server
    admin = await context.cloud.admin()
    await _once(
        context, f"reset:{server.id}",
        do=lambda: compute.reset_state(admin, server.id), landed=_is_not_in_error(context, server.id), marker=None,
    )  # fmt: skip
    return await _get(server.id, context)


async def rescue_volume(growth: Growth, context: Context) -> None:
    """A volume that a failed extension left in error_extending is declared to be as it was, by the admin cloud."""
    volume = await context.patiently(lambda: volumes.get_volume(context.project, growth.volume_id))
    if volume.status != "error_extending" or not context.cloud.has_admin:
        return
    admin = await context.cloud.admin()

    async def landed(_: object) -> str | None:
        found = await volumes.get_volume(context.project, growth.volume_id)
        return None if found.status == "error_extending" else ""

    await _once(
        context, f"reset:{growth.volume_id}",
        do=lambda: volumes.reset_status(admin, growth.volume_id, growth.status), landed=landed, marker=None,
    )  # fmt: skip


async def write_fee_data(change: Change, metadata: dict[str, str], context: Context) -> None:
    """Note what the server is now paid by."""

    async def landed(_: object) -> str | None:
        server = await compute.get_server(context.project, change.server_id)
        return "" if metadata.items() <= server.metadata.items() else None

    await _once(
        context, f"metadata:{change.server_id}",
        do=lambda: compute.set_metadata(context.project, change.server_id, metadata), landed=landed, marker=None,
    )  # fmt: skip


async def _once(
    context: Context, effect: str, do: Callable[[], Awaitable[Reply]], landed: Landed, marker: str | None
) -> None:
    try:
        await context.effects.once(effect, do, landed, marker)
    except CloudRefusal as error:
        raise error.as_failure() from error


def _logged(context: Context, server_id: str, action: str) -> Landed:
    """Whether Nova's action log has an action of this kind since the marker."""

    async def landed(since: str) -> str | None:
        for logged in await compute.list_actions(context.project, server_id):
            if logged.action == action and logged.start_time[:_SECOND] >= since[:_SECOND]:
                return logged.request_id
        return None

    return landed


def _is_not_in_error(context: Context, server_id: str) -> Landed:
    async def landed(_: object) -> str | None:
        return None if (await compute.get_server(context.project, server_id)).status == "ERROR" else ""

    return landed


async def _follow(
    server_id: str, effect: str, context: Context, course: Course, ended: Callable[[Server], bool]
) -> Server:
    with context.watches.servers.follow(server_id) as feed:
        while True:
            try:
                server = await context.next(feed, effect)
            except TimeoutError:
                raise failed("timeout", f"{effect} has not ended in time") from None
            except NotFound:
                raise failed("not_found", "the server is gone") from None
            await course.tell_server(server)
            if ended(server):
                return server


async def _follow_volume(growth: Growth, effect: str, context: Context) -> Volume:
    with context.watches.volumes.follow(growth.volume_id) as feed:
        while True:
            try:
                volume = await context.next(feed, effect)
            except TimeoutError:
                raise failed("timeout", f"{effect} has not ended in time") from None
            except NotFound:
                raise failed("not_found", "the volume is gone") from None
            if volume.status != "extending":
                return volume


async def _get(server_id: str, context: Context) -> Server:
    try:
        return await context.patiently(lambda: compute.get_server(context.project, server_id))
    except NotFound:
        raise failed("not_found", "the server is gone") from None

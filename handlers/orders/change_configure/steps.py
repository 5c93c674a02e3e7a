"""The steps of a changeConfigure order on one server. Each may be run again and does nothing twice.

A step that fails for good raises `Refused` with FAILED and a reason.
"""

from http import HTTPStatus

from handlers.context import ProjectContext
from handlers.openstack import cinder, nova
from handlers.openstack.errors import CloudRefusal
from handlers.openstack.nova import AT_REST, ERROR, VERIFY_RESIZE, Server
from handlers.orders.change_configure.plan import Change, Growth, has_flavor
from handlers.orders.limits import busy_with
from handlers.orders.progress import OrderProgress
from handlers.orders.step import failed
from handlers.orders.steps import (
    declare,
    follow_server,
    follow_volume,
    logged,
    logged_action,
    once,
    server_now,
)
from messages.errors import Refused

#: Events of Nova's action log in which a host is looked for.
_SCHEDULING = frozenset({"cold_migrate", "conductor_migrate_server"})


async def resize(
    change: Change, context: ProjectContext, progress: OrderProgress, *, looks: bool
) -> None:
    """Bring the server to its new flavor, to be confirmed or reverted.

    `looks`: the planning was another run's, and it is to be found out afresh whether it was done.
    """
    if change.flavor_id is None:
        return
    effect = f"resize:{change.server_id}"
    flavor_id, landed = change.flavor_id, logged(context, change.server_id, "resize")

    async def marked() -> str | None:
        if change.found_resize is not None or not looks:
            return change.found_resize
        return await landed(change.updated)

    await once(
        context,
        effect,
        do=lambda: nova.resize(context.project, change.server_id, flavor_id),
        landed=landed,
        marker=change.updated,
        marked=marked,
    )
    if context.effects.begun(f"confirm:{change.server_id}") or context.effects.begun(
        f"revert:{change.server_id}"
    ):
        return
    server = await follow_server(
        change.server_id, effect, context, progress, lambda server: not server.busy
    )
    await _verify(server, change, effect, context)


async def _verify(server: Server, change: Change, effect: str, context: ProjectContext) -> None:
    """A status proves nothing: a resize that found no host is ACTIVE, too. Flavor and action log
    do.
    """
    right = has_flavor(server, change.flavor_after) and server.status in (VERIFY_RESIZE, *AT_REST)
    action = await logged_action(
        server.id, context.effects.request_id(effect), context, until_ended=not right
    )
    if action is not None and action.failed:
        raise failed(
            "no_host" if action.detail in _SCHEDULING else "resize_failed",
            f"event {action.detail} failed",
        )
    if not right:
        raise failed(
            "resize_failed", f"the server is {server.status} with flavor {server.flavor_name}"
        )


async def extend(growth: Growth, context: ProjectContext, *, looks: bool) -> None:
    """Grow one volume; `looks` as in `resize`."""
    effect = f"extend:{growth.volume_id}"

    async def landed(_: object) -> str | None:
        volume = await cinder.get_volume(context.project, growth.volume_id)
        grown_or_trying = volume.size >= growth.after or volume.status in (
            "extending",
            "error_extending",
        )
        return "" if grown_or_trying else None

    async def marked() -> str | None:
        return await landed(None)

    try:
        await context.effects.once(
            effect,
            lambda: cinder.extend(context.project, growth.volume_id, growth.after),
            landed,
            None,
            marked=marked if looks else None,
        )
    except CloudRefusal as error:
        if error.status != HTTPStatus.BAD_REQUEST:
            raise error.as_failure() from error
        # Something may have begun with it since it was looked at: that passes, and needs no revert.
        volume = await context.retrying(
            lambda: cinder.get_volume(context.project, growth.volume_id)
        )
        raise busy_with(volume) if volume.busy else error.as_failure() from error
    volume = await follow_volume(
        growth.volume_id, effect, context, lambda volume: volume.status != "extending"
    )
    if volume.size < growth.after:
        raise failed("extend_failed", f"volume {growth.volume_id} is {volume.status}")


async def confirm(change: Change, context: ProjectContext, progress: OrderProgress) -> None:
    """Keep the new flavor; there is no way back from here."""
    if not change.resizes:
        return
    effect = f"confirm:{change.server_id}"
    server = await server_now(change.server_id, context)
    if (
        server.status in AT_REST
        and has_flavor(server, change.flavor_after)
        and not context.effects.begun(effect)
    ):
        return  # the cloud confirms by itself
    try:
        await once(
            context,
            effect,
            do=lambda: nova.confirm_resize(context.project, change.server_id),
            landed=logged(context, change.server_id, "confirmResize"),
            marker=server.updated,
        )
    except Refused:
        # The cloud's own confirmation may have been quicker.
        server = await server_now(change.server_id, context)
        if server.status not in AT_REST or not has_flavor(server, change.flavor_after):
            raise
    # Nova confirms without setting a task: only the status tells when it has.
    done = await follow_server(
        change.server_id,
        effect,
        context,
        progress,
        lambda server: not server.busy and server.status != VERIFY_RESIZE,
    )
    if done.status not in AT_REST or not has_flavor(done, change.flavor_after):
        raise failed(
            "confirm_failed", f"the server is {done.status} with flavor {done.flavor_name}"
        )


async def revert(change: Change, context: ProjectContext, progress: OrderProgress) -> None:
    """Go back to the old flavor, where the resize has come as far as to be confirmed."""
    effect = f"revert:{change.server_id}"
    server = await server_now(change.server_id, context)
    if server.status == VERIFY_RESIZE or context.effects.begun(effect):
        await once(
            context,
            effect,
            do=lambda: nova.revert_resize(context.project, change.server_id),
            landed=logged(context, change.server_id, "revertResize"),
            marker=server.updated,
        )
        await follow_server(
            change.server_id,
            effect,
            context,
            progress,
            lambda server: not server.busy and server.status != VERIFY_RESIZE,
        )


async def rescue(server: Server, context: ProjectContext) -> Server:
    """A server that a failed resize left in ERROR is declared well, where there is an admin cloud
    to do it.
    """
    if server.status != ERROR or not context.cloud.has_admin:
        return server
    await declare(server.id, f"reset:{server.id}", context, well=True)
    return await server_now(server.id, context)


async def rescue_volume(growth: Growth, context: ProjectContext) -> None:
    """A volume that a failed extension left in error_extending is declared to be as it was, by the
    admin cloud.
    """
    volume = await context.retrying(lambda: cinder.get_volume(context.project, growth.volume_id))
    if volume.status != "error_extending" or not context.cloud.has_admin:
        return
    admin = await context.cloud.admin()

    async def landed(_: object) -> str | None:
        found = await cinder.get_volume(context.project, growth.volume_id)
        return None if found.status == "error_extending" else ""

    await once(
        context,
        f"reset:{growth.volume_id}",
        do=lambda: cinder.reset_status(admin, growth.volume_id, growth.status),
        landed=landed,
        marker=None,
    )

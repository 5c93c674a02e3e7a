"""The steps of a changeConfigure order on one server; each may be done again and acts only once."""

from dataclasses import replace
from http import HTTPStatus

from handlers.context import ProjectContext
from handlers.effects.ledger import EffectId, EffectKind
from handlers.openstack import cinder, nova
from handlers.openstack.errors import CloudRefusal
from handlers.openstack.nova import AT_REST, ERROR, VERIFY_RESIZE, Server
from handlers.openstack.sessions import Reply
from handlers.orders.change_configure.plan import Change, Growth, find_own_resize, has_flavor
from handlers.orders.limits import busy_with
from handlers.orders.progress import OrderProgress
from handlers.orders.step import (
    Ready,
    Step,
    failed,
    follow_server,
    follow_volume,
    logged,
    logged_action,
    server_now,
    state_step,
)
from messages.updates import OrderStatus

#: Events of Nova's action log in which a host is looked for.
_SCHEDULING = frozenset({"cold_migrate", "conductor_migrate_server"})
#: A flavor that has its name from another.
_FLAVOR = "{} ({} vCPU, {} MiB, {} GiB)"


def resize_step(
    change: Change, context: ProjectContext, progress: OrderProgress, *, resumed: bool
) -> Step:
    """Bring the server to its new flavor, to be confirmed or reverted.

    `resumed`: the plan is another run's, and the call is looked for before its first intent.
    """
    server_id, flavor_id, effects = change.server_id, change.flavor_id, context.effects
    effect = EffectId(EffectKind.RESIZE, server_id)
    confirm = EffectId(EffectKind.CONFIRM, server_id)
    assert flavor_id is not None

    async def landed(since: str) -> str | None:
        # Somebody else's resize must be neither confirmed nor reverted.
        return await find_own_resize(server_id, context, since)

    async def marked() -> str | None:
        if change.found_resize is not None or not resumed:
            return change.found_resize
        return await landed(change.updated)

    async def prepare() -> Ready:
        return Ready(change.updated)

    async def follow() -> None:
        if effects.begun(confirm) or effects.begun(revert.effect):
            return
        server = await follow_server(server_id, effect, context, progress, lambda one: not one.busy)
        await _verify(server, change, effect, context)

    revert = _revert_step(change, context, progress)
    return Step(
        name="resize",
        effect=effect,
        instance_id=server_id,
        before=_flavors(change)[0],
        after=_flavors(change)[1],
        prepare=prepare,
        act=lambda: nova.resize(context.project, server_id, flavor_id),
        landed=landed,
        marked=marked,
        follow=follow,
        undo=(revert, _reset_step(change, context)),
        status=OrderStatus.RESIZING,
    )


async def _verify(
    server: Server, change: Change, effect: EffectId, context: ProjectContext
) -> None:
    """Check flavor and action log; a status proves nothing: a resize that found no host is ACTIVE,
    too.
    """
    right = has_flavor(server, change.flavor_after) and server.status in (VERIFY_RESIZE, *AT_REST)
    action = await logged_action(
        server.id, context.effects.request_id(effect), context, until_ended=not right
    )
    if action is not None and action.failed:
        reason = "no_host" if action.detail in _SCHEDULING else "resize_failed"
        raise failed(reason, f"event {action.detail} failed")
    if not right:
        raise failed("resize_failed", _state_of(server))


def _revert_step(change: Change, context: ProjectContext, progress: OrderProgress) -> Step:
    """Go back to the old flavor, where the resize has come as far as to be confirmed."""
    server_id, effect = change.server_id, EffectId(EffectKind.REVERT, change.server_id)

    async def prepare() -> Ready | None:
        if context.effects.begun(EffectId(EffectKind.CONFIRM, change.server_id)):
            return None
        server = await server_now(server_id, context)
        return Ready(server.updated) if server.status == VERIFY_RESIZE else None

    async def follow() -> None:
        await follow_server(server_id, effect, context, progress, _is_decided)

    return Step(
        name="revert",
        effect=effect,
        instance_id=server_id,
        prepare=prepare,
        act=lambda: nova.revert_resize(context.project, server_id),
        landed=logged(context, server_id, "revertResize"),
        follow=follow,
    )


def _reset_step(change: Change, context: ProjectContext) -> Step:
    """Declare well a server that the resize left in ERROR, where there is an admin cloud."""

    async def prepare() -> Ready | None:
        server = await server_now(change.server_id, context)
        if server.status != ERROR or not context.cloud.has_admin:
            return None
        await context.cloud.admin()  # a log-in that fails must not leave an intent behind
        return Ready()

    reset = state_step("reset", EffectId(EffectKind.RESET, change.server_id), context, well=True)
    return replace(reset, prepare=prepare)


def extend_step(change: Change, growth: Growth, context: ProjectContext, *, resumed: bool) -> Step:
    """Grow one volume; `resumed` as in `resize_step`."""
    volume_id, effect = growth.volume_id, EffectId(EffectKind.EXTEND, growth.volume_id)

    async def landed(_: object) -> str | None:
        volume = await cinder.get_volume(context.project, volume_id)
        begun = volume.size >= growth.after or volume.status in ("extending", "error_extending")
        return "" if begun else None

    async def refused(error: CloudRefusal) -> None:
        if error.status == HTTPStatus.BAD_REQUEST:
            # Something may have begun with it since it was looked at: that passes, and needs no
            # revert.
            volume = await context.retrying(lambda: cinder.get_volume(context.project, volume_id))
            if volume.busy:
                raise busy_with(volume) from error
        raise error.as_failure() from error

    async def follow() -> None:
        volume = await follow_volume(
            volume_id, effect, context, lambda one: one.status != "extending"
        )
        if volume.size < growth.after:
            raise failed("extend_failed", f"volume {volume_id} is {volume.status}")

    return Step(
        name="extend",
        effect=effect,
        instance_id=change.server_id,
        target=volume_id,
        before=growth.before,
        after=growth.after,
        act=lambda: cinder.extend(context.project, volume_id, growth.after),
        landed=landed,
        marked=(lambda: landed(None)) if resumed else None,
        refused=refused,
        follow=follow,
        undo=(_reset_volume_step(change, growth, context),),
        can_be_undone=False,
        status=OrderStatus.EXTENDING,
    )


def _reset_volume_step(change: Change, growth: Growth, context: ProjectContext) -> Step:
    """Have the admin cloud declare a volume to be as it was that a failed extension left in
    error_extending.
    """
    volume_id = growth.volume_id

    async def prepare() -> Ready | None:
        volume = await context.retrying(lambda: cinder.get_volume(context.project, volume_id))
        if volume.status != "error_extending" or not context.cloud.has_admin:
            return None
        await context.cloud.admin()  # a log-in that fails must not leave an intent behind
        return Ready()

    async def act() -> Reply:
        return await cinder.reset_status(await context.cloud.admin(), volume_id, growth.status)

    async def landed(_: object) -> str | None:
        found = await cinder.get_volume(context.project, volume_id)
        return None if found.status == "error_extending" else ""

    return Step(
        name="reset",
        effect=EffectId(EffectKind.RESET, volume_id),
        instance_id=change.server_id,
        prepare=prepare,
        act=act,
        landed=landed,
    )


def confirm_step(change: Change, context: ProjectContext, progress: OrderProgress) -> Step:
    """Keep the new flavor; there is no way back from here."""
    server_id, effect = change.server_id, EffectId(EffectKind.CONFIRM, change.server_id)

    def is_confirmed(server: Server) -> bool:
        return server.status in AT_REST and has_flavor(server, change.flavor_after)

    async def prepare() -> Ready | None:
        server = await server_now(server_id, context)
        # The cloud may confirm by itself.
        return None if is_confirmed(server) else Ready(server.updated)

    async def refused(error: CloudRefusal) -> None:
        # The cloud's own confirmation may have been quicker.
        if not is_confirmed(await server_now(server_id, context)):
            raise error.as_failure() from error

    async def follow() -> None:
        # Nova confirms without setting a task: only the status tells when it has.
        done = await follow_server(server_id, effect, context, progress, _is_decided)
        if not is_confirmed(done):
            raise failed("confirm_failed", _state_of(done))

    return Step(
        name="confirm",
        effect=effect,
        instance_id=server_id,
        before=_flavors(change)[0],
        after=_flavors(change)[1],
        prepare=prepare,
        act=lambda: nova.confirm_resize(context.project, server_id),
        landed=logged(context, server_id, "confirmResize"),
        refused=refused,
        follow=follow,
        can_be_undone=False,
        status=OrderStatus.CONFIRMING,
    )


def _is_decided(server: Server) -> bool:
    """Tell whether a resize was confirmed or reverted."""
    return not server.busy and server.status != VERIFY_RESIZE


def _state_of(server: Server) -> str:
    return f"the server is {server.status} with flavor {server.flavor_name}"


def _flavors(change: Change) -> tuple[str, str]:
    """Name the flavors before and after; with what is in them, where they have one name."""
    flavors = change.flavor_before, change.flavor_after
    names = [one if isinstance(one, str) else one[0] for one in flavors]
    if names[0] != names[1]:
        return names[0], names[1]
    before, after = (one if isinstance(one, str) else _FLAVOR.format(*one) for one in flavors)
    return before, after

"""The marker that softDown leaves on a server that it has stopped.

By it a renewal knows that the server must be started again.
"""

from collections.abc import Awaitable, Callable, Mapping

from handlers.context import ProjectContext
from handlers.effects.ledger import EffectId, EffectKind
from handlers.openstack import nova
from handlers.openstack.nova import Server
from handlers.openstack.sessions import Reply
from handlers.orders.step import Step
from handlers.orders.steps import change_metadata, metadata_refused

#: The metadata item, and its value.
ITEM, STOPPED = "soft_down", "stopped"


def is_marked(server: Server) -> bool:
    """Tell whether softDown has stopped the server, and it has not been paid for since."""
    return server.metadata.get(ITEM) == STOPPED


def mark_step(
    server_id: str,
    context: ProjectContext,
    kind: EffectKind = EffectKind.MARK,
    order: Mapping[str, str] | None = None,
) -> Step:
    """Leave the marker; `order` is the metadata item that names the order which stopped the server."""
    items = {ITEM: STOPPED, **(order or {})}
    return _step(
        EffectId(kind, server_id),
        context,
        after=STOPPED,
        act=lambda: nova.set_metadata(context.project, server_id, items),
        # A marker of an order before this one is not enough: this one is known by its name.
        done=lambda server: items.items() <= server.metadata.items(),
    )


def unmark_step(server_id: str, context: ProjectContext) -> Step:
    """Take the marker away."""
    return _step(
        EffectId(EffectKind.UNMARK, server_id),
        context,
        after=None,
        act=lambda: nova.remove_metadata(context.project, server_id, ITEM),
        done=lambda server: not is_marked(server),
    )


def _step(
    effect: EffectId,
    context: ProjectContext,
    *,
    after: str | None,
    act: Callable[[], Awaitable[Reply]],
    done: Callable[[Server], bool],
) -> Step:
    async def landed(_: object = None) -> str | None:
        server = await nova.get_server(context.project, effect.target)
        return "" if done(server) else None

    return Step(
        name="mark" if after else "unmark",
        effect=effect,
        instance_id=effect.target,
        before=None if after else STOPPED,
        after=after,
        act=act,
        landed=landed,
        marked=landed,
        refused=metadata_refused(effect.target, context),
    )


async def mark(server_id: str, context: ProjectContext, kind: EffectKind) -> None:
    """Do `mark_step`."""
    await _do(mark_step(server_id, context, kind), context)


async def unmark(server_id: str, context: ProjectContext) -> None:
    """Do `unmark_step`."""
    await _do(unmark_step(server_id, context), context)


async def _do(step: Step, context: ProjectContext) -> None:
    effect, act = step.effect, step.act
    target = str(step.instance_id)
    await change_metadata(target, effect, act, step.landed, context, marked=step.marked)

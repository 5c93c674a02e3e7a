"""The marker that softDown leaves on a server that it has stopped.

By it a renewal knows that the server must be started again.
"""

from collections.abc import Mapping
from dataclasses import replace

from handlers.context import ProjectContext
from handlers.effects.ledger import EffectId, EffectKind
from handlers.openstack import nova
from handlers.openstack.nova import Server
from handlers.orders.step import Step, metadata_step

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
    """Leave the marker; `order` is the metadata item with the name of the order."""
    items = {ITEM: STOPPED, **(order or {})}
    step = metadata_step(
        "mark",
        EffectId(kind, server_id),
        context,
        write=lambda: nova.set_metadata(context.project, server_id, items),
        # A marker of an order before this one is not enough: this one is known by its name.
        written=lambda server: items.items() <= server.metadata.items(),
    )
    return replace(step, after=STOPPED, marked=lambda: step.landed(None))


def unmark_step(server_id: str, context: ProjectContext) -> Step:
    """Take the marker away."""
    step = metadata_step(
        "unmark",
        EffectId(EffectKind.UNMARK, server_id),
        context,
        write=lambda: nova.remove_metadata(context.project, server_id, ITEM),
        written=lambda server: not is_marked(server),
    )
    return replace(step, before=STOPPED, marked=lambda: step.landed(None))

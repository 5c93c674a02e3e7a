"""What is told last of a course that nobody follows any more: each of its resources must have its
one final update.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from handlers.context import ProjectContext
from handlers.effects.ledger import Effect, EffectId, EffectKind
from handlers.images.follow import publish_end as publish_image_end
from handlers.servers.follow import publish_end
from handlers.servers.targets import MADE_IMAGE, answered_accepted, answered_unknown, power_effect
from messages.commands import CreateImage, ImageBatchDelete, ImageDelete, PowerAction, PowerBatch
from messages.orders import Order
from messages.results import Result
from messages.updates import Update, image_update, server_update

#: Nova's own word for a state that it cannot tell.
_UNKNOWN = "UNKNOWN"


def ends_of(work: Any, answered: Result | None, effects: Mapping[EffectId, Effect]) -> list[Update]:
    """The ends of what may have been told of; none for what was refused. An order's own end is not
    among them.
    """
    if isinstance(work, Order):
        touched = {name.target for name, effect in effects.items() if not effect.is_memory}
        named = [one for one in work.instance_ids if one in touched]
        return [
            replace(_server(one, None), tenant_id=_owner(one, effects))
            for one in (*named, *_made(effects))
        ]
    return _ends_of_command(work, answered, effects) if answered is not None else []


async def tell_ends(work: Any, answered: Result, context: ProjectContext) -> None:
    """Tell in what state each thing ends of which it was answered that it is not known what became
    of it.

    `Transient` where the cloud does not say.
    """
    match work:
        case PowerAction() if answered_unknown(answered):
            await publish_end(
                context, work.server_id, work.power.value, power_effect(work.power, work.server_id)
            )
        case PowerBatch():
            for one in work.server_ids:
                if answered_unknown(answered, one):
                    await publish_end(context, one, work.power.value, power_effect(work.power, one))
        case ImageDelete() if answered_unknown(answered):
            await publish_image_end(work.image_id, context)
        case ImageBatchDelete():
            for one in work.image_ids:
                if answered_unknown(answered, one):
                    await publish_image_end(one, context)


def _owner(server_id: str, effects: Mapping[EffectId, Effect]) -> str | None:
    """The project in which a softDown found a server; None for an order that has a project of its
    own.
    """
    found = effects.get(EffectId(EffectKind.PROJECT, server_id))
    return str(found.outcome["value"]) if found is not None and found.outcome is not None else None


def _made(effects: Mapping[EffectId, Effect]) -> list[str]:
    """The servers that a `new` order has made."""
    return [
        str(one.value)
        for name, one in effects.items()
        if name.kind is EffectKind.ID and EffectId.parse(name.target).kind is EffectKind.CREATE
    ]


def _ends_of_command(
    work: Any, answered: Result, effects: Mapping[EffectId, Effect]
) -> list[Update]:
    owes = answered.succeeded or answered_unknown(answered)
    match work:
        case PowerAction() if owes:
            return [_server(work.server_id, work.power.value)]
        case PowerBatch():
            return [
                _server(one, work.power.value)
                for one in _owed(work.server_ids, answered, "servers")
            ]
        case CreateImage() if (
            made := effects.get(MADE_IMAGE)
        ) is not None and made.outcome is not None:
            return [image_update(made.outcome["value"], "createImage", "queued", final=True)]
        case ImageDelete() if owes:
            return [_image(work.image_id)]
        case ImageBatchDelete():
            return [_image(one) for one in _owed(work.image_ids, answered, "images")]
        case _:
            return []


def _server(server_id: str, action: str | None) -> Update:
    return server_update(server_id, action, _UNKNOWN, None, final=True)


def _image(image_id: str) -> Update:
    return image_update(image_id, None, "pending_delete", final=True)


def _owed(target_ids: Iterable[str], answered: Result, kind: str) -> list[str]:
    """The targets of which something was told, or may have been done."""
    accepted = answered_accepted(answered, kind)
    return [one for one in target_ids if one in accepted or answered_unknown(answered, one)]

"""Final status updates of a request that was abandoned; each of its resources gets exactly one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from handlers.context import ProjectContext
from handlers.effects.ledger import Effect, EffectId, EffectKind
from handlers.images.follow import publish_end as publish_image_end
from handlers.servers.power import publish_end
from handlers.servers.targets import MADE_IMAGE, answered_accepted, answered_unknown, power_effect
from messages.commands import CreateImage, PowerAction, PowerBatch
from messages.operations import Finals, Resource, spec_of
from messages.orders import Order
from messages.results import Result
from messages.updates import Update, image_update, server_update

#: Nova's own word for a state that it cannot tell.
_UNKNOWN = "UNKNOWN"


def ends_of(work: Any, answered: Result | None, effects: Mapping[EffectId, Effect]) -> list[Update]:
    """Return the final updates of the resources that may have had updates; none for what was
    refused. An order's own final update is not among them.
    """
    if isinstance(work, Order):
        return _ends_of_order(work, effects)
    if answered is None:
        return []
    if isinstance(work, CreateImage):
        made = effects.get(MADE_IMAGE)
        if made is None or made.outcome is None:
            return []
        return [image_update(made.value, "createImage", "queued", final=True)]
    return [_end(one) for one in _owed(work, answered)]


async def publish_ends(work: Any, answered: Result, context: ProjectContext) -> None:
    """Publish the state of each resource of which the answer says that its outcome is not known.

    Raises `Transient` where the cloud does not say.
    """
    spec = spec_of(work)
    for one in spec.resources(work):
        target = one.id if spec.finals is Finals.EACH else None
        if not answered_unknown(answered, target):
            continue
        if isinstance(work, (PowerAction, PowerBatch)):
            effect = power_effect(work.power, one.id)
            await publish_end(context, one.id, work.power.value, effect)
        elif one.kind == "image":
            await publish_image_end(one.id, context)


def _ends_of_order(order: Order, effects: Mapping[EffectId, Effect]) -> list[Update]:
    touched = {name.target for name, effect in effects.items() if not effect.is_memory}
    named = [one.id for one in spec_of(order).resources(order) if one.id in touched]
    made = [
        str(one.value)
        for name, one in effects.items()
        if name.kind is EffectKind.ID and EffectId.parse(name.target).kind is EffectKind.CREATE
    ]
    found = []
    for server_id in (*named, *made):
        # The project in which a softDown found the server; other orders have a project of their
        # own.
        owner = effects.get(EffectId(EffectKind.PROJECT, server_id))
        known = owner is not None and owner.outcome is not None
        tenant_id = str(owner.value) if owner is not None and known else None
        found.append(replace(_end(Resource("server", server_id, None)), tenant_id=tenant_id))
    return found


def _owed(work: Any, answered: Result) -> list[Resource]:
    """Return the resources that had an update, or to which something may have been done."""
    spec = spec_of(work)
    resources = list(spec.resources(work))
    if spec.finals is not Finals.EACH:
        return resources if answered.succeeded or answered_unknown(answered) else []
    accepted = {id_ for kind in ("servers", "images") for id_ in answered_accepted(answered, kind)}
    return [one for one in resources if one.id in accepted or answered_unknown(answered, one.id)]


def _end(resource: Resource) -> Update:
    if resource.kind == "image":
        return image_update(resource.id, resource.action, "pending_delete", final=True)
    return server_update(resource.id, resource.action, _UNKNOWN, None, final=True)

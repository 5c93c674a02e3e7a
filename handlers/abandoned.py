"""What is told last of a course that nobody follows any more: each of its resources must have its one final update."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from handlers.effects import Effect
from handlers.orders.making import create_effect, id_of
from messages.codes import Code
from messages.commands import PowerAction, PowerBatch
from messages.images import CreateImage, DeleteImage, DeleteImages
from messages.orders import Order
from messages.results import Result
from messages.status import Update, image_update, server_update

#: Nova's own word for a state that it cannot tell.
_UNKNOWN = "UNKNOWN"


def ends_of(work: Any, answered: Result | None, effects: Mapping[str, Effect]) -> list[Update]:
    """The ends of what may have been told of; none for what was refused. An order's own end is not among them."""
    if isinstance(work, Order):
        touched = {name.partition(":")[2] for name, effect in effects.items() if not effect.is_memory}
        named = [one for one in work.instance_ids if one in touched]
        return [replace(_server(one, None), tenant_id=_owner(one, effects)) for one in (*named, *_made(effects))]
    return _ends_of_command(work, answered.data) if answered is not None and answered.succeeded else []


def _owner(server_id: str, effects: Mapping[str, Effect]) -> str | None:
    """The project in which a softDown found a server; None for an order that has a project of its own."""
    found = effects.get(f"project:{server_id}")
    return str(found.outcome["value"]) if found is not None and found.outcome is not None else None


def _made(effects: Mapping[str, Effect]) -> list[str]:
    """The servers that a `new` order has made."""
    prefix = id_of(create_effect(""))
    return [str(one.outcome["value"]) for name, one in effects.items() if name.startswith(prefix) and one.outcome]


def _ends_of_command(work: Any, data: Any) -> list[Update]:
    match work:
        case PowerAction():
            return [_server(work.server_id, work.power.value)]
        case PowerBatch():
            return [_server(one, work.power.value) for one in _succeeded(data["servers"])]
        case CreateImage():
            return [image_update(data["image_id"], "createImage", "queued", final=True)]
        case DeleteImage():
            return [image_update(work.image_id, None, "pending_delete", final=True)]
        case DeleteImages():
            return [image_update(one, None, "pending_delete", final=True) for one in _succeeded(data["images"])]
        case _:
            return []


def _server(server_id: str, action: str | None) -> Update:
    return server_update(server_id, action, _UNKNOWN, None, final=True)


def _succeeded(listed: list[dict[str, Any]]) -> list[str]:
    return [one["id"] for one in listed if one["code"] == Code.OK.wire]

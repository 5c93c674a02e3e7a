"""createImage: what Nova and Glance do together."""

from datetime import UTC, datetime
from typing import Any

from sandbox.openstack.state import Action, Image, Server, World, new_id
from sandbox.openstack.wire import ApiError, Caller

_STATES = ("active", "stopped", "paused", "suspended")


def begin_snapshot(world: World, server: Server, wanted: dict[str, Any], who: Caller, request_id: str) -> str:
    """The id of the image, which Glance knows of from now on."""
    if server.vm_state not in _STATES or server.task_state is not None:
        state = f"task_state {server.task_state}" if server.task_state else f"vm_state {server.vm_state}"
        raise ApiError(409, f"Cannot 'createImage' instance {server.id} while it is in {state}")
    base = server.image or next((one.image for one in server.volumes if one.bootable), None)
    properties = {
        **(base.properties if base else {}), "base_image_ref": base.id if base else "", "instance_uuid": server.id,
        "user_id": who.user.id, "image_type": "snapshot", **(wanted.get("metadata") or {}),
    }  # fmt: skip
    image = Image(
        new_id(), wanted["name"], server.project.id, datetime.now(UTC), properties, status="queued",
        visibility="private", size=65536, min_disk=server.flavor.disk,
    )  # fmt: skip
    world.images[image.id] = image
    action = server.log("createImage", request_id, who.user.id)
    server.become(task_state="image_snapshot")
    world.run(_snapshot(world, server, image, action))
    return image.id


async def _snapshot(world: World, server: Server, image: Image, action: Action) -> None:
    with action.event("compute_snapshot_instance") as event:
        await world.lasts(0.4)
        rule = await world.faults.strike("virt.snapshot", f"{server.id} {server.name}")
        event.failed = rule is not None
        if rule is not None:
            world.images.pop(image.id, None)
        else:
            image.status, image.updated = "active", datetime.now(UTC)
    server.become()

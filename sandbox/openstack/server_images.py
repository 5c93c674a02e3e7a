"""createImage: what Nova, Glance and Cinder do together."""

import json
from datetime import UTC, datetime
from typing import Any

from sandbox.openstack import quotas, snapshots
from sandbox.openstack.state import Action, Image, Server, World, new_id
from sandbox.openstack.texts import check_glance_texts, check_nova_items, check_nova_name
from sandbox.openstack.wire import ApiError, Caller

_STATES = ("active", "stopped", "paused", "suspended")


def begin_image(
    world: World, server: Server, wanted: dict[str, Any], who: Caller, request_id: str
) -> str:
    """The id of the image, which Glance knows of from now on."""
    given = wanted.get("metadata") or {}
    check_nova_name(wanted.get("name"))
    check_nova_items(given)
    if server.vm_state not in _STATES or server.task_state is not None:
        state = (
            f"task_state {server.task_state}"
            if server.task_state
            else f"vm_state {server.vm_state}"
        )
        raise ApiError(409, f"Cannot 'createImage' instance {server.id} while it is in {state}")
    image = Image(
        new_id(),
        wanted["name"],
        server.project.id,
        datetime.now(UTC),
        {},
        status="queued",
        visibility="private",
        min_disk=server.flavor.disk,
    )
    action = server.log("createImage", request_id, who.user.id)
    if server.volumes and (server.image is None or snapshots.wishes_of(server.image)):
        _take_volumes(world, server, image, given)
        _register(world, image)
    else:
        image.properties["user_id"] = who.user.id
        _describe(server, image, given)
        _register(world, image)
        server.become(task_state="image_snapshot")
        world.run(_upload(world, server, image, action))
    return image.id


def _register(world: World, image: Image) -> None:
    """Have Glance know of the image. What Glance refuses, Nova tells in words of its own."""
    try:
        check_glance_texts({"name": image.name, **image.properties})
        quotas.check_image(image)
    except ApiError as error:
        if error.status == quotas.TOO_LARGE:
            told = "Unexpected API Error. Please contact the administrator"
            raise ApiError(500, f"{told}\n<class 'glanceclient.exc.HTTPOverLimit'>") from None
        raise ApiError(error.status, f"HTTP {error.status} Bad Request: {error.message}") from None
    world.images[image.id] = image


def _take_volumes(world: World, server: Server, image: Image, given: dict[str, str]) -> None:
    """The image of a server that was booted from a volume: only a list of snapshots of its volumes."""
    base = next((one.image for one in server.volumes if one.bootable), None)
    mapping = [
        snapshots.mapping_of(snapshots.take(world, one, f"snapshot for {image.name}"), one, number)
        for number, one in enumerate(server.volumes)
    ]
    image.properties = {
        **(base.properties if base else {}),
        "base_image_ref": "",
        **given,
        "root_device_name": str(server.volumes[0].device),
        "block_device_mapping": json.dumps(mapping),
        "bdm_v2": "True",
    }
    image.status, image.size = "active", 0


def _describe(server: Server, image: Image, given: dict[str, str]) -> None:
    """Write Nova's properties on the image of a server with a local disk; its data come later."""
    base = server.image
    image.properties |= {
        **(base.properties if base else {}),
        "base_image_ref": base.id if base else "",
        "instance_uuid": server.id,
        "image_type": "snapshot",
        **given,
    }
    image.size = 65536


async def _upload(world: World, server: Server, image: Image, action: Action) -> None:
    with action.event("compute_snapshot_instance") as event:
        await world.lasts(0.4)
        rule = await world.faults.strike("virt.snapshot", f"{server.id} {server.name}")
        event.failed = rule is not None
        if rule is not None:
            world.images.pop(image.id, None)
        else:
            image.status, image.updated = "active", datetime.now(UTC)
    server.become()

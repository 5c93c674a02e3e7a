"""createImage: an image of a server."""

import asyncio

from handlers.compute import Server, create_image
from handlers.context import Context
from handlers.deadlines import Deadline, growing
from handlers.effects import patiently
from handlers.errors import CloudRefusal, Conflict, NotFound
from handlers.image_course import follow_creation
from handlers.images import list_images, tag_image
from handlers.marks import MARK
from handlers.servers import find_server, unknown_server, wait_until_idle
from messages.codes import Code
from messages.errors import Refused, Transient
from messages.images import CreateImage
from messages.results import Result

#: The states of which Nova makes an image.
_STATES = frozenset({"ACTIVE", "SHUTOFF", "PAUSED", "SUSPENDED"})
TAG = "ECS"
#: Seconds for which it is tried again when the image is there.
_TAGGING = 20.0


async def make_image(task: CreateImage, context: Context) -> Result:
    """Answered once Glance knows of it, followed until it can be used."""
    effect = f"createImage:{task.server_id}"
    is_tagged = False
    created = context.answered
    if created is None:
        created = await _create(task, effect, context)
        # Once: the image is there, and whoever waits must not be told otherwise for the sake of a tag.
        is_tagged = await _is_tagged(created.data["image_id"], context, Deadline(0.0))
    await context.answer(created)
    await follow_creation(created.data["image_id"], effect, context)
    if not is_tagged:
        await _is_tagged(created.data["image_id"], context, Deadline.after(_TAGGING))
    return created


async def _create(task: CreateImage, effect: str, context: Context) -> Result:
    if not context.effects.begun(effect):
        # Before the server is judged: what a lost journal does not know may be there, and the server gone since.
        found = await context.patiently(lambda: _find(context))
        if found is not None:
            await context.effects.adopt(effect)
    await _begin(task, effect, context)
    return Result.of(Code.CREATED, {"image_id": await context.effects.remember("image", lambda: _made(context))})


async def _begin(task: CreateImage, effect: str, context: Context) -> None:
    for delay in growing(0.5, 4.0):
        if not context.effects.begun(effect):
            await _check(task.server_id, context)
        try:
            await _call(task, effect, context)
        except Conflict as error:
            # A task that began meanwhile is waited out, and the state is judged again.
            if delay > context.deadline.left:
                raise Refused(Code.IMAGE_CREATE, reason=error.reason, detail=str(error)) from error
            await asyncio.sleep(delay)
        except NotFound:
            raise unknown_server(task.server_id, None) from None
        except CloudRefusal as error:
            raise Refused(Code.IMAGE_CREATE, reason=error.reason, detail=str(error)) from error
        else:
            return


async def _check(server_id: str, context: Context) -> Server:
    server = await find_server(context, server_id)
    if server is None:
        raise unknown_server(server_id, None)
    server = await wait_until_idle(context, server, context.deadline)
    if server.status not in _STATES:
        raise Refused(Code.IMAGE_STATE, server.status)
    if server.busy:
        raise Refused(Code.IMAGE_CREATE, reason="busy", detail=f"the server is busy with {server.task_state}")
    return server


async def _call(task: CreateImage, effect: str, context: Context) -> None:
    properties = {**task.properties, MARK: context.mark}

    async def landed(_: object) -> str | None:
        return "" if await _find(context) is not None else None

    await context.effects.once(
        effect, do=lambda: create_image(context.project, task.server_id, task.name, properties), landed=landed,
        marker=None,
    )  # fmt: skip


async def _made(context: Context) -> str:
    image_id = await context.patiently(lambda: _find(context))
    if image_id is None:
        raise Refused(Code.IMAGE_CREATE, reason="vanished", detail="the snapshot failed")
    return image_id


async def _find(context: Context) -> str | None:
    found = await list_images(context.project, **{MARK: context.mark})
    return next((image.id for image in found if image.owner == context.project.id), None)


async def _is_tagged(image_id: str, context: Context, patience: Deadline) -> bool:
    try:
        await patiently(lambda: tag_image(context.project, image_id, TAG), patience)
    except CloudRefusal:
        return True  # gone again, which its course tells
    except Transient:
        return False
    return True

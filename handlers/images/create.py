"""createImage: an image of a server."""

from contextlib import suppress
from functools import partial

from handlers.context import MARK, ProjectContext
from handlers.effects.backoff import Deadline, retrying
from handlers.effects.ledger import EffectId, EffectKind
from handlers.effects.once import Landed
from handlers.images.follow import follow_creation
from handlers.openstack.errors import CloudRefusal, Conflict, NotFound
from handlers.openstack.glance import Image, get_image, list_images, tag_image
from handlers.openstack.nova import Server, create_image
from handlers.servers.disks import image_of, system_and_data
from handlers.servers.guard import (
    find_server,
    require_server,
    retrying_conflicts,
    unknown_server,
    wait_until_idle,
)
from handlers.servers.queries import images_of_servers, volumes_of_server
from handlers.servers.targets import MADE_IMAGE
from handlers.servers.view import image_words_of
from messages.codes import Code
from messages.commands import MAX_TEXT, CreateImage
from messages.errors import Refused, Transient, wrong
from messages.fields import MAX_NAME
from messages.results import CreatedImage, Result
from messages.texts import is_line

#: The states of which Nova makes an image.
_STATES = frozenset({"ACTIVE", "SHUTOFF", "PAUSED", "SUSPENDED"})
TAG = "ECS"
#: The property that says how many GiB the server's system disk had.
SYSTEM_DISK = "systemDisk"
#: What Nova puts before the image's name in those of Cinder's snapshots.
_SNAPSHOT = "snapshot for "
#: Seconds for which its tags are tried again when the image is there.
_TAGGING = 20.0


async def make_image(task: CreateImage, context: ProjectContext) -> Result:
    """Have Nova make an image of a server; answered once Glance knows of it, followed until it can
    be used.
    """
    effect = EffectId(EffectKind.CREATE_IMAGE, task.server_id)
    if context.answered is None:
        if not context.effects.begun(effect):
            # Before the server is checked: an image that a lost journal does not know may be there,
            # and the server gone since.
            found = await context.retrying(lambda: _find(context))
            if found is not None:
                await context.effects.adopt(effect)
        await _begin(task, effect, context)
        image_id = await context.effects.remember(MADE_IMAGE, lambda: _made(context))
        await context.replies.answer(Result.of(Code.CREATED, CreatedImage(image_id=image_id)))
    else:
        await context.effects.find_out(effect, _appeared(context))
        if not context.effects.done(effect):
            return context.answered
        image_id = await context.effects.remember(MADE_IMAGE, lambda: _made(context))
    # Tagged at the end: Glance writes the whole image for a tag, and where that comes between the
    # calls by which Nova fills it, Nova gives the snapshot up.
    await follow_creation(image_id, effect, context, lambda: _tag(image_id, context))
    return context.answered or Result.of(Code.CREATED, CreatedImage(image_id=image_id))


async def _begin(task: CreateImage, effect: EffectId, context: ProjectContext) -> None:
    """Have Nova accept it, or raise `Refused`; a conflicting task is waited out."""

    async def act() -> None:
        if context.effects.begun(effect):
            server = await find_server(context, task.server_id)
        else:
            server = await _check(task.server_id, context)
        about = await _about(server, task, context) if server is not None else {}
        properties = {**task.properties, **about, MARK: context.mark}
        try:
            await context.effects.once(
                effect,
                do=lambda: create_image(context.project, task.server_id, task.name, properties),
                landed=_appeared(context),
                marker=None,
            )
        except Conflict:
            raise
        except NotFound:
            raise unknown_server(task.server_id, None) from None
        except CloudRefusal as error:
            raise _refusal(error) from error

    if not context.effects.done(effect):
        await retrying_conflicts(act, context, _refusal)


def _refusal(error: CloudRefusal) -> Refused:
    return Refused(Code.IMAGE_CREATE, reason=error.reason, detail=str(error))


async def _check(server_id: str, context: ProjectContext) -> Server:
    server = await require_server(context, server_id)
    server = await wait_until_idle(context, server, context.effects.retry_until)
    if server.status not in _STATES:
        raise Refused(Code.IMAGE_STATE, server.status)
    if server.busy:
        raise Refused(
            Code.IMAGE_CREATE, reason="busy", detail=f"the server is busy with {server.task_state}"
        )
    return server


async def _about(server: Server, task: CreateImage, context: ProjectContext) -> dict[str, str]:
    """Properties of the image that tell of the server's disk and system, as far as it is known; the
    customer's words come first.

    `Refused` naming `name` where Cinder would not take the names of the snapshots.
    """
    volumes = await volumes_of_server(server, context)
    disk, _ = system_and_data(server, volumes.values())
    if disk is not None and len(_SNAPSHOT + task.name) > MAX_NAME:
        raise wrong(
            "name", f"a snapshot's name has at most {MAX_NAME} characters with {_SNAPSHOT!r} before"
        )
    images, of_snapshots = await images_of_servers([server], volumes, context)
    base = images.get(image_of(server, disk, of_snapshots) or "")
    words = image_words_of(
        base.body if base is not None else (disk.image if disk is not None else {})
    )
    size = disk.size if disk is not None else server.disk
    about = {name: word for name, word in words.items() if word and len(word) <= MAX_TEXT}
    about |= task.properties
    if size:  # a flavor without a disk of its own takes the image's size, which is not known here
        about[SYSTEM_DISK] = str(size)
    if disk is not None:
        about["instance_uuid"] = server.id  # Nova writes it on all other images
    return about


def _appeared(context: ProjectContext) -> Landed:
    async def landed(_: object) -> str | None:
        return "" if await _find(context) is not None else None

    return landed


async def _made(context: ProjectContext) -> str:
    image_id = await context.retrying(lambda: _find(context))
    if image_id is None:
        raise Refused(Code.IMAGE_CREATE, reason="vanished", detail="the snapshot failed")
    return image_id


async def _find(context: ProjectContext) -> str | None:
    found = await list_images(context.project, **{MARK: context.mark})
    return next((image.id for image in found if image.owner == context.project.id), None)


async def _tag(image_id: str, context: ProjectContext) -> None:
    """Give the image its tags, or go without: it can be used. They are read off its properties."""
    patience = Deadline.after(_TAGGING)
    with suppress(CloudRefusal, Transient):
        image = await retrying(lambda: get_image(context.project, image_id), patience)
        for tag in _tags(image):
            await retrying(partial(tag_image, context.project, image_id, tag), patience)


def _tags(image: Image) -> list[str]:
    """The tags that it should have and has not."""
    size, system = image.body.get(SYSTEM_DISK), str(image.body.get("system") or "")
    wanted = [TAG, *([f"SYSTEMDISK_{size}"] if size else [])]
    # A tag is a part of a URL: no slash can be in it, and dots alone are none.
    if is_line(system) and (name := system.strip().replace("/", "-")).strip("."):
        wanted.append(name)
    return [one for one in wanted if one not in image.body.get("tags", ())]

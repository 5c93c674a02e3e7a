"""Status updates of an image: from queued to active, or to its end."""

from collections.abc import Awaitable, Callable

from handlers.context import ProjectContext
from handlers.effects.ledger import EffectId
from handlers.openstack.errors import CloudRefusal, NotFound
from handlers.openstack.glance import get_image
from handlers.servers.targets import deletion_effect
from messages.errors import Transient
from messages.updates import image_update

_GONE, _GOING, _KILLED = "deleted", "pending_delete", "killed"
_ENDS = frozenset({"active", "deactivated", _KILLED, _GONE})
#: As every image begins; it may be over before anybody looks.
_FIRST = "queued"


async def follow_creation(
    image_id: str,
    effect: EffectId,
    context: ProjectContext,
    complete: Callable[[], Awaitable[None]],
) -> None:
    """Publish the states of an image until it can be used. Nova takes the image of a snapshot that
    failed away again: it then ends as deleted.

    `complete` is done to an image that is there, before its final state is published.
    """
    if context.replies.final_published("image", image_id):
        return
    publish = context.replies.publish
    await publish(image_update(image_id, "createImage", _FIRST, final=False))
    status = await _follow(image_id, "createImage", effect, _FIRST, context)
    if status not in (_GONE, _GOING, _KILLED):
        await complete()
    await publish(image_update(image_id, "createImage", status, final=True))


async def follow_deletion(image_id: str, context: ProjectContext) -> None:
    """Publish the states of an image until it is gone, which it mostly is at once."""
    if context.replies.final_published("image", image_id):
        return
    try:
        status = (await get_image(context.project, image_id)).status
    except NotFound:
        status = _GONE
    except (Transient, CloudRefusal):
        # It has been answered: whatever Glance says now must not make another answer of it. The
        # watch goes on asking.
        status = _GOING
    status = await _follow(image_id, None, deletion_effect(image_id), status, context)
    await context.replies.publish(image_update(image_id, None, status, final=True))


async def publish_end(image_id: str, context: ProjectContext) -> None:
    """Publish the final state of an image of which it is not known whether it was deleted.
    `Transient` where Glance does not say.
    """
    try:
        status = (await context.retrying(lambda: get_image(context.project, image_id))).status
    except NotFound:
        status = _GONE
    await context.replies.publish(image_update(image_id, None, status, final=True))


async def _follow(
    image_id: str, action: str | None, effect: EffectId, status: str, context: ProjectContext
) -> str:
    """Follow from a known status to the end of an image being made, or else of one being deleted;
    its last status. When the wait has lasted its time, the last known status is the end.
    """
    ends = _ENDS if action is not None else frozenset({_GONE})
    with context.watchers.images.follow(image_id) as poller:
        while status not in ends:
            try:
                found = (await context.next(poller, effect)).status
            except NotFound:
                found = _GONE
            except TimeoutError:
                break
            if found != status and found not in ends:
                await context.replies.publish(image_update(image_id, action, found, final=False))
            status = found
    return status

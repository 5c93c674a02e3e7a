"""What is told of an image: from queued to active, or to its end."""

from handlers.context import Context
from handlers.errors import NotFound
from handlers.images import get_image
from messages.status import image_update

_ENDS = frozenset({"active", "killed", "deactivated", "deleted"})
_GONE = "deleted"


async def follow_creation(image_id: str, effect: str, context: Context) -> None:
    """Until it can be used. Nova takes the image of a snapshot that failed away again: it then ends as deleted."""
    await _follow(image_id, "createImage", effect, _ENDS, context)


async def follow_deletion(image_id: str, context: Context) -> None:
    """Until it is gone, which it mostly is at once."""
    try:
        await context.patiently(lambda: get_image(context.project, image_id))
    except NotFound:
        await context.tell(image_update(image_id, None, _GONE, final=True))
        return
    await _follow(image_id, None, f"delete:{image_id}", frozenset({_GONE}), context)


async def _follow(image_id: str, action: str | None, effect: str, ends: frozenset[str], context: Context) -> None:
    told: str | None = None
    with context.watches.images.follow(image_id) as feed:
        while told not in ends:
            try:
                status = (await context.next(feed, effect)).status
            except NotFound:
                status = _GONE
                break
            except TimeoutError:
                status = told or "unknown"
                break
            if status in ends:
                break
            if status != told:
                told = status
                await context.tell(image_update(image_id, action, status, final=False))
    await context.tell(image_update(image_id, action, status, final=True))

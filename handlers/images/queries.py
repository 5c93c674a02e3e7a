"""image.list, image.list_private and image.show."""

from collections.abc import Iterable, Sequence

from handlers.context import ProjectContext
from handlers.openstack.errors import NotFound
from handlers.openstack.glance import Image, get_image, list_images
from handlers.servers.view import image_words_of
from messages import views
from messages.codes import Code
from messages.commands import NEWEST, ImageList, ImageListPrivate, ImageShow, Sort
from messages.errors import Refused
from messages.results import Result
from messages.updates import image_words
from messages.views import ImagePage


async def show_images(task: ImageList, context: ProjectContext) -> Result:
    """Show a page of the images that the tenant may use, and how many there are in all."""
    filters = {"visibility": task.visibility} if task.visibility is not None else {}
    found = await context.retrying(lambda: list_images(context.project, **filters))
    wanted = task.search.lower() if task.search is not None else None
    if wanted is not None:
        found = [one for one in found if wanted in one.name.lower() or wanted == one.id]
    matching = _sorted(found, task.sort)
    return _listed(matching, task.page.of(matching))


async def show_private_images(task: ImageListPrivate, context: ProjectContext) -> Result:
    """Show all private images with a tag, newest first."""
    found = await context.retrying(
        lambda: list_images(context.project, visibility="private", tag=task.tag)
    )
    mine = _sorted(
        [image for image in found if image.owner == context.project.id],
        Sort(NEWEST, descending=True),
    )
    return _listed(mine, mine)


async def show_image(task: ImageShow, context: ProjectContext) -> Result:
    """Show one image."""
    return Result.of(Code.OK, image_view(await find_image(task.image_id, context)))


async def find_image(image_id: str, context: ProjectContext) -> Image:
    """Return an image that the tenant may see, or raise `Refused`."""
    try:
        return await context.retrying(lambda: get_image(context.project, image_id))
    except NotFound:
        raise unknown_image(image_id) from None


def unknown_image(image_id: str) -> Refused:
    """Return the refusal of an image that the requester does not have."""
    return Refused(Code.IMAGE_UNKNOWN, image_id)


def image_view(image: Image) -> views.Image:
    """Return the image as the API document has it. Its place in the store is not shown: `locations`
    and `direct_url` are null.
    """
    computed = {
        **image_words_of(image.body),
        "translation": image_words(image.status),
        "created_at": _document_time(image.body.get("created_at")),
        "updated_at": _document_time(image.body.get("updated_at")),
        "locations": None,
        "direct_url": None,
    }
    # Anything else is shown as Glance has it; null where it has none.
    names = (field.alias or name for name, field in views.Image.model_fields.items())
    return views.Image.model_validate({name: image.body.get(name) for name in names} | computed)


def _listed(matching: Sequence[Image], shown: Sequence[Image]) -> Result:
    images = [image_view(image) for image in shown]
    return Result.of(Code.OK, ImagePage(total_count=len(matching), images=images))


def _sorted(images: Iterable[Image], sort: Sort) -> Sequence[Image]:
    """Ties are always in the order of the ids."""
    keys = {
        "name": lambda one: one.name,
        "status": lambda one: one.status,
        "createTime": lambda one: str(one.body.get("created_at") or ""),
    }
    by_id = sorted(images, key=lambda one: one.id)
    return sorted(by_id, key=keys[sort.field], reverse=sort.descending)


def _document_time(time: str | None) -> str | None:
    """`2018-09-27T08:45:55.000+0000` from `2018-09-27T08:45:55Z`."""
    return f"{time.removesuffix('Z')}.000+0000" if time else None

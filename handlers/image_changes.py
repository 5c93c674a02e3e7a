"""image.delete, image.batch_delete and image.update."""

import asyncio
from collections.abc import Mapping
from typing import Any

from handlers.context import Context
from handlers.errors import CloudRefusal, NotFound
from handlers.image_course import follow_deletion
from handlers.image_queries import find_image, unknown_image
from handlers.image_users import users_of
from handlers.images import Image, delete_image, find_images, get_image, patch_image
from handlers.together import all_of
from messages.codes import Code
from messages.errors import OutcomeUnknown, Refused, Transient
from messages.images import DeleteImage, DeleteImages, PatchedField, UpdateImage
from messages.results import Result

_CREATING = frozenset({"queued", "saving", "uploading", "importing"})


async def remove_image(task: DeleteImage, context: Context) -> Result:
    """Delete an image of the tenant's that no server of his was made from."""
    if context.answered is None:
        if not context.effects.begun(_effect(task.image_id)):
            image = await find_image(task.image_id, context)
            if refused := _refusal(image, await users_of([image], context), context):
                raise refused
        await _delete(task.image_id, context)
    deleted = Result.of(Code.OK, "")
    await context.answer(deleted)
    await follow_deletion(task.image_id, context)
    return deleted


async def remove_images(task: DeleteImages, context: Context) -> Result:
    """Delete each by itself: one that may not be deleted does not keep the others."""
    # Written down before it is told: a later run must not better it.
    answer = context.answered or await _delete_all(task, context)
    await context.answer(answer)
    deleted = [one["id"] for one in answer.data["images"] if one["code"] == Code.OK.wire]
    await all_of(follow_deletion(one, context) for one in deleted)
    return answer


async def update_image(task: UpdateImage, context: Context) -> Result:
    """Change what a customer may change of a private image."""
    image = await find_image(task.image_id, context)
    effect = f"update:{task.image_id}"
    if not context.effects.begun(effect):
        if image.visibility != "private":
            raise Refused(Code.IMAGE_NOT_PRIVATE)
        if image.status in _CREATING:
            raise Refused(Code.IMAGE_CREATING)
    operations = _patch(image, task.values)
    if operations:
        await _apply(effect, task, operations, context)
    return Result.of(Code.OK, "")


async def _apply(effect: str, task: UpdateImage, operations: list[dict[str, Any]], context: Context) -> None:
    async def landed(_: object) -> str | None:
        found = await get_image(context.project, task.image_id)
        return None if _patch(found, task.values) else ""

    try:
        await context.effects.once(
            effect, do=lambda: patch_image(context.project, task.image_id, operations), landed=landed, marker=None
        )
    except NotFound:
        raise unknown_image(task.image_id) from None
    except CloudRefusal as error:
        raise Refused(Code.IMAGE_UPDATE, reason=error.reason, detail=str(error)) from error


def _patch(image: Image, values: Mapping[PatchedField, str | None]) -> list[dict[str, Any]]:
    """What is still to be changed. Glance refuses to remove or to replace a property that is not there."""
    operations: list[dict[str, Any]] = []
    for field, value in values.items():
        known = image.body.get(field.value)
        if value is None and known is not None:
            operations.append({"op": "remove", "path": f"/{field.value}"})
        elif value is not None and value != known:
            operations.append({"op": "add", "path": f"/{field.value}", "value": value})
    return operations


def _effect(image_id: str) -> str:
    return f"delete:{image_id}"


async def _delete_all(task: DeleteImages, context: Context) -> Result:
    images = await context.patiently(lambda: find_images(context.project, task.image_ids))
    users = await users_of(images.values(), context)
    outcomes = await asyncio.gather(*(_delete_one(one, images.get(one), users, context) for one in task.image_ids))
    listed = [
        {"id": image_id, "code": refused.code.wire, "message": refused.code.text_for(refused.subject)}
        if refused
        else {"id": image_id, "code": Code.OK.wire, "message": Code.OK.text}
        for image_id, refused in zip(task.image_ids, outcomes, strict=True)
    ]
    failed = sum(outcome is not None for outcome in outcomes)
    status = f"删除成功{len(listed) - failed}台,删除失败{failed}台"
    return Result.of(Code.OK, {"status": status, "images": listed})


async def _delete_one(image_id: str, image: Image | None, users: Mapping[str, str], context: Context) -> Refused | None:
    try:
        if not context.effects.begun(_effect(image_id)):
            if image is None:
                return unknown_image(image_id)
            if refused := _refusal(image, users, context):
                return refused
        await _delete(image_id, context)
    except Refused as refused:
        return refused
    except OutcomeUnknown:
        return Refused(Code.IMAGE_DELETE, reason="outcome_unknown")
    except Transient as error:
        return Refused(Code.IMAGE_DELETE, reason=error.reason, detail=str(error))
    return None


async def _delete(image_id: str, context: Context) -> None:
    async def landed(_: object) -> str | None:
        try:
            image = await get_image(context.project, image_id)
        except NotFound:
            return ""
        return "" if image.status in ("deleted", "pending_delete") else None

    try:
        await context.effects.once(
            _effect(image_id), do=lambda: delete_image(context.project, image_id), landed=landed, marker=None
        )
    except NotFound:
        raise unknown_image(image_id) from None
    except CloudRefusal as error:
        raise Refused(Code.IMAGE_DELETE, reason=error.reason, detail=str(error)) from error


def _refusal(image: Image, users: Mapping[str, str], context: Context) -> Refused | None:
    """Why an image may not be deleted: another tenant's that is shown to all, in use, protected."""
    if image.owner != context.project.id:
        return Refused(Code.IMAGE_DELETE, reason="not_owned")
    if image.id in users:
        return Refused(Code.IMAGE_IN_USE, users[image.id])
    return Refused(Code.IMAGE_DELETE, reason="protected") if image.protected else None

"""image.delete, image.batch_delete and image.update."""

import asyncio
from collections.abc import Mapping
from typing import Any

from handlers.context import ProjectContext
from handlers.effects.concurrency import wait_for_all
from handlers.effects.ledger import EffectId, EffectKind
from handlers.effects.once import Landed
from handlers.images.progress import follow_deletion, tell_image_end
from handlers.images.queries import find_image, unknown_image
from handlers.images.users import users_of
from handlers.openstack.errors import CloudRefusal, NotFound
from handlers.openstack.glance import Image, delete_image, find_images, get_image, patch_image
from handlers.servers.targets import answer_of_images, deletion_effect, told_unknown
from messages.codes import Code
from messages.errors import OutcomeUnknown, Refused, Transient
from messages.images import ImageBatchDelete, ImageDelete, ImageUpdate, PatchedField
from messages.results import Result

_CREATING = frozenset({"queued", "saving", "uploading", "importing"})


async def remove_image(task: ImageDelete, context: ProjectContext) -> Result:
    """Delete an image of the tenant's that no server of his was made from."""
    effect, deleted = deletion_effect(task.image_id), Result.of(Code.OK, "")
    if context.answered is not None:
        await context.effects.find_out(effect, _gone(task.image_id, context))
    elif not context.effects.done(effect):
        if not context.effects.begun(effect):
            image = await find_image(task.image_id, context)
            if refused := _refusal(image, await users_of([image], context), context):
                raise refused
        await _delete(task.image_id, context)
    if context.effects.done(effect):
        await context.replies.answer(deleted)
        await follow_deletion(task.image_id, context)
    elif context.answered is not None and told_unknown(context.answered):
        await tell_image_end(task.image_id, context)
    return context.answered or deleted


async def remove_images(task: ImageBatchDelete, context: ProjectContext) -> Result:
    """Delete each by itself: one that may not be deleted does not keep the others."""
    if context.answered is not None:
        await wait_for_all(
            (_told_to_its_end(one, context) for one in task.image_ids), passing_first=True
        )
        return context.answered
    images = await context.retrying(lambda: find_images(context.project, task.image_ids))
    users = await users_of(images.values(), context)
    judged = {one: asyncio.Event() for one in task.image_ids}
    answered = asyncio.Event()
    deleting = [
        _delete_one(one, images.get(one), users, context, judged=judged[one], answered=answered)
        for one in task.image_ids
    ]
    await wait_for_all(
        [_answer_when_judged(task, judged, answered, context), *deleting], passing_first=True
    )
    return context.answered or _answer(task, context)


async def update_image(task: ImageUpdate, context: ProjectContext) -> Result:
    """Change what a customer may change of a private image."""
    effect = EffectId(EffectKind.UPDATE, task.image_id)
    if context.answered is not None:
        await context.effects.find_out(effect, _updated(task, context))
        return context.answered
    image = await find_image(task.image_id, context)
    if not context.effects.begun(effect):
        if image.visibility != "private":
            raise Refused(Code.IMAGE_NOT_PRIVATE)
        if image.status in _CREATING:
            raise Refused(Code.IMAGE_CREATING)
    operations = _patch(image, task.values)
    if operations:
        await _apply(effect, task, operations, context)
    return Result.of(Code.OK, "")


async def _apply(
    effect: EffectId, task: ImageUpdate, operations: list[dict[str, Any]], context: ProjectContext
) -> None:
    try:
        await context.effects.once(
            effect,
            do=lambda: patch_image(context.project, task.image_id, operations),
            landed=_updated(task, context),
            marker=None,
        )
    except NotFound:
        raise unknown_image(task.image_id) from None
    except CloudRefusal as error:
        raise Refused(Code.IMAGE_UPDATE, reason=error.reason, detail=str(error)) from error


def _updated(task: ImageUpdate, context: ProjectContext) -> Landed:
    async def landed(_: object) -> str | None:
        found = await get_image(context.project, task.image_id)
        return None if _patch(found, task.values) else ""

    return landed


def _patch(image: Image, values: Mapping[PatchedField, str | None]) -> list[dict[str, Any]]:
    """What is still to be changed. Glance refuses to remove or to replace a property that is not
    there.
    """
    operations: list[dict[str, Any]] = []
    for field, value in values.items():
        known = image.body.get(field.value)
        if value is None and known is not None:
            operations.append({"op": "remove", "path": f"/{field.value}"})
        elif value is not None and value != known:
            operations.append({"op": "add", "path": f"/{field.value}", "value": value})
    return operations


async def _delete_one(
    image_id: str,
    image: Image | None,
    users: Mapping[str, str],
    context: ProjectContext,
    *,
    judged: asyncio.Event,
    answered: asyncio.Event,
) -> None:
    """Delete it, and tell its course to the end."""
    effect = deletion_effect(image_id)
    try:
        refused = await _have_it_deleted(image_id, image, users, context)
        if refused is not None:
            context.replies.checked[image_id] = refused
    finally:
        judged.set()
    if context.effects.unknown(effect):
        await answered.wait()
    await _tell_course(image_id, context)


async def _have_it_deleted(
    image_id: str, image: Image | None, users: Mapping[str, str], context: ProjectContext
) -> Refused | None:
    try:
        if not context.effects.begun(deletion_effect(image_id)):
            if image is None:
                return unknown_image(image_id)
            if refused := _refusal(image, users, context):
                return refused
        await _delete(image_id, context)
    except Refused as refused:
        return refused
    except OutcomeUnknown:
        return None  # as the effects say
    except Transient as error:
        if context.answered is not None:
            raise  # nobody waits for it any more: it comes again, and is found out
        return Refused(Code.IMAGE_DELETE, reason=error.reason, detail=str(error))
    return None


async def _answer_when_judged(
    task: ImageBatchDelete,
    judged: Mapping[str, asyncio.Event],
    answered: asyncio.Event,
    context: ProjectContext,
) -> None:
    try:
        for one in judged.values():
            await one.wait()
        # Written down before it is told: a later run must not better it.
        await context.replies.answer(_answer(task, context))
    finally:
        answered.set()


def _answer(task: ImageBatchDelete, context: ProjectContext) -> Result:
    return answer_of_images(
        task, context.effects.known, context.replies.checked, Refused(Code.FAILED, reason="timeout")
    )


async def _told_to_its_end(image_id: str, context: ProjectContext) -> None:
    """One image of a batch that was answered: nothing is begun."""
    await context.effects.find_out(deletion_effect(image_id), _gone(image_id, context))
    await _tell_course(image_id, context)


async def _tell_course(image_id: str, context: ProjectContext) -> None:
    if context.effects.done(deletion_effect(image_id)):
        await follow_deletion(image_id, context)
    elif context.answered is not None and told_unknown(context.answered, image_id):
        await tell_image_end(image_id, context)


async def _delete(image_id: str, context: ProjectContext) -> None:
    try:
        await context.effects.once(
            deletion_effect(image_id),
            do=lambda: delete_image(context.project, image_id),
            landed=_gone(image_id, context),
            marker=None,
        )
    except NotFound:
        raise unknown_image(image_id) from None
    except CloudRefusal as error:
        raise Refused(Code.IMAGE_DELETE, reason=error.reason, detail=str(error)) from error


def _gone(image_id: str, context: ProjectContext) -> Landed:
    async def landed(_: object) -> str | None:
        try:
            image = await get_image(context.project, image_id)
        except NotFound:
            return ""
        return "" if image.status in ("deleted", "pending_delete") else None

    return landed


def _refusal(image: Image, users: Mapping[str, str], context: ProjectContext) -> Refused | None:
    """Why an image may not be deleted: another tenant's that is shown to all, in use, protected."""
    if image.owner != context.project.id:
        return Refused(Code.IMAGE_DELETE, reason="not_owned")
    if image.id in users:
        return Refused(Code.IMAGE_IN_USE, users[image.id])
    return Refused(Code.IMAGE_DELETE, reason="protected") if image.protected else None

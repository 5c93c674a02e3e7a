"""image.delete, image.batch_delete and image.update."""

from collections.abc import Mapping
from typing import Any

from handlers.context import ProjectContext
from handlers.effects.ledger import EffectId, EffectKind
from handlers.effects.once import Landed
from handlers.images.follow import follow_deletion, publish_end
from handlers.images.queries import find_image, unknown_image
from handlers.images.users import users_of
from handlers.openstack.errors import CloudRefusal, NotFound
from handlers.openstack.glance import Image, delete_image, find_images, get_image, patch_image
from handlers.servers.targets import Batch, answer_of_images, answered_unknown, deletion_effect
from messages.codes import Code
from messages.commands import ImageBatchDelete, ImageDelete, ImageUpdate, PatchedField
from messages.errors import OutcomeUnknown, Refused, Transient
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
    elif context.answered is not None and answered_unknown(context.answered):
        await publish_end(task.image_id, context)
    return context.answered or deleted


async def remove_images(task: ImageBatchDelete, context: ProjectContext) -> Result:
    """Delete each by itself: one that may not be deleted does not keep the others."""
    batch = _DeletionBatch(task, context)
    if context.answered is not None:
        return await batch.resume()
    batch.images = await context.retrying(lambda: find_images(context.project, task.image_ids))
    batch.users = await users_of(batch.images.values(), context)
    return await batch.run()


class _DeletionBatch(Batch):
    def __init__(self, task: ImageBatchDelete, context: ProjectContext) -> None:
        super().__init__(context, {one: deletion_effect(one) for one in task.image_ids})
        self._task = task
        #: The images that there are, by id, and a user of each that has any.
        self.images: Mapping[str, Image] = {}
        self.users: Mapping[str, str] = {}

    async def begin(self, target_id: str) -> Refused | None:
        context = self.context
        try:
            if not context.effects.begun(self.effects[target_id]):
                image = self.images.get(target_id)
                if image is None:
                    return unknown_image(target_id)
                if refused := _refusal(image, self.users, context):
                    return refused
            await _delete(target_id, context)
        except Refused as refused:
            return refused
        except OutcomeUnknown:
            pass  # so the effects say
        except Transient as error:
            if context.answered is not None:
                raise  # nobody waits for it any more: it is retried, and found out
            return Refused(Code.IMAGE_DELETE, reason=error.reason, detail=str(error))
        return None

    async def find_out(self, target_id: str) -> None:
        landed = _gone(target_id, self.context)
        await self.context.effects.find_out(self.effects[target_id], landed)

    async def follow(self, target_id: str) -> None:
        await follow_deletion(target_id, self.context)

    async def publish_end(self, target_id: str) -> None:
        await publish_end(target_id, self.context)

    def result(self) -> Result:
        rest = Refused(Code.FAILED, reason="timeout")
        effects, checked = self.context.effects.known, self.context.replies.checked
        return answer_of_images(self._task, effects, checked, rest)


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
    return Result.of(Code.OK, "")


def _updated(task: ImageUpdate, context: ProjectContext) -> Landed:
    async def landed(_: object) -> str | None:
        found = await get_image(context.project, task.image_id)
        return None if _patch(found, task.values) else ""

    return landed


def _patch(image: Image, values: Mapping[PatchedField, str | None]) -> list[dict[str, Any]]:
    """The operations still to be done; Glance refuses to remove a property that is not there."""
    operations: list[dict[str, Any]] = []
    for field, value in values.items():
        known = image.body.get(field.value)
        if value is None and known is not None:
            operations.append({"op": "remove", "path": f"/{field.value}"})
        elif value is not None and value != known:
            operations.append({"op": "add", "path": f"/{field.value}", "value": value})
    return operations


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
    """The refusal of an image that may not be deleted: another tenant's that is shown to all, in
    use, protected.
    """
    if image.owner != context.project.id:
        return Refused(Code.IMAGE_DELETE, reason="not_owned")
    if image.id in users:
        return Refused(Code.IMAGE_IN_USE, users[image.id])
    return Refused(Code.IMAGE_DELETE, reason="protected") if image.protected else None

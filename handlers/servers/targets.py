"""Commands on several targets, and their answers: each target has its code and its reason, also
where the whole is refused.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from handlers.context import ProjectContext
from handlers.effects.concurrency import wait_for_all
from handlers.effects.ledger import Effect, EffectId, EffectKind
from messages.codes import Code
from messages.commands import CreateImage, ImageBatchDelete, Power, PowerBatch
from messages.errors import Refused
from messages.results import (
    CreatedImage,
    FailureData,
    ImageOutcomes,
    Result,
    ServerOutcomes,
    TargetOutcome,
)

#: The checks of the targets so far, by id: why one fails, or None: it is right, and not begun.
Checked = Mapping[str, Refused | None]
#: The kinds of failure of servers in the order in which they are checked; the first gives the code
#: of the whole.
_ORDER = (
    Code.SERVER_NOT_OWNED,
    Code.SERVER_UNKNOWN,
    Code.SERVER_UNPAID,
    Code.SERVER_STATE,
    Code.FAILED,
)
UNKNOWN = "outcome_unknown"
#: Seconds for which a target that was accepted waits for the answer before it is followed: the
#: watch's lists take the cloud's time from the calls of the others.
_FOLLOWED_WITHIN = 3.0
#: Under this id is remembered which image was made.
MADE_IMAGE = EffectId(EffectKind.IMAGE)


def power_effect(power: Power, server_id: str) -> EffectId:
    """Return the id of an action on a server."""
    return EffectId(EffectKind(power), server_id)


def deletion_effect(image_id: str) -> EffectId:
    """Return the id of the deletion of an image."""
    return EffectId(EffectKind.DELETE, image_id)


def outcome_unknown() -> Refused:
    """Return the failure of a target that may have been changed, where it cannot be told."""
    return Refused(Code.FAILED, reason=UNKNOWN)


class Batch(ABC):
    """A command on several targets: each is begun and followed by itself. `effects` are by target."""

    def __init__(self, context: ProjectContext, effects: Mapping[str, EffectId]) -> None:
        self.context = context
        self.effects = effects

    @abstractmethod
    async def begin(self, target_id: str) -> Refused | None:
        """Have the cloud accept it for one target; why it failed, or None."""

    @abstractmethod
    async def find_out(self, target_id: str) -> None:
        """Look whether what may have been begun was; nothing is begun."""

    @abstractmethod
    async def follow(self, target_id: str) -> None:
        """Publish the states of a target that the cloud accepted, to the final one."""

    @abstractmethod
    async def publish_end(self, target_id: str) -> None:
        """Publish the final state of a target of which it is not known what became of it."""

    @abstractmethod
    def result(self) -> Result:
        """Return the answer by what is known now."""

    async def run(self) -> Result:
        """Begin on all targets at once and follow each; answered when each was accepted or refused.

        A target that has ended waits for no other one longer than `_FOLLOWED_WITHIN`; the answer
        waits until all have begun, and no longer.
        """
        begun = {one: asyncio.Event() for one in self.effects}
        answered = asyncio.Event()

        async def act(target_id: str) -> None:
            try:
                self.context.replies.checked[target_id] = await self.begin(target_id)
            finally:
                begun[target_id].set()
            unknown = self.context.effects.unknown(self.effects[target_id])
            with suppress(TimeoutError):
                async with asyncio.timeout(None if unknown else _FOLLOWED_WITHIN):
                    await answered.wait()
            await self._follow(target_id)

        async def answer() -> None:
            try:
                for one in begun.values():
                    await one.wait()
                # A partial outcome is written down before it is published: a later run must not
                # better it.
                await self.context.replies.answer(self.result())
            finally:
                answered.set()

        await wait_for_all([answer(), *map(act, self.effects)], passing_first=True)
        return self.context.answered or self.result()

    async def resume(self) -> Result:
        """Follow a batch that was answered to its end; nothing is begun."""

        async def resume(target_id: str) -> None:
            await self.find_out(target_id)
            await self._follow(target_id)

        await wait_for_all(map(resume, self.effects), passing_first=True)
        return self.context.answered or self.result()

    async def _follow(self, target_id: str) -> None:
        answer = self.context.answered
        if self.context.effects.done(self.effects[target_id]):
            await self.follow(target_id)
        elif answer is not None and answered_unknown(answer, target_id):
            await self.publish_end(target_id)


def failure(
    work: Any,
    refused: Refused,
    effects: Mapping[EffectId, Effect] | None = None,
    checked: Checked | None = None,
) -> Result:
    """Return the answer to a command that ends as a whole; a batch that the cloud failed tells of
    each target.

    `refused` is for the targets of which nothing else is known.
    """
    if refused.data is not None or refused.code is not Code.FAILED:
        return Result.refusal(refused)
    match work:
        case PowerBatch():
            return answer_of_servers(work, effects or {}, checked or {}, refused)
        case ImageBatchDelete():
            return answer_of_images(work, effects or {}, checked or {}, refused)
        case _:
            return Result.refusal(refused)


def answer_in_time(
    work: Any, effects: Mapping[EffectId, Effect], checked: Checked, late: Refused
) -> Result:
    """Return the answer to a command whose time is up; `late` is for what was not sent."""
    made = effects.get(MADE_IMAGE)
    if isinstance(work, CreateImage) and made is not None and made.is_memory:
        return Result.of(Code.CREATED, CreatedImage(image_id=made.value))
    begun = any(one.was_sent for one in effects.values())
    several = isinstance(work, (PowerBatch, ImageBatchDelete))
    rest = outcome_unknown() if begun and not several else late
    return failure(work, rest, effects, checked)


def answer_of_servers(
    task: PowerBatch, effects: Mapping[EffectId, Effect], checked: Checked, rest: Refused
) -> Result:
    """Return the answer of a batch of servers; `rest` is for those not checked, or not begun."""
    names = {one: power_effect(task.power, one) for one in task.server_ids}
    found = _each(names, effects, checked, rest)
    listed = [_listed(server_id, outcome) for server_id, outcome in found.items()]
    failures = [one for one in found.values() if isinstance(one, Refused)]
    if all(one is Code.OK for one in found.values()):
        return Result.of(Code.OK, ServerOutcomes(servers=listed))
    if _is_begun(names, effects) or not failures:
        return Result.of(Code.FAILED, FailureData(**_reason(failures or [rest]), servers=listed))
    first = min(failures, key=lambda one: _ORDER.index(one.code))
    reason = _reason(failures) if first.code is Code.FAILED else {}
    return Result.of(first.code, FailureData(**reason, servers=listed), first.subject)


def answer_of_images(
    task: ImageBatchDelete, effects: Mapping[EffectId, Effect], checked: Checked, rest: Refused
) -> Result:
    """Return the same for images; it succeeds unless the cloud did not show any."""
    names = {one: deletion_effect(one) for one in task.image_ids}
    found = _each(names, effects, checked, rest)
    deleted = sum(one is Code.OK for one in found.values())
    status = f"删除成功{deleted}台,删除失败{len(found) - deleted}台"
    listed = [_listed(image_id, outcome) for image_id, outcome in found.items()]
    if not checked and not _is_begun(names, effects):
        data = FailureData(reason=rest.reason, status=status, images=listed)
        return Result.of(Code.FAILED, data)
    return Result.of(Code.OK, ImageOutcomes(status=status, images=listed))


def answered_unknown(answer: Result, target_id: str | None = None) -> bool:
    """True where the answer says that it is not known what became of it, or of one of its targets."""
    data = answer.data if isinstance(answer.data, dict) else {}
    if target_id is None:
        return data.get("reason") == UNKNOWN
    listed = (*data.get("servers", ()), *data.get("images", ()))
    return any(one["id"] == target_id and one["reason"] == UNKNOWN for one in listed)


def answered_accepted(answer: Result, kind: str) -> list[str]:
    """Return the ids of the targets (`servers` or `images`) that the answer says were accepted."""
    data = answer.data if isinstance(answer.data, dict) else {}
    return [one["id"] for one in data.get(kind, ()) if one["code"] == Code.OK.wire]


def _each(
    names: Mapping[str, EffectId],
    effects: Mapping[EffectId, Effect],
    checked: Checked,
    rest: Refused,
) -> dict[str, Code | Refused | None]:
    """Each target by its id: accepted, failed, or (None) right and not begun."""
    begun = _is_begun(names, effects)
    found: dict[str, Code | Refused | None] = {}
    for target_id, name in names.items():
        effect, refused = effects.get(name), checked.get(target_id)
        if effect is not None and effect.done:
            found[target_id] = Code.OK
        elif effect is not None and effect.unknown:
            found[target_id] = outcome_unknown()
        elif refused is None and target_id in checked and not begun:
            found[target_id] = None
        else:
            found[target_id] = refused or rest
    return found


def _is_begun(names: Mapping[str, EffectId], effects: Mapping[EffectId, Effect]) -> bool:
    return any(name in effects for name in names.values())


def _listed(target_id: str, outcome: Code | Refused | None) -> TargetOutcome:
    code: int | str | None = None
    message: str | None = None
    reason: str | None = None
    if isinstance(outcome, Refused):
        code, reason = outcome.code.wire, outcome.word
        message = outcome.code.text_for(outcome.subject)
    elif outcome is not None:
        code, message = outcome.wire, outcome.text
    return TargetOutcome(id=target_id, code=code, message=message, reason=reason)


def _reason(failures: Sequence[Refused]) -> dict[str, Any]:
    """The reason of the whole: that something is not known comes first."""
    reasons = [one.reason for one in failures if one.reason is not None]
    return {"reason": UNKNOWN if UNKNOWN in reasons else reasons[0]} if reasons else {}

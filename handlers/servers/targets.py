"""Answers that tell of several targets: each has its code and its reason, also where the whole is
refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from handlers.effects.ledger import Effect, EffectId, EffectKind
from messages.codes import Code
from messages.commands import Power, PowerBatch
from messages.errors import Refused
from messages.images import CreateImage, ImageBatchDelete
from messages.results import Result

#: What became of the targets so far, by id: why one fails, or None: it is right, and not begun.
Verdicts = Mapping[str, Refused | None]
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
#: Under this id is remembered which image was made.
MADE_IMAGE = EffectId(EffectKind.IMAGE)


def power_effect(power: Power, server_id: str) -> EffectId:
    """The journal's name for an action on a server."""
    return EffectId(EffectKind(power), server_id)


def deletion_effect(image_id: str) -> EffectId:
    """The journal's name for the deletion of an image."""
    return EffectId(EffectKind.DELETE, image_id)


def outcome_unknown() -> Refused:
    """The failure of what may have been done, where it cannot be told."""
    return Refused(Code.FAILED, reason=UNKNOWN)


def failure(
    work: Any,
    refused: Refused,
    effects: Mapping[EffectId, Effect] | None = None,
    verdicts: Verdicts | None = None,
) -> Result:
    """The answer to a command that ends as a whole; a batch that the cloud failed tells of each
    target.

    `refused` is what became of the targets of which nothing else is known.
    """
    if refused.data is not None or refused.code is not Code.FAILED:
        return Result.refusal(refused)
    match work:
        case PowerBatch():
            return answer_of_servers(work, effects or {}, verdicts or {}, refused)
        case ImageBatchDelete():
            return answer_of_images(work, effects or {}, verdicts or {}, refused)
        case _:
            return Result.refusal(refused)


def answer_in_time(
    work: Any, effects: Mapping[EffectId, Effect], verdicts: Verdicts, late: Refused
) -> Result:
    """The answer to a command whose time is up, by what is known then; `late` is what befell what
    was not sent.
    """
    made = effects.get(MADE_IMAGE)
    if (
        isinstance(work, CreateImage)
        and made is not None
        and made.is_memory
        and made.outcome is not None
    ):
        return Result.of(Code.CREATED, {"image_id": made.outcome["value"]})
    begun = any(one.unknown or (one.done and not one.is_memory) for one in effects.values())
    several = isinstance(work, (PowerBatch, ImageBatchDelete))
    rest = outcome_unknown() if begun and not several else late
    return failure(work, rest, effects, verdicts)


def answer_of_servers(
    task: PowerBatch, effects: Mapping[EffectId, Effect], verdicts: Verdicts, rest: Refused
) -> Result:
    """What became of each server of a batch, and of the whole. `rest`: why the others were not
    judged, or not begun.
    """
    names = {one: power_effect(task.power, one) for one in task.server_ids}
    found = _each(names, effects, verdicts, rest)
    listed = [_listed(server_id, verdict) for server_id, verdict in found.items()]
    failures = [one for one in found.values() if isinstance(one, Refused)]
    if all(one is Code.OK for one in found.values()):
        return Result.of(Code.OK, {"servers": listed})
    if _is_begun(names, effects) or not failures:
        return Result.of(Code.FAILED, {**_reason(failures or [rest]), "servers": listed})
    first = min(failures, key=lambda one: _ORDER.index(one.code))
    reason = _reason(failures) if first.code is Code.FAILED else {}
    return Result.of(first.code, {**reason, "servers": listed}, first.subject)


def answer_of_images(
    task: ImageBatchDelete, effects: Mapping[EffectId, Effect], verdicts: Verdicts, rest: Refused
) -> Result:
    """The same of a batch of images; it succeeds whatever became of each, unless the cloud did not
    show any.
    """
    names = {one: deletion_effect(one) for one in task.image_ids}
    found = _each(names, effects, verdicts, rest)
    deleted = sum(one is Code.OK for one in found.values())
    data = {
        "status": f"删除成功{deleted}台,删除失败{len(found) - deleted}台",
        "images": [_listed(image_id, verdict) for image_id, verdict in found.items()],
    }
    if not verdicts and not _is_begun(names, effects):
        return Result.of(Code.FAILED, {"reason": rest.reason, **data})
    return Result.of(Code.OK, data)


def told_unknown(answer: Result, target_id: str | None = None) -> bool:
    """Whether it was answered that it is not known what became of it, or of one of its targets."""
    data = answer.data if isinstance(answer.data, dict) else {}
    if target_id is None:
        return data.get("reason") == UNKNOWN
    listed = (*data.get("servers", ()), *data.get("images", ()))
    return any(one["id"] == target_id and one["reason"] == UNKNOWN for one in listed)


def told_accepted(answer: Result, kind: str) -> list[str]:
    """The ids of the targets (`servers` or `images`) of which it was answered that the cloud
    accepted it.
    """
    data = answer.data if isinstance(answer.data, dict) else {}
    return [one["id"] for one in data.get(kind, ()) if one["code"] == Code.OK.wire]


def _each(
    names: Mapping[str, EffectId],
    effects: Mapping[EffectId, Effect],
    verdicts: Verdicts,
    rest: Refused,
) -> dict[str, Code | Refused | None]:
    """Each target by its id: accepted, failed, or (None) right and not begun. `names` are those of
    their effects.
    """
    begun = _is_begun(names, effects)
    found: dict[str, Code | Refused | None] = {}
    for target_id, name in names.items():
        effect, verdict = effects.get(name), verdicts.get(target_id)
        if effect is not None and effect.done:
            found[target_id] = Code.OK
        elif effect is not None and effect.unknown:
            found[target_id] = outcome_unknown()
        elif verdict is None and target_id in verdicts and not begun:
            found[target_id] = None
        else:
            found[target_id] = verdict or rest
    return found


def _is_begun(names: Mapping[str, EffectId], effects: Mapping[EffectId, Effect]) -> bool:
    return any(name in effects for name in names.values())


def _listed(target_id: str, verdict: Code | Refused | None) -> dict[str, Any]:
    if isinstance(verdict, Refused):
        message = verdict.code.text_for(verdict.subject)
        return {
            "id": target_id,
            "code": verdict.code.wire,
            "message": message,
            "reason": verdict.word,
        }
    if verdict is None:
        return {"id": target_id, "code": None, "message": None, "reason": None}
    return {"id": target_id, "code": verdict.wire, "message": verdict.text, "reason": None}


def _reason(failures: Sequence[Refused]) -> dict[str, Any]:
    """The reason of the whole: that something is not known comes first."""
    reasons = [one.reason for one in failures if one.reason is not None]
    return {"reason": UNKNOWN if UNKNOWN in reasons else reasons[0]} if reasons else {}

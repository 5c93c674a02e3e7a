"""A request's timeline: what happened to it, in the order of its times."""

from collections.abc import Iterable, Sequence
from typing import Any

from handlers.orders.show import told_wait
from messages.results import WaitReason
from messages.secrets import mask_text
from workers.admin.found import Event, EventKind, FoundMessage, Mark
from workers.dead_letters.dead_letter import unix_time
from workers.journal import EffectRecord, Replay, RequestRecord, Retry, State

#: Prefix of the effects that are status updates, as the journal stores them.
UPDATE = "told:"


def timeline(
    request: RequestRecord,
    retries: Iterable[Retry],
    replays: Iterable[Replay],
    dead: Sequence[FoundMessage],
    now: float,
) -> tuple[Event, ...]:
    """Return everything that is known to have happened to a request, oldest first."""
    more = request.deliveries - 1
    came = f"{more} more deliveries since; their times are not kept" if more else None
    events = [Event(request.received_at, EventKind.RECEIVED, "received by a worker", detail=came)]
    events += [_effect(one, request) for one in request.effects if is_effect(one)]
    events += [
        Event(
            one.intended_at,
            EventKind.UPDATE,
            f"{one.name.removeprefix(UPDATE)} {remembered(one)} %",
        )
        for one in request.effects
        if one.name.startswith(UPDATE)
    ]
    events += [_final(one, request) for one in request.updates]
    events += map(_retry, retries)
    if request.wait is not None and request.state is State.RUNNING:
        wait = request.wait
        events.append(
            Event(
                wait.since,
                EventKind.WAIT,
                told_wait(wait).message,
                Mark.OPEN,
                wait.until or now,
                wait.detail,
            )
        )
    if request.result is not None:
        code = request.result.get("code")
        sent = "published" if request.state is State.SETTLED else "not confirmed by the broker yet"
        events.append(
            Event(
                request.updated_at,
                EventKind.RESULT,
                f"{result_line(request.result)}, {sent}",
                Mark.DONE if code in (200, 201) else Mark.FAILED,
            )
        )
    for replay in replays:
        kind = EventKind.DISCARD if replay.action == "discard" else EventKind.REPLAY
        arrived = replay.arrived_at
        events.append(
            Event(
                replay.done_at or replay.pinned_at,
                kind,
                f"{replay.action} by {replay.operator}: {replay.state.value}",
                Mark.DONE if replay.done_at is not None else Mark.OPEN,
                arrived,
                f"batch {replay.batch}" + ("" if arrived is None else ", arrived at a worker"),
            )
        )
    events += [
        Event(one.failed_at, EventKind.DEAD, f"dead-lettered: {one.error}", Mark.FAILED)
        for one in dead
        if one.failed_at is not None
    ]
    return tuple(sorted(events, key=lambda one: one.at))


def is_effect(effect: EffectRecord) -> bool:
    """Tell an effect from a remembered value, which is stored in the same table."""
    return effect.outcome is None or "value" not in effect.outcome


def remembered(effect: EffectRecord) -> Any:
    """Return a remembered value; None of an effect."""
    return (effect.outcome or {}).get("value")


def outcome_line(effect: EffectRecord, request: RequestRecord) -> str:
    """Return what became of an effect, in words."""
    outcome = effect.outcome
    if outcome is None and request.state is State.RUNNING:
        is_left = request.owner is None or (
            request.wait is not None and request.wait.reason is WaitReason.WORKER
        )
        return (
            "unknown: the next attempt looks for it in the cloud"
            if is_left
            else "under way: its answer is awaited"
        )
    if outcome is None:
        return "unknown: interrupted before the answer was recorded"
    if outcome.get("refused", "") is None:
        return "not done: the time limit passed before it could be sent"
    if "refused" in outcome:
        return f"refused by OpenStack ({outcome['refused']})"
    if "found" in outcome:
        return "done: found in the cloud after its answer was lost"
    return f"done ({outcome.get('status')})"


def result_line(result: dict[str, Any] | None) -> str:
    """Return code, message and reason as a line; empty where there is no result."""
    if result is None:
        return ""
    data = result.get("data")
    reason = data.get("reason") if isinstance(data, dict) else None
    return f"{result.get('code')} {result.get('message')}" + (f" ({reason})" if reason else "")


def _effect(effect: EffectRecord, request: RequestRecord) -> Event:
    outcome = effect.outcome
    mark = Mark.OPEN if outcome is None else Mark.DONE
    if outcome is not None and "refused" in outcome:
        mark = Mark.FAILED
    name, _, target = effect.name.partition(":")
    return Event(
        effect.intended_at,
        EventKind.EFFECT,
        f"{name}: {outcome_line(effect, request)}",
        mark,
        effect.recorded_at,
        effect.request_id,
        target or None,
    )


def _final(update: dict[str, Any], request: RequestRecord) -> Event:
    final = ", final" if update.get("final") else ""
    return Event(
        unix_time(str(update.get("time"))) or request.updated_at,
        EventKind.UPDATE,
        f"{update.get('resource')} {update.get('status')}{final}",
        subject=str(update.get("id")),
    )


def _retry(retry: Retry) -> Event:
    wait = retry.wait
    words = {
        WaitReason.TURN: "waits for its turn at a server",
        WaitReason.RESOURCE: "waits until the cloud has finished something",
        WaitReason.RETRY: f"an attempt failed ({wait.cause})",
        WaitReason.WORKER: "waits for a worker",
    }
    times = f", {retry.times} times" if retry.times > 1 else ""
    return Event(
        retry.first_at,
        EventKind.RETRY,
        f"{words[wait.reason]}, goes on later{times}",
        Mark.FAILED if wait.reason is WaitReason.RETRY else Mark.DONE,
        wait.until,
        mask_text(wait.detail) if wait.detail else None,
    )

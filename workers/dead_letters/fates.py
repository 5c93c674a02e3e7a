"""The fate of a message that was replayed or discarded, as far as the journal knows it."""

from collections.abc import Sequence
from enum import StrEnum

from messages.record import record
from workers.journal import Replay, ReplayOutcome, ReplayState, RequestRecord, State


class Fate(StrEnum):
    """Outcomes of a message of a batch; the values are for programs."""

    NOT_BEGUN = "not_begun"
    #: It may have been published: the run was cut off.
    UNSURE = "unsure"
    WAITING = "waiting"
    RUNNING = "running"
    ANSWERED = "answered"
    REFUSED = "refused"
    PARKED = "parked_again"
    #: A worker had it, and the journal keeps no request for it: a read, or the worker was cut off.
    UNRECORDED = "unrecorded"
    DISCARDED = "discarded"
    GONE = "gone"


_TEXTS = {
    Fate.NOT_BEGUN: "not begun",
    Fate.UNSURE: "may have been published when the command was cut off",
    Fate.WAITING: "replayed: no worker has taken it yet",
    Fate.RUNNING: "under way",
    Fate.REFUSED: "refused",
    Fate.PARKED: "refused, parked again",
    Fate.UNRECORDED: "a worker had it; its result is not recorded",
    Fate.DISCARDED: "discarded",
    Fate.GONE: "it was in the queue no more: another command took it",
}


@record
class Known:
    """The outcome of a message. `text` is a line; `request` is its own request in the journal, where
    there is one: the same key and the same content.
    """

    outcome: Fate
    text: str
    request: RequestRecord | None = None

    @property
    def reason(self) -> str | None:
        """`data.reason` of its result; None where there is none."""
        data = (self.request.result or {}).get("data") if self.request is not None else None
        reason = data.get("reason") if isinstance(data, dict) else None
        return reason if isinstance(reason, str) else None


def fate_of(replay: Replay, requests: Sequence[RequestRecord]) -> Known:
    """Return what became of a message of a batch. `requests` are those with its name.

    A request of another content has only its key in common: its result is another message's.
    """
    own = [one for one in requests if replay.digest and one.digest == replay.digest]
    in_tenant = [one for one in own if one.tenant == replay.tenant]
    # Of several tenants' requests with one name and content, only the project tells which it is.
    request = (in_tenant or own)[-1] if len(own) == 1 or in_tenant else None
    fate = _fate(replay, request)
    text = _TEXTS.get(fate, "")
    if fate is Fate.ANSWERED and request is not None:
        result = request.result or {}
        reason = Known(fate, "", request).reason
        text = f"{result.get('code')} {result.get('message')}" + (f" ({reason})" if reason else "")
    elif replay.outcome_text:
        text = f"{text}: {replay.outcome_text}"
    return Known(fate, text, None if fate in (Fate.PARKED, Fate.REFUSED) else request)


def _fate(replay: Replay, request: RequestRecord | None) -> Fate:
    before = {
        ReplayState.PINNED: Fate.NOT_BEGUN,
        ReplayState.DISCARDED: Fate.DISCARDED,
        ReplayState.GONE: Fate.GONE,
    }
    if replay.state in before:
        return before[replay.state]
    if replay.outcome is not None:
        return Fate.PARKED if replay.outcome is ReplayOutcome.PARKED else Fate.REFUSED
    if request is not None and request.state is not State.RUNNING:
        return Fate.ANSWERED
    if request is not None:
        return Fate.RUNNING
    if replay.arrived_at is not None:
        return Fate.UNRECORDED
    return Fate.UNSURE if replay.state is ReplayState.ISSUED else Fate.WAITING

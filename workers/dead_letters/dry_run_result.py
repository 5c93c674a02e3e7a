"""The result of a dry run, and its texts."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import orjson

from messages.record import record
from workers.amqp.envelope import Publication
from workers.amqp.headers import ERROR_HEADER
from workers.amqp.names import Names

#: Reasons of a result that describe the moment, not the request.
_TEMPORARY = frozenset(
    {"busy", "timeout", "no_connection", "no_answer", "keystone", "conflict", "cloud_unavailable"}
)


class DryRunOutcome(StrEnum):
    """The fate of a dead letter in a replay; the values are for programs."""

    RUN = "run"
    RESUME = "go_on"
    KNOWN = "known"
    IN_PROGRESS = "under_way"
    REFUSED = "refused"
    DEAD_LETTERED = "parked"
    ANSWERED = "answered"
    IGNORED = "ignored"
    UNKNOWN = "unsure"
    IMPOSSIBLE = "impossible"
    DISCARDED = "discarded"
    UNPROVEN = "not_proven"

    @property
    def text(self) -> str:
        """The words for a person."""
        return _TEXTS[self]


_TEXTS = {
    DryRunOutcome.RUN: "would run",
    DryRunOutcome.RESUME: "would resume where it stopped",
    DryRunOutcome.KNOWN: "would return the known result",
    DryRunOutcome.IN_PROGRESS: "is in progress",
    DryRunOutcome.REFUSED: "would be refused",
    DryRunOutcome.DEAD_LETTERED: "would be refused and dead-lettered again",
    DryRunOutcome.ANSWERED: "would be answered",
    DryRunOutcome.IGNORED: "would be ignored",
    DryRunOutcome.UNKNOWN: "cannot be determined now",
    DryRunOutcome.IMPOSSIBLE: "cannot be replayed",
    DryRunOutcome.DISCARDED: "would be discarded",
    DryRunOutcome.UNPROVEN: "not proven: stays without --vouch",
}


@record
class DryRunResult:
    """The outcome for one message.

    `detail` explains it, `plan` is what the handler would store, and `steps` are those of an order
    that are still to be done, as in `order.plan`.
    """

    outcome: DryRunOutcome
    detail: str
    plan: Mapping[str, Any] | None = None
    steps: Sequence[Mapping[str, Any]] = ()


def result_of_publications(
    published: Sequence[Publication], names: Names, *, known: bool
) -> DryRunResult:
    """Return the result that the captured publications amount to. `known`: the journal had the
    request's result.
    """
    results = [one for one in published if one.exchange in ("", names.results_exchange)]
    text, reason = _code_and_reason(orjson.loads(results[0].body)) if results else ("", None)
    if known:
        return DryRunResult(DryRunOutcome.KNOWN, text)
    if any(one.exchange == names.retry_exchange for one in published):
        detail = "the cloud does not answer: it would wait in a retry queue"
        return DryRunResult(DryRunOutcome.UNKNOWN, detail)
    for one in published:
        if one.exchange == names.dead_exchange:
            detail = str((one.headers or {}).get(ERROR_HEADER))
            return DryRunResult(DryRunOutcome.DEAD_LETTERED, detail)
    return _result_of_answer(text, reason)


def _result_of_answer(text: str, reason: str | None) -> DryRunResult:
    if not text:
        return DryRunResult(DryRunOutcome.IGNORED, "the order's status asks for nothing")
    if text.startswith(("200 ", "201 ")):
        return DryRunResult(DryRunOutcome.ANSWERED, f"{text}: nothing is to be changed")
    if reason is not None and (reason in _TEMPORARY or reason.startswith("http_5")):
        return DryRunResult(DryRunOutcome.UNKNOWN, f"now: {text}")
    return DryRunResult(DryRunOutcome.REFUSED, text)


def _code_and_reason(body: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return code, message and reason of a result as a text, and the reason alone."""
    data = body.get("data")
    reason = data.get("reason") if isinstance(data, dict) else None
    return f"{body['code']} {body['message']}" + (f" ({reason})" if reason else ""), reason

"""What would become of a parked message, and how it is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from workers.amqp.headers import ERROR_HEADER
from workers.amqp.names import Names
from workers.amqp.publication import Publication

#: Reasons that tell of the moment, not of the request.
_PASSING = frozenset(
    {"busy", "timeout", "no_connection", "no_answer", "keystone", "conflict", "cloud_unavailable"}
)


class Fate(StrEnum):
    """What would become of a message; the values are for programs."""

    RUN = "run"
    GO_ON = "go_on"
    KNOWN = "known"
    UNDER_WAY = "under_way"
    REFUSED = "refused"
    PARKED = "parked"
    ANSWERED = "answered"
    IGNORED = "ignored"
    UNSURE = "unsure"
    IMPOSSIBLE = "impossible"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class Forecast:
    """What would become of a message; `detail` says it in words, `plan` is what the handler would
    remember.
    """

    fate: Fate
    detail: str
    plan: dict[str, Any] | None = None


#: In words, for a person.
WORDS = {
    Fate.RUN: "would run",
    Fate.GO_ON: "would go on where it was",
    Fate.KNOWN: "would return the known result",
    Fate.UNDER_WAY: "is under way",
    Fate.REFUSED: "would be refused",
    Fate.PARKED: "would be refused, and parked again",
    Fate.ANSWERED: "would be answered",
    Fate.IGNORED: "would be ignored",
    Fate.UNSURE: "cannot be told now",
    Fate.IMPOSSIBLE: "cannot be put in again",
    Fate.DISCARDED: "would be thrown away",
}


def judged(published: Sequence[Publication], names: Names, *, known: bool) -> Forecast:
    """What it means that these would have been published; `known`: the journal had the result."""
    told, reason = _told([one for one in published if one.exchange in ("", names.results_exchange)])
    parked = next((one for one in published if one.exchange == names.dead_exchange), None)
    if known:
        return Forecast(Fate.KNOWN, told)
    if any(one.exchange == names.retry_exchange for one in published):
        return Forecast(Fate.UNSURE, "the cloud is not well: it would wait in a retry queue")
    if parked is not None:
        return Forecast(Fate.PARKED, str((parked.headers or {}).get(ERROR_HEADER)))
    return _answered(told, reason)


def _answered(told: str, reason: str | None) -> Forecast:
    if not told:
        return Forecast(Fate.IGNORED, "the order's status asks for nothing")
    if told.startswith(("200 ", "201 ")):
        return Forecast(Fate.ANSWERED, f"{told}: nothing is to be changed")
    if reason is not None and (reason in _PASSING or reason.startswith("http_5")):
        return Forecast(Fate.UNSURE, f"just now: {told}")
    return Forecast(Fate.REFUSED, told)


def _told(results: Sequence[Publication]) -> tuple[str, str | None]:
    """Code, message and reason of the first result; empty where there is none."""
    if not results:
        return "", None
    body = orjson.loads(results[0].body)
    data = body.get("data")
    reason = data.get("reason") if isinstance(data, dict) else None
    return f"{body['code']} {body['message']}" + (f" ({reason})" if reason else ""), reason

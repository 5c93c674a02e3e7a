"""Tests what comes after a failure."""

from typing import Any

import pytest

from handlers.effects.waits import ResourceState, Wait
from handlers.openstack.errors import Conflict, QuotaExceeded
from messages.codes import Code
from messages.errors import Ambiguous, OutcomeUnknown, Postponed, Refused, Transient
from messages.results import WaitReason
from workers.journal import Kind
from workers.pipeline.retry import Answer, Retry, decide, refusal, wait_after

DELAYS = (5, 30, 120)
DAY = 86400.0


@pytest.mark.parametrize(
    ("error", "kind", "attempts", "age", "expected"),
    [
        (Transient("http_503"), Kind.ORDER, 0, 0.0, Retry(5, counts=True)),
        (Transient("http_503"), Kind.ORDER, 1, 0.0, Retry(30, counts=True)),
        (Transient("http_503"), Kind.ORDER, 99, DAY - 1, Retry(120, counts=True)),
        (Ambiguous("no_answer"), Kind.ORDER, 0, 0.0, Retry(5, counts=True)),
        (Postponed("resize"), Kind.ORDER, 7, 2 * DAY, Retry(5, counts=False)),
        (Postponed("os-stop"), Kind.COMMAND, 0, 0.0, Retry(5, counts=False)),
        (ZeroDivisionError(), Kind.ORDER, 2, 0.0, Retry(120, counts=True)),
        (OSError(24, "Too many open files"), Kind.ORDER, 50, DAY - 1, Retry(120, counts=True)),
    ],
)
def test_what_may_pass_is_tried_again(
    error: Exception, kind: Kind, attempts: int, age: float, expected: Any
) -> None:
    assert decide(error, kind, attempts, age, DELAYS) == expected


def test_a_command_that_was_answered_is_followed_as_long_as_an_order() -> None:
    for error in (Transient("http_503"), ZeroDivisionError()):
        assert decide(error, Kind.COMMAND, 1, 0.0, DELAYS, answered=True) == Retry(30, counts=True)
    assert isinstance(
        decide(Transient("http_503"), Kind.COMMAND, 9, DAY, DELAYS, answered=True), Answer
    )


@pytest.mark.parametrize(
    ("error", "kind", "attempts", "age", "reason", "dead_letter"),
    [
        (Transient("http_503"), Kind.COMMAND, 0, 0.0, "http_503", False),
        (Transient("http_503"), Kind.ORDER, 50, DAY, "http_503", False),
        (OutcomeUnknown("resize"), Kind.ORDER, 0, 0.0, "outcome_unknown", False),
        (QuotaExceeded(403, "Quota exceeded for cores", None), Kind.ORDER, 0, 0.0, "quota", False),
        (ZeroDivisionError(), Kind.COMMAND, 0, 0.0, "internal", True),
        (ZeroDivisionError(), Kind.ORDER, 3, 0.0, "internal", True),
    ],
)
def test_what_will_not_pass_is_answered(
    error: Exception, kind: Kind, attempts: int, age: float, reason: str, dead_letter: bool
) -> None:
    decision = decide(error, kind, attempts, age, DELAYS)
    assert isinstance(decision, Answer)
    assert (decision.refused.code, decision.refused.reason, decision.dead_letter) == (
        Code.FAILED,
        reason,
        dead_letter,
    )


def test_a_refusal_is_answered_as_it_is() -> None:
    refused = Refused(Code.SERVER_STATE)
    assert decide(refused, Kind.ORDER, 0, 0.0, DELAYS) == Answer(refused)
    answer = decide(Conflict(409, "Cannot 'stop' instance", None), Kind.COMMAND, 0, 0.0, DELAYS)
    assert isinstance(answer, Answer)


def test_each_error_has_its_failure() -> None:
    refused = Refused(Code.IDENTITY)
    assert refusal(refused) is refused
    assert refusal(Transient("keys")).reason == "keys"
    assert refusal(OutcomeUnknown("resize")).reason == "outcome_unknown"
    assert refusal(Conflict(409, "Cannot 'stop' instance", None)).reason == "conflict"
    assert refusal(Postponed("a resize")).reason == "internal"


VOLUME = ResourceState("volume", "v-1", "backing-up")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            Transient("http_503", detail="away; token eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"),
            Wait(WaitReason.RETRY, 7.0, cause="http_503", detail="away; token ***"),
        ),
        (
            Transient("busy", detail="volume v-1 is backing-up"),
            Wait(
                WaitReason.RETRY,
                7.0,
                cause="busy",
                detail="volume v-1 is backing-up",
                resource=VOLUME,
            ),
        ),
        (Postponed("resize:1"), Wait(WaitReason.RESOURCE, 7.0, resource=VOLUME)),
        (Postponed("its locks", for_lock=True), Wait(WaitReason.TURN, 7.0)),
        (ZeroDivisionError("x"), Wait(WaitReason.RETRY, 7.0, cause="internal", detail="x")),
    ],
)
def test_what_is_tried_again_says_what_it_waits_for(error: Exception, expected: Wait) -> None:
    assert wait_after(error, 7.0, VOLUME) == expected

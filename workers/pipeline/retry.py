"""What comes after a failure: one pure function."""

from collections.abc import Sequence
from dataclasses import dataclass

from handlers.openstack.errors import CloudRefusal
from messages.codes import Code
from messages.errors import EcsError, OutcomeUnknown, Postponed, Refused, Transient
from workers.journal import Kind

#: Seconds for which an order is tried again.
GIVE_UP_AFTER = 86400.0
#: No file descriptor, no memory, no disk: the machine is at fault, not the message.
MACHINE_TROUBLE = (OSError, MemoryError)
#: Times that an order is tried again after an error that nobody foresaw.
UNFORESEEN_TRIES = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """It is over: this is the answer. `park`: a person has to look at the message, too."""

    refused: Refused
    park: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """Again after so many seconds. `counts`: as an attempt that failed; without, it only waits for
    something long.
    """

    delay: int
    counts: bool


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Back to its queue as it came, for a later time."""


Decision = Answer | Retry


def decide(
    error: Exception,
    kind: Kind,
    attempts: int,
    age: float,
    delays: Sequence[int],
    *,
    answered: bool = False,
) -> Decision:
    """The decision after an error; `attempts` failed before this one, `age` is in seconds since the
    first delivery.

    `answered`: only the course is still to be told, which nobody waits for, and which must have its
    end.
    """
    may_wait = kind is Kind.ORDER or answered
    match error:
        case Postponed():
            return Retry(delays[0], counts=False)
        case _ if (
            isinstance(error, (Transient, *MACHINE_TROUBLE)) and may_wait and age < GIVE_UP_AFTER
        ):
            return Retry(_delay(attempts, delays), counts=True)
        case EcsError():
            return _answer(error)
        case _ if may_wait and attempts < UNFORESEEN_TRIES:
            return Retry(_delay(attempts, delays), counts=True)
        case _:
            return _answer(error)


def decide_unbegun(error: Exception, kind: Kind) -> Answer | GiveBack:
    """The decision where it cannot be told who asks. Nothing is in the journal: what comes back
    must come as it was.

    Nobody waits for a command longer than its time limit, which has been waited out.
    """
    if kind is Kind.ORDER and isinstance(error, Transient):
        return GiveBack()
    return _answer(error)


def is_last_try(age: float) -> bool:
    """Whether a failure that may pass would not be tried again."""
    return age >= GIVE_UP_AFTER


def _answer(error: Exception) -> Answer:
    match error:
        case Refused():
            return Answer(error)
        case CloudRefusal():
            return Answer(error.as_failure())
        case OutcomeUnknown():
            return Answer(Refused(Code.FAILED, reason="outcome_unknown", detail=str(error)))
        case Transient():
            return Answer(Refused(Code.FAILED, reason=error.reason, detail=str(error)))
        case _:
            return Answer(
                Refused(Code.FAILED, reason="internal", detail=type(error).__name__), park=True
            )


def _delay(attempts: int, delays: Sequence[int]) -> int:
    return delays[min(attempts, len(delays) - 1)]

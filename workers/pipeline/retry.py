"""The decision after a failure: one pure function."""

from collections.abc import Sequence

from handlers.effects.waits import ResourceState, Wait
from handlers.openstack.errors import failure_of
from messages.codes import Code
from messages.errors import EcsError, Postponed, Refused, Transient
from messages.record import record
from messages.results import WaitReason
from messages.secrets import mask_text
from workers.journal import Kind

#: Seconds for which an order is tried again.
GIVE_UP_AFTER = 86400.0
#: No file descriptor, no memory, no disk: the machine is at fault, not the message.
MACHINE_TROUBLE = (OSError, MemoryError)
#: Times that an order is tried again after an error that nobody foresaw.
UNFORESEEN_TRIES = 3
#: `data.reason` of a request that too many workers died of, and the cause of its waits before.
WORKER_LOST = "worker_lost"
#: Characters of an error's text that the journal keeps.
_MAX_DETAIL = 300


@record
class Answer:
    """The request ends with this failure. `dead_letter`: a person has to look at the message, too."""

    refused: Refused
    dead_letter: bool = False


@record
class Retry:
    """Another attempt after `delay` seconds.

    `counts`: this attempt failed; without, the request only waits for something that takes long.
    """

    delay: int
    counts: bool


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
    """Return the decision after an error.

    `attempts` failed before this one, `age` is in seconds since the first delivery, `delays` are
    the seconds before each retry. `answered`: the request has its answer, and only its final
    updates are still to be published; nobody waits for those, and they must come.
    """
    may_wait = kind is Kind.ORDER or answered
    is_passing = isinstance(error, (Transient, *MACHINE_TROUBLE)) and age < GIVE_UP_AFTER
    is_unforeseen = not isinstance(error, EcsError) and attempts < UNFORESEEN_TRIES
    match error:
        case Postponed():
            return Retry(delays[0], counts=False)
        case _ if may_wait and (is_passing or is_unforeseen):
            return Retry(delays[min(attempts, len(delays) - 1)], counts=True)
        case Refused(reason=reason) if reason == WORKER_LOST:
            return Answer(error, dead_letter=True)
        case EcsError():
            return Answer(refusal(error))
        case _:
            return Answer(unforeseen(error), dead_letter=True)


def wait_after(error: Exception, now: float, last: ResourceState | None = None) -> Wait:
    """Return what a request waits for after an error, should it be tried again.

    `now` is in Unix seconds, `last` the resource that the attempt waited for last.
    """
    if isinstance(error, Postponed):
        reason = WaitReason.TURN if error.for_lock else WaitReason.RESOURCE
        return Wait(reason, now, resource=None if error.for_lock else last)
    cause = (refusal(error) if isinstance(error, EcsError) else unforeseen(error)).reason
    detail = mask_text(str(error))[:_MAX_DETAIL]
    busy = last if cause == "busy" else None
    return Wait(WaitReason.RETRY, now, cause=cause, detail=detail, resource=busy)


def refusal(error: EcsError) -> Refused:
    """Return the failure that a request is answered with which this error ends."""
    return failure_of(error) or unforeseen(error)


def unforeseen(error: Exception) -> Refused:
    """Return the failure for an error of the worker itself."""
    return Refused(Code.FAILED, reason="internal", detail=type(error).__name__)

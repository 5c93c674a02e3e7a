"""Records that the journal takes and returns. Times are Unix seconds; JSON values are as the
standard library parses them.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from handlers.effects.waits import Wait
from messages.record import record


class JournalError(Exception):
    """The journal cannot be used; the text says what to do. `advice`: where the connection is
    refused for TLS, and trying again alone does not help, the setting to change.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        self.reason, self.advice = reason, advice
        super().__init__(f"{reason}; {advice}" if advice else reason)


class JournalUnfit(JournalError):
    """The database cannot hold the journal; starting the worker again does not help."""


class SharedSessions(JournalUnfit):
    """A pooler gives a session to another client between two transactions: locks of a session,
    which tell whether a worker is alive, mean nothing there.
    """

    def __init__(self) -> None:
        super().__init__(
            "a pooler in transaction mode stands before the journal's database, and takes living"
            " workers' locks away; set pool_mode = session in PgBouncer, or give the database's"
            " own address"
        )


class ClaimLost(Exception):
    """Another worker has taken the request over: this one must do nothing more for it."""


@record
class JournalTimes:
    """Seconds that the journal waits."""

    #: For PostgreSQL: a connection, the answer to a statement, and a row that somebody else locks.
    connect: float = 10.0
    answer: float = 30.0
    row_lock: float = 10.0
    #: For PostgreSQL: between two statements of a transaction. A worker that is stopped in between
    #: must not keep others from the servers whose locks it was writing.
    stands_still: float = 5.0
    #: Before a failed transaction is tried again, doubled each time up to `longest_delay`.
    first_delay: float = 0.05
    longest_delay: float = 2.0
    #: Without a write, before the owner's lock is checked.
    keep_owner: float = 5.0
    #: For other writes, of one that nobody waits for.
    gather: float = 0.1
    #: For the last writes when the journal is closed.
    last_writes: float = 10.0


class Kind(StrEnum):
    """The kind of a request, which decides how long it is kept."""

    COMMAND = "command"
    ORDER = "order"


class State(StrEnum):
    """State of a request."""

    RUNNING = "running"
    #: The result and the final updates are written; they may not have been published.
    DONE = "done"
    #: The broker has confirmed them.
    SETTLED = "settled"


@record
class NewRequest:
    """A request as it arrives. `key` is its idempotency key, `name` the id that its sender knows."""

    key: str
    name: str
    kind: Kind
    operation: str
    tenant: str
    digest: str
    received_at: float


class Claim(NamedTuple):
    """The right to act for a request; one worker has it at a time."""

    key: str
    token: str


class HolderState(StrEnum):
    """State of the worker that has a request with an older lock."""

    OURS = "ours"
    ELSEWHERE = "elsewhere"
    #: No worker has it: its worker is dead, or it waits in a retry queue.
    GONE = "gone"


@record
class Ahead:
    """The request that another one waits for at a server.

    `rescheduled_at` is when its message was put into a retry queue (Unix seconds), after `attempts`
    attempts.
    """

    claim: Claim
    holder: HolderState
    rescheduled_at: float | None = None
    attempts: int = 0


@record
class EffectRecord:
    """One effect: the intent with its `marker`, and the `outcome`, None until it is known."""

    name: str
    intended_at: float
    marker: Any
    outcome: dict[str, Any] | None
    request_id: str | None
    #: When the outcome was recorded; None until then.
    recorded_at: float | None = None


@record
class Begun:
    """The request is new, and has its locks, or its place behind the request `ahead`."""

    claim: Claim
    ahead: Ahead | None = None
    #: An operator has cancelled it before it came.
    cancelled: bool = False


@record
class Resumed:
    """The request was begun before; the worker that had it is dead or has released it."""

    claim: Claim
    effects: Mapping[str, EffectRecord]
    attempts: int
    received_at: float
    #: True where a copy of its message was rescheduled with a resume token.
    has_resume_token: bool = False
    #: An operator has cancelled it: nothing of it is to be begun.
    cancelled: bool = False
    #: Workers that died while they had it, and whether the last one that had it did.
    lost_workers: int = 0
    was_lost: bool = False


@record
class Known:
    """The request has a result; `settled`: it was published."""

    result: dict[str, Any]
    updates: list[dict[str, Any]]
    settled: bool


@record
class ContentConflict:
    """The key belongs to a request with another content."""


@record
class HeldElsewhere:
    """Another worker, which is alive, has the request."""

    owner: str


Outcome = Begun | Resumed | Known | ContentConflict | HeldElsewhere


@record
class RequestRecord:
    """A request with everything that the journal has of it."""

    key: str
    name: str
    kind: Kind
    operation: str
    tenant: str
    digest: str
    state: State
    attempts: int
    deliveries: int
    received_at: float
    updated_at: float
    #: The worker that has it, or None.
    owner: str | None
    result: dict[str, Any] | None
    #: The final status updates.
    updates: tuple[dict[str, Any], ...]
    effects: tuple[EffectRecord, ...]
    #: What it waits for: as its worker has noted it, or, in what `History.with_waits` returns, as
    #: it is.
    wait: Wait | None = None
    #: When its effects, its updates and most of its result were deleted.
    pruned_at: float | None = None


@record
class UnfinishedRequest:
    """A request without a published result, as far as an overview needs it.

    `wait` is what it waits for now, as in `History.with_waits`, but that it does not name the
    request that is ahead. `is_answered`: its result is written, and not yet published.
    """

    key: str
    name: str
    kind: Kind
    operation: str
    tenant: str
    received_at: float
    updated_at: float
    owner: str | None
    is_answered: bool
    wait: Wait | None


@record
class Retry:
    """Attempts in a row that ended in another one, for one reason; `times` of them between
    `first_at` and `last_at`. `wait` is the last one's: its cause, its last error, its next attempt.
    """

    first_at: float
    last_at: float
    times: int
    wait: Wait


class Action(StrEnum):
    """Treatment of dead letters by an operator."""

    REPLAY = "replay"
    DISCARD = "discard"


class ReplayState(StrEnum):
    """State of a dead letter in a batch."""

    PINNED = "pinned"
    #: It may have been published: its resume token is valid.
    ISSUED = "issued"
    #: The broker has confirmed it.
    SENT = "sent"
    DISCARDED = "discarded"
    #: It was no longer in `ecs.dead`.
    GONE = "gone"
    #: It was published once more, as another row; its own resume token stays valid.
    REPEATED = "again"


class ReplayOutcome(StrEnum):
    """Outcome of a replayed message that was not carried out."""

    #: Its sender was answered, and nothing was begun.
    REFUSED = "refused"
    #: It is in `ecs.dead` again.
    PARKED = "parked"


@record
class Replay:
    """A dead letter that an operator replayed or discarded; times are Unix seconds.

    `selection` is a digest of the command's options, `name` the id by which `journal show` finds
    the request, `identity` a digest of the whole message, `digest` that of its content as a request
    (empty where it is none), `tenant` the project that the operator named, `arrived_at` when a
    worker received the replayed message, `real_user` the operating system's user (None in rows of
    earlier versions). `vouched`: the sender was never authenticated, and the operator confirmed it.

    `operator` and `real_user` began the batch; `done_by` and `done_user` carried this message out
    (`by` and `by_user` are what to show). `outcome` and `outcome_text` tell what a worker did with
    the replayed message where it was not carried out.
    """

    id: str
    batch: str
    position: int
    action: str
    operator: str
    selection: str
    name: str | None
    message_id: str | None
    operation: str | None
    origin: str
    code: str
    failed_at: str
    identity: str
    digest: str
    tenant: str | None
    state: ReplayState
    pinned_at: float
    done_at: float | None = None
    arrived_at: float | None = None
    real_user: str | None = None
    vouched: bool = False
    reason: str | None = None
    done_by: str | None = None
    done_user: str | None = None
    outcome: ReplayOutcome | None = None
    outcome_text: str | None = None

    @property
    def by(self) -> str:
        """The operator who carried it out; who began the batch while nothing was done."""
        return self.done_by or self.operator

    @property
    def by_user(self) -> str | None:
        """The operating system's user of that operator."""
        return self.done_user if self.done_by is not None else self.real_user


@record
class Batch:
    """Dead letters that are replayed or discarded together; times are Unix seconds.

    `done` of the `messages` are done, `gone` were taken by somebody else, `parked` are in `ecs.dead`
    again, `refused` were answered with a refusal. `people` are all who carried out some of it;
    `chosen_by` are the conditions by which the messages were chosen; `hindered` of the chosen could
    not be part of it.

    `runner_name` is who carries it out now, with the process; None where nobody does. `stop_by`
    asked for its end. `trouble`: why it ended early.
    """

    name: str
    action: Action
    operator: str
    real_user: str | None
    begun_at: float
    messages: int
    ended_at: float | None = None
    done: int = 0
    gone: int = 0
    parked: int = 0
    refused: int = 0
    people: tuple[str, ...] = ()
    source: str | None = None
    why: str | None = None
    chosen_by: str | None = None
    hindered: int = 0
    runner_name: str | None = None
    stop_by: str | None = None
    trouble: str | None = None

    @property
    def left(self) -> int:
        """The number of messages that are still to be done."""
        return self.messages - self.done - self.gone


@record
class DeadLetterCause:
    """The number of messages in `ecs.dead` with this code and reason; `reason` is empty where there
    is none.
    """

    code: str
    reason: str
    messages: int


@record
class Archived:
    """A message that was discarded, or edited, as it was; without its secrets.

    `kind` is `discarded` or `edited`. `message` is exchange, routing key, properties and headers as
    JSON, `edited` the body that took the place of `body`. Times are Unix seconds, `failed_at` is
    the message's own header.
    """

    id: str
    kind: str
    batch: str | None
    archived_at: float
    operator: str
    real_user: str | None
    why: str | None
    name: str | None
    message_id: str | None
    operation: str | None
    tenant: str | None
    origin: str
    code: str
    reason: str | None
    error: str | None
    failed_at: str
    message: str
    body: bytes
    edited: bytes | None = None
    restored_at: float | None = None
    restored_by: str | None = None
    restored_user: str | None = None

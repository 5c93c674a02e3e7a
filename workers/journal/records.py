"""What the journal takes and gives. Times are Unix seconds, JSON is what the standard library's
parser gives.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class JournalError(Exception):
    """The journal cannot be used as it is; the text says what to do."""


class JournalUnfit(JournalError):
    """The database is there, and is of a kind that cannot hold the journal: starting it again does
    not help.
    """


class ClaimLost(Exception):
    """Another worker has taken the request over: this one must not act for it any more."""


class Kind(StrEnum):
    """What a request is: it decides how long it is remembered."""

    COMMAND = "command"
    ORDER = "order"


class State(StrEnum):
    """How far a request is."""

    RUNNING = "running"
    #: The result and the final updates are written, and may not have been published.
    DONE = "done"
    #: They have been confirmed by the broker.
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request as it comes. `key` is what makes it known again, `name` what an operator types."""

    key: str
    name: str
    kind: Kind
    operation: str
    tenant: str
    digest: str
    received_at: float


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to act for a request; given to one worker at a time."""

    key: str
    token: str


class HolderState(StrEnum):
    """Who is at a request that stands ahead of another."""

    OURS = "ours"
    ELSEWHERE = "elsewhere"
    #: Nobody: its worker is dead, or it waits in a retry queue.
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Ahead:
    """The request that is right ahead of another at one of its servers.

    `rescheduled_at`: since when (Unix seconds) its message waits in a retry queue, after so many
    `attempts`.
    """

    claim: Claim
    holder: HolderState
    rescheduled_at: float | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class EffectRecord:
    """One effect: meant at `intended_at`, with what was known then; `outcome` is None until it is
    known.
    """

    name: str
    intended_at: float
    marker: Any
    outcome: dict[str, Any] | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Begun:
    """The first time that it comes."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Resumed:
    """It was begun, and whoever did it is gone or has released it."""

    claim: Claim
    effects: Mapping[str, EffectRecord]
    attempts: int
    received_at: float
    #: Whether a message of it was put off, and comes again with a pass.
    has_resume_token: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """It has a result. `settled`: which was published."""

    result: dict[str, Any]
    updates: list[dict[str, Any]]
    settled: bool


@dataclass(frozen=True, slots=True)
class ContentConflict:
    """The key is known with another content."""


@dataclass(frozen=True, slots=True)
class HeldElsewhere:
    """Another worker that lives is at it."""

    owner: str


Outcome = Begun | Resumed | Known | ContentConflict | HeldElsewhere


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A request as an operator sees it."""

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
    #: Who is at it; None where nobody is.
    owner: str | None
    result: dict[str, Any] | None
    #: The final status updates.
    updates: tuple[dict[str, Any], ...]
    effects: tuple[EffectRecord, ...]


class Action(StrEnum):
    """What an operator does with parked messages."""

    REPLAY = "replay"
    DISCARD = "discard"


class ReplayState(StrEnum):
    """How far a pinned message is."""

    PINNED = "pinned"
    #: It may have been published: the word by which it is known again is in force.
    ISSUED = "issued"
    #: The broker has confirmed it.
    SENT = "sent"
    DISCARDED = "discarded"
    #: It was in `ecs.dead` no longer when its turn came.
    GONE = "gone"
    #: It was put in once more, and another row tells the rest; its word stays in force.
    REPEATED = "again"


@dataclass(frozen=True, slots=True)
class Replay:
    """A parked message that an operator took in hand; times are Unix seconds.

    `selection` stands for the words by which it was chosen, `name` is what `journal show` finds it
    by, `identity` tells the very message, `digest` its content as a request (empty where it is
    none), `tenant` is the project that the operator named for it, `arrived_at` is when a worker met
    it again, `real_user` is the user that the command ran as, whoever `operator` says it was (None
    in rows that an earlier version wrote). `vouched`: who sent the message was not proven, and the
    operator has answered for him.
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


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that were taken in hand together; `done` of them are."""

    name: str
    action: str
    operator: str
    real_user: str | None
    begun_at: float
    ended_at: float | None
    messages: int
    done: int

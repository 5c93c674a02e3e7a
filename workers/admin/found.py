"""The records of what is found of one request. Times are Unix seconds."""

from enum import StrEnum

from messages.record import record
from workers.journal import Replay, RequestRecord


class Place(StrEnum):
    """The place where a request, or a message that asks for it, is now."""

    #: In its input queue, held by nobody.
    INPUT_QUEUE = "input_queue"
    #: In a retry queue, until a time.
    RETRY_QUEUE = "retry_queue"
    #: A worker has it and has begun with it.
    WORKER = "worker"
    #: The broker could not route it, or gave up on it; a worker answers it.
    UNDELIVERED = "undelivered"
    #: In the queue of dead letters: nothing goes on with it but an operator.
    DEAD = "dead"
    #: In the archive of discarded dead letters.
    ARCHIVE = "archive"
    #: It has its result, which is published or about to be.
    ANSWERED = "answered"


class EventKind(StrEnum):
    """The kind of an event in a request's timeline."""

    #: Its first delivery to a worker.
    RECEIVED = "received"
    #: Something that was done in the cloud; it lasts from the intent to the outcome.
    EFFECT = "effect"
    #: A status update was published.
    UPDATE = "update"
    #: An attempt ended, and another one follows; it lasts until then.
    RETRY = "retry"
    #: What it waits for now; it lasts until now, or until the next attempt.
    WAIT = "wait"
    RESULT = "result"
    #: It was put into the queue of dead letters.
    DEAD = "dead"
    REPLAY = "replay"
    DISCARD = "discard"


class Mark(StrEnum):
    """The end of an event."""

    DONE = "done"
    FAILED = "failed"
    #: It is under way, or its outcome is not known.
    OPEN = "open"


@record
class Event:
    """Something that happened to a request. `until` is its end, where it lasts (later than now for
    a retry that is to come). `label` says it in a line, `subject` is the id of the server, image or
    volume that it happened to, `detail` says more: an error, who did it, OpenStack's request id.
    """

    at: float
    kind: EventKind
    label: str
    mark: Mark = Mark.DONE
    until: float | None = None
    detail: str | None = None
    subject: str | None = None

    @property
    def text(self) -> str:
        """Label and subject in a line."""
        return self.label if self.subject is None else f"{self.label} ({self.subject})"


@record
class FoundRequest:
    """A request that the journal knows.

    `place` and `queue` say where its message is, `why` in a line why it stays there and what to do,
    `goes_on_at` when it goes on (None where no time is set). `deliveries` of the record are counted;
    their times are not kept but for the first. `timeline` is in the order of its times.
    """

    record: RequestRecord
    place: Place
    queue: str | None
    why: str
    goes_on_at: float | None
    replays: tuple[Replay, ...]
    timeline: tuple[Event, ...]


@record
class FoundMessage:
    """A message that asks for it, in a queue or in the archive.

    `position` counts from the head of its queue (1). `code`, `error` and `failed_at` are a dead
    letter's. `goes_on_at` is a retry queue's: at the latest then. `identity` is the digest by which
    dead letters are told apart, empty in other places.
    """

    place: Place
    queue: str
    position: int | None
    key: str | None
    message_id: str | None
    operation: str | None
    tenant: str | None
    published_at: float | None
    why: str
    goes_on_at: float | None = None
    code: str | None = None
    error: str | None = None
    failed_at: float | None = None
    attempts: int = 0
    identity: str = ""


@record
class Held:
    """Messages of a queue that a worker holds and has not begun: a request that is nowhere else may
    be one of them. `oldest_at`: when the oldest of them was published.
    """

    queue: str
    worker: str
    waiting: int
    oldest_at: float | None


@record
class Found:
    """All that is known by one word (message_id, orderId, flowId or a whole key).

    `answer` says it in a line: where it is, why, and when it goes on. `unknown` names the places
    that could not be looked at, and why; where there are none and nothing was found, no queue and
    no record has it.
    """

    word: str
    answer: str
    requests: tuple[FoundRequest, ...]
    messages: tuple[FoundMessage, ...]
    held: tuple[Held, ...]
    unknown: tuple[str, ...]
    #: "broker", "journal": what could not be reached.
    unreachable: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """True where anything was found."""
        return bool(self.requests or self.messages)

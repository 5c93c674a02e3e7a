"""The records of a status: queues, workers, unfinished requests, dead letters, pauses, dependencies.

What cannot be known is None, and `Status.unknown` says why. Times are Unix seconds.
"""

from enum import StrEnum

from messages.record import record
from workers.amqp.broker import Where
from workers.amqp.names import Names
from workers.amqp.queues import Role
from workers.journal import UnfinishedRequest
from workers.settings import Settings


@record
class Sources:
    """Broker and journal that a status is read from. `journal_url` is a secret."""

    broker: Where
    names: Names
    retry_delays: tuple[int, ...]
    journal_url: str

    @classmethod
    def of(cls, settings: Settings) -> "Sources":
        """Return the sources of a worker's settings."""
        url = settings.journal_url.get_secret_value()
        return cls(settings.broker, settings.names, settings.retry_delays, url)


class Stage(StrEnum):
    """The stage that an unfinished request has reached."""

    #: A worker has it, and it waits for nothing that takes long.
    RUNNING = "running"
    #: It waits for its turn at a server, behind another request.
    WAITING_TURN = "waiting_turn"
    #: Its last attempt failed; its message is in a retry queue.
    WAITING_RETRY = "waiting_retry"
    #: It waits until the cloud has finished something.
    WAITING_RESOURCE = "waiting_resource"
    #: Its worker is gone: its message is in its queue, or comes back to it.
    NO_WORKER = "no_worker"
    #: It has its result, which the broker has not confirmed yet.
    ANSWERED = "answered"


@record
class QueueStatus:
    """A queue: `ready` messages wait and are held by nobody, `held` are with workers, not settled.

    `ready` and `consumers` are None where the queue is not declared or the broker cannot be
    reached; `held`, and the rates (messages a second over the last minute, of all workers
    together), where no worker tells them. `oldest_at` is when the oldest message was published;
    None where the queue is empty or it is not known, and then `oldest_unknown` says why. `delay`
    (seconds), `next_at` and `last_at` (when the first and the last of its messages go on) are a
    retry queue's. `trouble` says why nothing leaves the queue, None where it is worked off.
    """

    name: str
    role: Role
    ready: int | None
    held: int | None
    consumers: int | None
    oldest_at: float | None = None
    oldest_unknown: str | None = None
    delivered_rate: float | None = None
    settled_rate: float | None = None
    delay: int | None = None
    next_at: float | None = None
    last_at: float | None = None
    trouble: str | None = None


@record
class RequestGroup:
    """The unfinished requests of a tenant that are equally far. `oldest_at` is when the oldest was
    received, `oldest` its name, `next_at` when the first of them goes on (None where no time is
    set).
    """

    stage: Stage
    tenant: str
    count: int
    oldest_at: float
    oldest: str
    next_at: float | None


@record
class DeadLetterCause:
    """Dead letters that failed for one cause; `error` is that of the newest."""

    count: int
    code: str | None
    reason: str | None
    error: str | None
    oldest_at: float | None
    newest_at: float | None


@record
class DeadLetters:
    """The dead letters: `total` in the queue (None: unknown), and the causes as they were known at
    `known_at`. `unknown` says why the messages were not read; then the causes are those that the
    journal counts, without errors and times.
    """

    total: int | None
    causes: tuple[DeadLetterCause, ...]
    known_at: float | None
    unknown: str | None = None


class WorkerState(StrEnum):
    """A worker process as its last sign of life shows it."""

    ALIVE = "alive"
    #: Its process lives, and could not write: it hangs, or cannot reach the journal.
    SILENT = "silent"
    #: It drained and ended.
    ENDED = "ended"
    #: It was killed, or its host is gone.
    DEAD = "dead"


@record
class WorkerQueue:
    """A queue as one worker sees it. `why_not` says why it does not consume it; `held` are its
    deliveries that are not settled, of which `waiting` are not begun.
    """

    queue: str
    consuming: bool
    why_not: str | None
    held: int
    waiting: int
    delivered_rate: float | None
    settled_rate: float | None
    oldest_at: float | None


@record
class WorkerStatus:
    """A worker process by its own words. `problems` keep it from working (`/readyz`)."""

    owner: str
    host: str
    pid: int
    version: str
    region: str
    namespace: str
    started_at: float
    seen_at: float
    state: WorkerState
    queues: tuple[WorkerQueue, ...]
    problems: tuple[str, ...]
    #: Dependencies that are down for it, each with the reason.
    down: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """Host and process id."""
        return f"{self.host}:{self.pid}"

    @property
    def works(self) -> bool:
        """True unless it is known to have ended."""
        return self.state in (WorkerState.ALIVE, WorkerState.SILENT)


@record
class PausedKind:
    """A kind of requests (`reads`, `servers`, `images`, `orders`) that no worker begins; `until`
    is None where it lasts until somebody resumes it.
    """

    kind: str
    queue: str
    reason: str
    by: str
    since: float
    until: float | None


@record
class DependencyStatus:
    """Something that work needs: the broker, the journal, or what workers tell of the cloud.
    `is_up` is None where nobody can tell. `told_by` names the workers (empty: this process).
    """

    name: str
    is_up: bool | None
    why: str | None
    told_by: tuple[str, ...] = ()


@record
class Status:
    """Everything at one time. `findings` name what stands still or fails, the worst first, each
    with what to do; `unknown` names what could not be found out, and why.
    """

    at: float
    queues: tuple[QueueStatus, ...]
    requests: tuple[RequestGroup, ...]
    dead: DeadLetters
    workers: tuple[WorkerStatus, ...]
    paused: tuple[PausedKind, ...]
    dependencies: tuple[DependencyStatus, ...]
    findings: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """True where broker and journal could be reached."""
        return all(one.is_up for one in self.dependencies if one.name in ("broker", "journal"))


@record
class Noted:
    """The journal's part of a status."""

    unfinished: tuple[UnfinishedRequest, ...]
    workers: tuple[WorkerStatus, ...]
    paused: tuple[PausedKind, ...]
    #: Dead letters by cause, as they are counted: without error and times.
    causes: tuple[DeadLetterCause, ...] = ()


@record
class Oldest:
    """The time at which the oldest message of a queue was published, or why that is not known."""

    at: float | None
    unknown: str | None

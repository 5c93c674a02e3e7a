"""State of everything: queues, workers, unfinished requests, dead letters, pauses, dependencies.

Each number says where it comes from. What cannot be known is None, and `Status.unknown` says why.
Times are Unix seconds.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from enum import StrEnum

from messages.record import record
from messages.results import WaitReason
from workers.amqp.broker import Where, explain
from workers.amqp.names import Names
from workers.amqp.queues import QueueDepth, QueueDepths, Role
from workers.amqp.topology import NotDeclared, topology
from workers.dead_letters.dead_letter import unix_time
from workers.dead_letters.reader import Unreachable
from workers.dead_letters.selection import Selection, grouped, select_dead_letters
from workers.journal import History, JournalError, UnfinishedRequest
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
    """How far an unfinished request is."""

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
    `known_at`; None where they were not read, and then `unknown` says why.
    """

    total: int | None
    causes: tuple[DeadLetterCause, ...]
    known_at: float | None
    unknown: str | None = None


class WorkerState(StrEnum):
    """A worker process as its last sign of life shows it."""

    ALIVE = "alive"
    #: Its last sign of life is old: it hangs, or was killed.
    SILENT = "silent"
    #: It drained and ended.
    ENDED = "ended"


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
        return all(one.is_up for one in self.dependencies if not one.told_by)


#: Dead letters that are read through to tell their causes; of more, the operator is to list them.
MOST_READ = 5000
#: Seconds between two readings of the dead letters by one reader.
_READ_EVERY = 30.0


class StatusReader:
    """Reads the status again and again, and keeps its connections. One `read` at a time."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        wanted = topology(sources.retry_delays, sources.names)
        self._depths = QueueDepths(sources.broker, sources.names, wanted)
        self._wanted = [one.name for one in wanted.queues]
        self._history: History | None = None
        self._causes: tuple[int, float, tuple[DeadLetterCause, ...]] | None = None

    async def read(self) -> Status:
        """Return the status now. What cannot be reached is told in it: nothing is raised for it."""
        (depths, broker), (unfinished, journal) = await asyncio.gather(
            asyncio.to_thread(self._read_depths), asyncio.to_thread(self._read_journal)
        )
        now = time.time()
        dead = await self._dead(depths, now)
        queues = tuple(_queue(one, unfinished or (), self._sources.retry_delays) for one in depths)
        dependencies = (broker, journal)
        unknown = [
            f"{one.name} cannot be reached ({one.why}): {_LOST[one.name]}"
            for one in dependencies
            if not one.is_up
        ]
        if dead.unknown is not None and broker.is_up:
            unknown.append(dead.unknown)
        return Status(
            at=now,
            queues=queues,
            requests=tuple(_groups(unfinished or ())),
            dead=dead,
            workers=(),
            paused=(),
            dependencies=dependencies,
            findings=tuple(_findings(queues)),
            unknown=tuple(unknown),
        )

    def close(self) -> None:
        """Close all connections. Blocks for a moment."""
        self._depths.close()
        if self._history is not None:
            self._history.close()

    def _read_depths(self) -> tuple[tuple[QueueDepth, ...], DependencyStatus]:
        try:
            return self._depths.read(), DependencyStatus("broker", True, None)
        except Exception as error:
            cause = explain(error, self._sources.broker)
            return (), DependencyStatus("broker", False, f"{cause.reason}; {cause.advice}")

    def _read_journal(self) -> tuple[list[UnfinishedRequest] | None, DependencyStatus]:
        try:
            if self._history is None:
                self._history = History(self._sources.journal_url).open()
            return self._history.unfinished_requests(), DependencyStatus("journal", True, None)
        except JournalError as error:
            return None, DependencyStatus("journal", False, str(error))

    async def _dead(self, depths: Iterable[QueueDepth], now: float) -> DeadLetters:
        """Read through the dead letters, unless nothing has come or gone since, or they are too
        many or held by another reader.
        """
        found = next((one for one in depths if one.role is Role.DEAD), None)
        if found is None or found.ready is None:
            return DeadLetters(None, (), None)
        total, name = found.ready, found.name
        if total == 0 and not found.consumers:
            self._causes = None
            return DeadLetters(0, (), now)
        if self._causes is not None:
            count, at, causes = self._causes
            if count == total or now - at < _READ_EVERY:
                return DeadLetters(total, causes, at)
        why = None
        if found.consumers:
            why = f"the causes in {name} are not known: another reader holds its messages"
        elif total > MOST_READ:
            why = (
                f"the causes of {total} dead letters are not read here (up to {MOST_READ}):"
                " ecs-worker dead list --group"
            )
        if why is None:
            try:
                selected = await select_dead_letters(
                    self._sources.broker, self._sources.names, Selection()
                )
            except (Unreachable, NotDeclared) as error:
                why = f"the causes in {name} are not known: {error}"
        if why is not None:
            return DeadLetters(total, (), None, why)
        causes = tuple(
            DeadLetterCause(
                one.count,
                one.code,
                None,
                one.error,
                unix_time(one.oldest) or None,
                unix_time(one.newest) or None,
            )
            for one in grouped(selected.letters)
        )
        self._causes = (total, now, causes)
        return DeadLetters(total, causes, now)


_LOST = {
    "broker": "the queues are not shown",
    "journal": "requests, workers and pauses are not shown",
}


def _queue(
    depth: QueueDepth, unfinished: Sequence[UnfinishedRequest], delays: Sequence[int]
) -> QueueStatus:
    due = []
    if depth.delay is not None:
        due = [
            one.wait.until
            for one in unfinished
            if one.wait is not None
            and one.wait.until is not None
            and retry_delay(one.wait.until - one.wait.since, delays) == depth.delay
        ]
    trouble = None
    if depth.ready is None:
        trouble = "it is not declared: run ecs-worker topology apply, or start a worker"
    elif depth.ready and not depth.consumers and depth.role in (Role.INPUT, Role.UNDELIVERED):
        trouble = "nobody consumes it: start a worker"
    return QueueStatus(
        name=depth.name,
        role=depth.role,
        ready=depth.ready,
        held=None,
        consumers=depth.consumers,
        delay=depth.delay,
        next_at=min(due, default=None),
        last_at=max(due, default=None),
        trouble=trouble,
    )


def retry_delay(seconds: float, delays: Sequence[int]) -> int:
    """Return the delay of the retry queue in which a message waits that goes on after so many
    seconds.
    """
    return min(delays, key=lambda delay: abs(delay - seconds))


def stage_of(request: UnfinishedRequest) -> Stage:
    """Return how far an unfinished request is."""
    if request.is_answered:
        return Stage.ANSWERED
    if request.wait is None:
        return Stage.RUNNING
    return {
        WaitReason.TURN: Stage.WAITING_TURN,
        WaitReason.RETRY: Stage.WAITING_RETRY,
        WaitReason.RESOURCE: Stage.WAITING_RESOURCE,
        WaitReason.WORKER: Stage.NO_WORKER,
    }[request.wait.reason]


def _groups(unfinished: Iterable[UnfinishedRequest]) -> list[RequestGroup]:
    groups: defaultdict[tuple[Stage, str], list[UnfinishedRequest]] = defaultdict(list)
    for one in unfinished:
        groups[stage_of(one), one.tenant].append(one)
    found = []
    for (stage, tenant), members in groups.items():
        oldest = min(members, key=lambda one: one.received_at)
        due = [one.wait.until for one in members if one.wait and one.wait.until is not None]
        found.append(
            RequestGroup(
                stage,
                tenant,
                len(members),
                oldest.received_at,
                oldest.name,
                min(due, default=None),
            )
        )
    return sorted(found, key=lambda one: one.oldest_at)


def _findings(queues: Iterable[QueueStatus]) -> list[str]:
    return [
        f"{one.name}: {one.ready or 0} messages wait, and {one.trouble}"
        if one.ready is not None
        else f"{one.name}: {one.trouble}"
        for one in queues
        if one.trouble is not None
    ]

"""State of everything: queues, workers, unfinished requests, dead letters, pauses, dependencies.

Each number says where it comes from. What cannot be known is None, and `Status.unknown` says why.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from workers.admin.peek import NotLooked, Peeker
from workers.admin.reports import (
    LOST,
    consumed_at,
    findings,
    groups,
    read_pauses,
    read_workers,
    retry_delay,
    told_by_workers,
    trouble_of,
)
from workers.admin.state import (
    DeadLetterCause,
    DeadLetters,
    DependencyStatus,
    Noted,
    Oldest,
    PausedKind,
    QueueStatus,
    RequestGroup,
    Sources,
    Stage,
    Status,
    WorkerQueue,
    WorkerState,
    WorkerStatus,
)
from workers.amqp.broker import explain
from workers.amqp.queues import QueueDepth, QueueDepths, Role
from workers.amqp.topology import NotDeclared, topology
from workers.dead_letters.dead_letter import unix_time
from workers.dead_letters.reader import Unreachable
from workers.dead_letters.selection import Selection, grouped, select_dead_letters
from workers.journal import History, JournalError, Looks, Operations

__all__ = [
    "DeadLetterCause",
    "DeadLetters",
    "DependencyStatus",
    "PausedKind",
    "QueueStatus",
    "RequestGroup",
    "Sources",
    "Stage",
    "Status",
    "StatusReader",
    "WorkerQueue",
    "WorkerState",
    "WorkerStatus",
]

#: Dead letters that are read through to tell their causes; of more, the operator is to list them.
MOST_READ = 1000
#: Seconds between two readings of the dead letters by one reader.
_READ_EVERY = 30.0


class StatusReader:
    """Reads the status again and again, and keeps its connections. One `read` at a time."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        wanted = topology(sources.retry_delays, sources.names)
        self._depths = QueueDepths(sources.broker, sources.names, wanted)
        self._history: History | None = None
        self._operations = Operations(sources.journal_url, sources.names.namespace)
        self._looks = Looks(sources.journal_url)
        self.peeker = Peeker(sources.broker, sources.names, self._looks)
        self._causes: tuple[int, float, tuple[DeadLetterCause, ...]] | None = None

    async def read(self) -> Status:
        """Return the status now. What cannot be reached is told in it: nothing is raised for it."""
        (depths, broker), (journal, noted) = await asyncio.gather(
            asyncio.to_thread(self.read_depths), asyncio.to_thread(self.read_journal)
        )
        now = time.time()
        dead = await self._dead(depths, noted, now)
        heads = [await self._head(one, noted, dead) for one in depths]
        queues = tuple(
            _queue(depth, head, noted, self._sources.retry_delays)
            for depth, head in zip(depths, heads, strict=True)
        )
        dependencies = (broker, journal, *told_by_workers(noted.workers))
        unknown = [
            f"{one.name} cannot be reached ({one.why}): {LOST[one.name]}"
            for one in (broker, journal)
            if not one.is_up
        ]
        if dead.unknown is not None and broker.is_up:
            unknown.append(dead.unknown)
        found = Status(
            at=now,
            queues=queues,
            requests=tuple(groups(noted.unfinished)),
            dead=dead,
            workers=noted.workers,
            paused=noted.paused,
            dependencies=dependencies,
            findings=(),
            unknown=tuple(unknown),
        )
        return replace(found, findings=tuple(findings(found)))

    def close(self) -> None:
        """Close all connections. Blocks for a moment."""
        self._depths.close()
        self._operations.close()
        self._looks.close()
        if self._history is not None:
            self._history.close()

    def read_depths(self) -> tuple[tuple[QueueDepth, ...], DependencyStatus]:
        """Return the depths of all queues (none where the broker cannot be reached), and whether
        the broker could be reached. Blocks.
        """
        try:
            return self._depths.read(), DependencyStatus("broker", True, None)
        except Exception as error:
            cause = explain(error, self._sources.broker)
            return (), DependencyStatus("broker", False, f"{cause.reason}; {cause.advice}")

    def read_journal(self) -> tuple[DependencyStatus, "Noted"]:
        """Return whether the journal could be read, and what it tells. Blocks."""
        try:
            if self._history is None:
                self._history = History(self._sources.journal_url).open()
            noted = Noted(
                tuple(self._history.unfinished_requests()),
                read_workers(self._operations),
                read_pauses(self._operations, self._sources.names),
                tuple(
                    DeadLetterCause(one.messages, one.code, one.reason or None, None, None, None)
                    for one in self._history.dead_letter_causes(self._sources.names.namespace)
                ),
            )
            return DependencyStatus("journal", True, None), noted
        except JournalError as error:
            return DependencyStatus("journal", False, str(error)), Noted((), (), ())

    async def _head(self, depth: QueueDepth, noted: Noted, dead: DeadLetters) -> Oldest:
        """Return when the oldest message of a queue was published, as far as it can be told; of a
        dead letter, when it was dead-lettered.
        """
        if depth.role is Role.DEAD:
            known = [one.oldest_at for one in dead.causes if one.oldest_at is not None]
            return Oldest(min(known, default=None), dead.unknown)
        told = [
            one.oldest_at
            for worker in noted.workers
            if worker.works
            for one in worker.queues
            if one.queue == depth.name and one.oldest_at is not None
        ]
        held = min(told, default=None)
        if not depth.ready or depth.role is Role.RETRY:
            return Oldest(held, None)
        if depth.consumers:
            why = None if held is not None else "its consumers do not tell"
            return Oldest(held, why)
        try:
            head = await self.peeker.head(depth, consumed_at(depth.name, noted.workers))
        except NotLooked as error:
            return Oldest(held, str(error))
        if head.published_at is None:
            return Oldest(held, "its publisher sets no timestamp")
        return Oldest(min([head.published_at, *told]), None)

    async def _dead(self, depths: Iterable[QueueDepth], noted: Noted, now: float) -> DeadLetters:
        """Read through the dead letters, unless nothing has come or gone since. Where they are too
        many, or held by another reader, the causes are those that the journal counts, without
        errors and times.
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
        counted, why = noted.causes, None
        if found.consumers:
            why = f"the errors in {name} are not known: another reader holds its messages"
        elif total > MOST_READ:
            why = (
                f"the errors of {total} dead letters are not read here (up to {MOST_READ}):"
                " ecs-worker dead list --summary"
            )
        if why is None:
            try:
                selected = await select_dead_letters(
                    self._sources.broker, self._sources.names, Selection()
                )
            except (Unreachable, NotDeclared) as error:
                why = f"the errors in {name} are not known: {error}"
        if why is not None:
            return DeadLetters(total, counted, now if counted else None, why)
        causes = tuple(
            DeadLetterCause(
                one.count,
                one.code,
                one.reason,
                one.error,
                unix_time(one.oldest) or None,
                unix_time(one.newest) or None,
            )
            for one in grouped(selected.letters)
        )
        self._causes = (total, now, causes)
        return DeadLetters(total, causes, now)


def _queue(depth: QueueDepth, oldest: Oldest, noted: Noted, delays: Sequence[int]) -> QueueStatus:
    due = []
    if depth.delay is not None:
        due = [
            one.wait.until
            for one in noted.unfinished
            if one.wait is not None
            and one.wait.until is not None
            and retry_delay(one.wait.until - one.wait.since, delays) == depth.delay
        ]
    told = [
        one
        for worker in noted.workers
        if worker.works
        for one in worker.queues
        if one.queue == depth.name
    ]
    return QueueStatus(
        name=depth.name,
        role=depth.role,
        ready=depth.ready,
        held=sum(one.held for one in told) if told or not depth.consumers else None,
        consumers=depth.consumers,
        oldest_at=oldest.at,
        oldest_unknown=oldest.unknown,
        delivered_rate=sum(one.delivered_rate or 0.0 for one in told) if told else None,
        settled_rate=sum(one.settled_rate or 0.0 for one in told) if told else None,
        delay=depth.delay,
        next_at=min(due, default=None),
        last_at=max(due, default=None),
        trouble=trouble_of(depth, noted),
    )

"""Heartbeats: a worker's reports of itself every few seconds, for `ecs-worker status` and the console."""

import asyncio
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

import structlog
from pydantic import BaseModel, ConfigDict

from workers.amqp.consumer import Delivery
from workers.journal import Journal, JournalError, WorkerRow

log = structlog.get_logger()

#: Seconds between two heartbeats, and over which rates are taken.
BEAT_EVERY, RATE_SECONDS = 5.0, 60.0
#: The reason that a worker gives for a queue while it starts, and seconds for which it may start.
STARTING, STARTS_WITHIN = "starting", 10.0
#: Tenants of one queue that are told one by one.
MOST_TENANTS = 50


class _Report(BaseModel):
    """Reads reports of other versions, too, with more fields or fewer."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TenantReport(_Report):
    """Requests of one tenant that a worker holds: `begun`, and `waiting` for their turn."""

    begun: int = 0
    waiting: int = 0


class QueueReport(_Report):
    """One consumed queue, as one worker sees it. Rates are messages a second over the last minute;
    times are Unix seconds.
    """

    queue: str
    #: True while the broker delivers from it.
    consuming: bool = False
    #: Why it is not consumed, in words; None while it is.
    why: str | None = None
    #: Deliveries that the worker holds, and those of them that are begun.
    held: int = 0
    begun: int = 0
    #: Deliveries and acks since the start.
    delivered: int = 0
    settled: int = 0
    delivered_rate: float = 0.0
    settled_rate: float = 0.0
    #: When the oldest message that is held was published; None where none is held.
    oldest_published_at: float | None = None
    #: By project id; "" for those that are not authenticated yet.
    #: Those with most requests.
    tenants: Mapping[str, TenantReport] = {}
    #: Tenants that are not told one by one.
    more_tenants: int = 0


class PauseReport(_Report):
    """A pause that the worker obeys."""

    kind: str
    since: float
    until: float | None = None
    reason: str = ""
    operator: str = ""
    id: str = ""


class WorkerReport(_Report):
    """One worker's report of itself."""

    queues: tuple[QueueReport, ...] = ()
    #: As `/readyz` has them.
    problems: tuple[str, ...] = ()
    #: Dependencies that are down, each with the reason.
    down: Mapping[str, str] = {}
    pauses: tuple[PauseReport, ...] = ()
    in_flight: int = 0
    waiting: int = 0
    draining: bool = False


class Heartbeat:
    """Writes what the worker tells of itself to the journal, every 5 s and at the end.

    Nothing waits for it: one write at a time is under way, and while the journal is down there is
    no other.
    """

    def __init__(
        self,
        journal: Journal,
        region: str,
        namespace: str,
        report: Callable[[], Awaitable[WorkerReport]],
    ) -> None:
        self._journal = journal
        self._report = report
        now = time.time()
        self._row = WorkerRow(
            owner="",
            host=socket.gethostname()[:255],
            pid=os.getpid(),
            version=version("ecs-worker"),
            region=region[:255],
            namespace=namespace,
            started_at=now,
            seen_at=now,
            ended_at=None,
            document="{}",
        )
        self._soon = asyncio.Event()

    def soon(self) -> None:
        """Write the next one now: something has changed that operators wait for."""
        self._soon.set()

    async def watch(self) -> None:
        """Write one after the other, until cancelled."""
        while True:
            self._soon.clear()
            try:
                await self._write()
            except JournalError as error:
                log.warning("heartbeat.not_written", why=str(error))
            try:
                await asyncio.wait_for(self._soon.wait(), BEAT_EVERY)
            except TimeoutError:
                continue

    async def end(self) -> None:
        """Submit the last one, which is written when the journal is closed."""
        await self._write(is_last=True)

    async def _write(self, *, is_last: bool = False) -> None:
        report = await self._report()
        now = time.time()
        row = replace(
            self._row,
            owner=self._journal.owner,
            seen_at=now,
            ended_at=now if is_last else None,
            document=report.model_dump_json(),
        )
        written = self._journal.beat(row)
        if not is_last:
            await written


class Rates:
    """Messages a second over the last minute, from counts since the start."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Counter[str]]] = deque()

    def take(self, counts: Counter[str]) -> Mapping[str, float]:
        """Note the counts of now, by queue; return the rates."""
        now, known = time.monotonic(), counts.copy()
        self._samples.append((now, known))
        while now - self._samples[0][0] > RATE_SECONDS and len(self._samples) > 2:
            self._samples.popleft()
        then, before = self._samples[0]
        if now - then < 1.0:
            return {}
        return {
            queue: round((number - before[queue]) / (now - then), 2)
            for queue, number in known.items()
        }


def report_held(queues: Sequence[str], held: Iterable[Delivery]) -> list[QueueReport]:
    """Return what is held of each queue. Called in a thread: what is told may change meanwhile."""
    by_queue: dict[str, list[Delivery]] = {queue: [] for queue in queues}
    for delivery in held:
        by_queue[delivery.envelope.queue].append(delivery)
    return [_report_queue(queue, some) for queue, some in by_queue.items()]


def _report_queue(queue: str, held: Iterable[Delivery]) -> QueueReport:
    begun: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    oldest: float | None = None
    for delivery in held:
        envelope, tenant = delivery.envelope, delivery.tenant or ""
        (begun if delivery.is_begun else waiting)[tenant] += 1
        # A publisher's clock may be ahead of ours.
        at = min(envelope.timestamp or envelope.arrived, envelope.first_seen)
        oldest = at if oldest is None else min(oldest, at)
    most = (begun + waiting).most_common(MOST_TENANTS)
    return QueueReport(
        queue=queue,
        held=begun.total() + waiting.total(),
        begun=begun.total(),
        oldest_published_at=oldest,
        tenants={
            tenant: TenantReport(begun=begun[tenant], waiting=waiting[tenant]) for tenant, _ in most
        },
        more_tenants=len(begun + waiting) - len(most),
    )

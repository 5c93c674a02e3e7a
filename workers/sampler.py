"""Numbers of a running worker for its metrics: its own, and those that it asks others for.

Its own are read with each scrape. Broker and journal are asked in between, in threads: a scrape waits
for nobody. What they do not tell is not a number (`NaN`), which is neither below a limit nor above it.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.metadata import version

from handlers.effects.concurrency import in_daemon_thread
from messages.record import record
from workers.amqp.consumer import Consumer
from workers.amqp.envelope import Envelope
from workers.amqp.publisher import Publisher
from workers.amqp.queues import QueueDepth, QueueDepths, Role
from workers.circuit_breaker import COMPUTE, IDENTITY, IMAGE, JOURNAL, CircuitBreaker
from workers.identity import NO_PROJECT
from workers.journal import WAITS, Figures, Journal, JournalError, Kind, Unfinished
from workers.metrics import OTHER, Metrics, Series, build_info, states
from workers.pipeline.process import Pipeline

#: Seconds between two looks at the broker's queues.
LOOK_EVERY = 10.0
#: Tenants that have series of their own; the others count as one.
MOST_TENANTS = 20
#: Causes of dead letters that have series of their own, and the cause of those that nobody counted.
MOST_CAUSES, UNKNOWN = 30, "unknown"
#: The value of `tenant` for requests that belong to no single one, and for those of which it is not
#: known yet.
_NO_TENANT = "-"
#: The value of `exchange` for the default exchange.
_REPLY_QUEUES = "reply queues"


@record
class Watched:
    """The parts of a worker whose numbers are shown. `problems` returns a line for each reason why
    it is not ready.
    """

    pipeline: Pipeline
    consumer: Consumer
    publisher: Publisher
    circuit_breaker: CircuitBreaker
    journal: Journal
    problems: Callable[[], list[str]]


class Sampler:
    """Shows a worker's numbers; those of the broker's queues are as old as the last look."""

    def __init__(self, metrics: Metrics, watched: Watched, queues: QueueDepths) -> None:
        self._watched = watched
        self._queues = queues
        self._depths: tuple[QueueDepth, ...] = ()
        self._figures: Figures | None = None
        self._show_own(metrics)
        self._show_queues(metrics)
        self._show_journal(metrics)

    async def watch(self) -> None:
        """Ask broker and journal again and again, until cancelled."""
        while True:
            await asyncio.gather(self._look_at_queues(), self._look_at_journal())
            try:
                await asyncio.sleep(LOOK_EVERY)
            except asyncio.CancelledError:
                await in_daemon_thread(self._queues.close, "queue depths")
                raise

    async def _look_at_queues(self) -> None:
        try:
            self._depths = await in_daemon_thread(self._queues.read, "queue depths")
        except Exception:
            # The log and `ecs_dependency_up` tell that the broker is away.
            self._depths = ()

    async def _look_at_journal(self) -> None:
        try:
            self._figures = await self._watched.journal.figures(self._queues.namespace)
        except JournalError:
            self._figures = None

    def _show_own(self, metrics: Metrics) -> None:
        watched = self._watched
        pipeline, consumed, publisher = (
            watched.pipeline,
            watched.consumer.connection,
            watched.publisher,
        )
        metrics.show_all(
            "ecs_build_info",
            "1; the labels say which version runs",
            ("version", "python"),
            lambda: build_info(version("ecs-worker")),
        )
        metrics.show("ecs_ready", "1 while /readyz answers 200", lambda: not watched.problems())
        metrics.show_all(
            "ecs_dependency_up",
            "1 while the worker can use it, as far as it knows",
            ("dependency",),
            self._dependencies,
        )
        metrics.show("ecs_in_flight", "Requests in progress", lambda: pipeline.in_flight)
        metrics.show(
            "ecs_waiting",
            "Requests that wait for their tenant's turn",
            lambda: pipeline.waiting,
        )
        metrics.show_all(
            "ecs_tenant_requests",
            f"Requests of this worker by tenant and state; the {MOST_TENANTS} tenants that have most",
            ("tenant", "state"),
            self._tenants,
        )
        metrics.show(
            "ecs_publications_unconfirmed",
            "Messages that the broker has not confirmed yet",
            lambda: publisher.unconfirmed,
        )
        metrics.show_all(
            "ecs_publications_overdue",
            "Messages that the broker has not confirmed for 30 s, by exchange",
            ("exchange",),
            self._overdue,
        )
        metrics.show(
            "ecs_broker_reconnects_total",
            "Connections to the broker that were lost or failed",
            lambda: consumed.reconnects + publisher.reconnects,
        )

    def _show_queues(self, metrics: Metrics) -> None:
        metrics.show_all(
            "ecs_queue_messages",
            "Messages in a queue that no consumer holds; NaN: not known",
            ("queue",),
            lambda: self._of_queues(lambda one: one.ready),
        )
        metrics.show_all(
            "ecs_queue_consumers",
            "Consumers of a queue, other workers' included; NaN: not known",
            ("queue",),
            lambda: self._of_queues(lambda one: one.consumers),
        )
        metrics.show_all(
            "ecs_oldest_message_seconds",
            "Seconds for which the oldest message that this worker holds and has not begun has waited; NaN: not known",
            ("queue",),
            self._ages,
        )

    def _show_journal(self, metrics: Metrics) -> None:
        metrics.show(
            "ecs_workers",
            "Workers of this namespace that have told of themselves within 20 s; NaN: not known",
            lambda: self._figures.workers if self._figures is not None else math.nan,
        )
        metrics.show_all(
            "ecs_unfinished_requests",
            "Requests of the journal without a published result, by what they wait for; NaN: not known",
            ("kind", "waits_for"),
            lambda: self._unfinished(lambda found: found.number if found is not None else 0),
        )
        metrics.show_all(
            "ecs_oldest_unfinished_seconds",
            "Seconds since the oldest of them first came to a worker; NaN: not known",
            ("kind", "waits_for"),
            lambda: self._unfinished(
                lambda found: time.time() - found.oldest if found is not None else 0
            ),
        )
        metrics.show_all(
            "ecs_dead_letters",
            f"Dead letters by code and reason, the {MOST_CAUSES} causes that have most; an estimate",
            ("cause",),
            self._causes,
        )

    def _unfinished(self, number: Callable[[Unfinished | None], float]) -> Series:
        figures = self._figures
        for kind in Kind:
            for wait in WAITS:
                found = figures.unfinished.get((kind, wait)) if figures is not None else None
                yield (kind.value, wait), number(found) if figures is not None else math.nan

    def _causes(self) -> Series:
        """Return the journal's counts, set right by the depth of the queue, which alone is exact."""
        counts = {
            f"{one.code} {one.reason}".strip() or UNKNOWN: one.messages
            for one in (self._figures.causes if self._figures is not None else ())
            if one.messages > 0
        }
        depth = next((one.ready for one in self._depths if one.role is Role.DEAD), None)
        if depth is None:
            return [((UNKNOWN,), math.nan)]
        return [((cause,), number) for cause, number in shares(counts, depth).items()]

    def _of_queues(self, number: Callable[[QueueDepth], int | None]) -> Series:
        known = {one.name: number(one) for one in self._depths}
        for name in self._queues.names:
            found = known.get(name)
            yield (name,), math.nan if found is None else found

    def _ages(self) -> Series:
        now = time.time()
        oldest: dict[str, float] = {}
        for delivery in self._watched.pipeline.held:
            if not delivery.is_begun:
                queue, since = delivery.envelope.queue, _waits_since(delivery.envelope)
                oldest[queue] = min(since, oldest.get(queue, since))
        known = {one.name: one.ready for one in self._depths}
        for name in self._watched.consumer.queues:
            if name in oldest:
                yield (name,), now - oldest[name]
            else:
                # What nobody holds stands in the queue, and metrics do not take it out to look.
                yield (name,), 0.0 if known.get(name) == 0 else math.nan

    def _tenants(self) -> Series:
        by_state: dict[str, Counter[str]] = {"running": Counter(), "waiting": Counter()}
        for delivery in self._watched.pipeline.held:
            tenant = delivery.tenant
            name = _NO_TENANT if tenant is None or tenant == NO_PROJECT else tenant
            by_state["running" if delivery.is_begun else "waiting"][name] += 1
        most = sum(by_state.values(), Counter[str]()).most_common(MOST_TENANTS)
        for state, counts in by_state.items():
            for name, _ in most:
                yield (name, state), counts[name]
            rest = counts.total() - sum(counts[name] for name, _ in most)
            yield (OTHER, state), rest

    def _overdue(self) -> Series:
        counts = Counter(dict.fromkeys(self._watched.publisher.exchanges, 0))
        for overdue in self._watched.publisher.overdue():
            counts[overdue.route[0]] += overdue.messages
        for exchange, number in counts.items():
            yield (exchange or _REPLY_QUEUES,), number

    def _dependencies(self) -> Series:
        watched, down = self._watched, self._watched.circuit_breaker.down
        is_broker_up = (
            watched.consumer.connection.is_up
            and watched.publisher.is_up
            and not watched.publisher.is_blocked
        )
        services = {one: one not in down for one in (JOURNAL, IDENTITY, COMPUTE, IMAGE)}
        return states({"broker": is_broker_up, **services})


def _waits_since(envelope: Envelope) -> float:
    """Return since when a message waits to be begun: since it was published, or came back from a
    retry queue (Unix seconds).
    """
    if not envelope.is_first:
        return envelope.arrived
    # The timestamp is the publisher's, who may have set none, or has a wrong clock.
    return min(envelope.timestamp or envelope.arrived, envelope.arrived)


def shares(counts: Mapping[str, int], depth: int) -> dict[str, float]:
    """Return counts by cause that add up to the depth of the queue. What is there beyond them is
    `unknown`; where there are fewer messages, each cause has its share of them.
    """
    most = Counter(counts).most_common(MOST_CAUSES)
    named = dict(most) | {OTHER: sum(counts.values()) - sum(number for _, number in most)}
    counted = sum(named.values())
    scale = min(1.0, depth / counted) if counted else 0.0
    found = {cause: float(round(number * scale)) for cause, number in named.items()}
    found[UNKNOWN] = found.get(UNKNOWN, 0.0) + max(0, depth - counted)
    return found

"""The wiring of a worker: the only place where its parts are put together."""

import asyncio
import contextlib
import ctypes
import gc
import importlib
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import structlog

from handlers.catalogue import HANDLERS, Handler
from handlers.context import Environment, Policy
from handlers.effects.backoff import Deadline
from handlers.effects.concurrency import in_daemon_thread
from handlers.openstack.cloud import Cloud
from handlers.openstack.errors import CloudRefusal
from handlers.openstack.sessions import CloudSettings, region_name
from messages.errors import Transient
from messages.texts import without_urls
from messages.wire import MAX_BODY
from workers import GARBAGE_THRESHOLDS
from workers.amqp.broker import explain
from workers.amqp.consumer import Consumer, Consuming
from workers.amqp.declare import TopologyDeclarer
from workers.amqp.delivery_limit import UNREACHABLE, has_delivery_limit, policy_command
from workers.amqp.publisher import Publisher
from workers.amqp.queues import QueueDepths
from workers.amqp.topology import topology
from workers.circuit_breaker import JOURNAL, CircuitBreaker
from workers.health import HealthServer
from workers.heartbeat import (
    STARTING,
    STARTS_WITHIN,
    Heartbeat,
    PauseReport,
    Rates,
    WorkerReport,
    report_held,
)
from workers.identity import Identity, JournalReplays, ResumeTokenAuthentication, TrustedPublishers
from workers.identity.jwks_source import key_source
from workers.journal import Journal
from workers.metrics import Metrics
from workers.pauses import Pauses
from workers.pipeline.attempt import Attempt
from workers.pipeline.authentication import Authentication
from workers.pipeline.idempotency import Idempotency
from workers.pipeline.in_flight import InFlightRequests
from workers.pipeline.large_bodies import SWITCH_INTERVAL
from workers.pipeline.process import Pipeline, Stages
from workers.pipeline.rejections import Rejections, note_dead_letter
from workers.pipeline.replies import Replies
from workers.pipeline.request_log import JournalRequests
from workers.pipeline.server_locks import ServerLocks
from workers.pipeline.suspects import Suspects
from workers.pipeline.timeouts import Timeouts
from workers.pipeline.turns import RequestTurns
from workers.pipeline.undeliverable import Undeliverable
from workers.sampler import Sampler, Watched
from workers.settings import DEFAULT_CONCURRENCY, ConfigurationError, Settings, traces_of

if TYPE_CHECKING:
    from workers.identity.key_set import KeySet

log = structlog.get_logger()

#: Seconds that what is under way may take when the worker is told to end; the next worker goes on
#: with the rest.
DRAIN = 20.0
#: Seconds after which a worker that was told to end has ended, whatever hangs. The grace period of
#: whoever runs it is to be longer (`stop_grace_period` in docker-compose.yml).
DRAIN_LIMIT = 34.0
#: Seconds for the broker to confirm, for it to agree to the end of a connection, and to let go of
#: the journal.
_CONFIRMS, _GOODBYE, _LETTING_GO = 4.0, 3.0, 2.0
#: Seconds for the first look at what operators have paused; the journal has just been opened.
_FIRST_LOOK = 10.0
#: Seconds for the last spans of traces.
_LAST_SPANS = 2.0
#: Seconds for which commands are remembered; orders are for good, whole or pruned.
COMMANDS_KEPT = 7 * 86400.0
#: Seconds for which discarded dead letters can be restored.
ARCHIVE_KEPT = 30 * 86400.0
_PRUNE_EVERY, _PRUNE_BREATH = 600.0, 0.1
#: Seconds between two looks at the service account while it is well, and while it is not.
_LOOK_EVERY, _LOOK_SOON = 60.0, 5.0
#: Exchanges and routing keys that are named of those that confirm nothing.
_SHOWN = 3
#: Of glibc's `mallopt`.
_M_MMAP_THRESHOLD = -3


def cloud_settings(settings: Settings) -> CloudSettings:
    """Return the settings of the clouds."""
    return CloudSettings(
        cloud=settings.os_cloud,
        config_file=settings.os_client_config_file,
        admin_cloud=settings.admin_cloud,
        project_domain=settings.project_domain,
        threads=settings.openstack_threads,
    )


def policy_of(settings: Settings) -> Policy:
    """Return the operator's decisions. Blocks; raises `ConfigurationError` where the worker's
    region is not known.
    """
    return Policy(
        settings.require_fee_data, ZoneInfo(settings.billing_timezone), own_region(settings)
    )


def own_region(settings: Settings) -> str:
    """Return the region whose orders are carried out. Raises `ConfigurationError` where it is not
    known, or the clouds' differ.

    A guess would make servers in the wrong region, or say of another region's that they are gone.
    """
    clouds = cloud_settings(settings)
    if settings.region is not None and clouds.admin_cloud is None:
        return settings.region  # nothing in clouds.yaml can contradict it
    try:
        found = region_name(clouds, clouds.cloud)
        admins = region_name(clouds, clouds.admin_cloud) if clouds.admin_cloud is not None else None
    except Transient as error:
        if settings.region is not None:
            return settings.region  # what is wrong with clouds.yaml shows when the cloud is asked
        raise ConfigurationError(
            [f"ECS_REGION: not set, and clouds.yaml does not tell it: {error}"]
        ) from None
    if admins is not None and found is not None and admins != found:
        raise ConfigurationError(
            [
                f"ECS_ADMIN_CLOUD: its region_name is {admins}, that of the service account's cloud {found}"
            ]
        )
    own = settings.region or found
    if own is None:
        raise ConfigurationError(
            [
                "ECS_REGION: must be set to the region whose orders are carried out: clouds.yaml has no region_name"
            ]
        )
    return own


def _import_late_modules() -> None:
    """Import what the standard library imports on first use: by then there may be no file
    descriptor left.
    """
    importlib.import_module("_strptime")


def collect_seldom() -> None:
    """Collect garbage seldom. Requests live for seconds, modules for good; by default all of them
    would be looked at every 700 new objects.

    What is there stays: imports leave hardly any garbage, and looking for it would take 40 ms.
    """
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def _release_large_buffers() -> None:
    """Have glibc release large buffers: after the first one it would keep up to 64 MiB free for
    later ones.
    """
    with contextlib.suppress(OSError, AttributeError):  # another libc keeps its own rules
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1024 * 1024)


async def _within(end: Coroutine[Any, Any, Any], seconds: float) -> bool:
    """Await the end of something for so many seconds; True where it came."""
    try:
        await asyncio.wait_for(end, max(0.0, seconds))
    except TimeoutError:
        return False
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """All that a pipeline works with. A dry run puts doubles in the place of journal and replies.

    `declare_again` is called where a binding of the worker's is gone.
    """

    cloud: Cloud
    identity: Identity
    journal: Journal
    replies: Replies
    handlers: Mapping[type, Handler]
    policy: Policy
    timeouts: Timeouts
    metrics: Metrics
    declare_again: Callable[[], None] = lambda: None
    #: Requests that are begun at once of each queue and kind.
    concurrency: int = DEFAULT_CONCURRENCY


def wire_pipeline(around: Surroundings) -> Pipeline:
    """Return a pipeline with all its stages."""
    journal, replies, timeouts = around.journal, around.replies, around.timeouts
    in_flight = InFlightRequests()
    rejections = Rejections(replies, around.identity, journal, around.policy, around.metrics)
    stages = Stages(
        Authentication(around.identity, journal, timeouts),
        RequestTurns(around.concurrency),
        Idempotency(journal, in_flight, replies, timeouts),
        ServerLocks(journal, in_flight, timeouts.retry_delays),
        Suspects(timeouts.retry_delays),
        Attempt(
            Environment(around.cloud, around.policy, JournalRequests(journal)),
            around.handlers,
            timeouts,
        ),
        rejections,
        Undeliverable(replies, rejections, around.identity, journal, around.declare_again),
    )
    return Pipeline(stages, timeouts, around.metrics, around.policy.region)


class Worker:
    """A worker from start to drained."""

    def __init__(self, settings: Settings, handlers: Mapping[type, Handler] = HANDLERS) -> None:
        self._settings = settings
        broker = settings.broker
        names = settings.names
        self._undelivered = names.undelivered_queue
        self._consumed = (*names.input_queues, names.undelivered_queue)
        self._policy = policy_of(settings)
        self._traces = traces_of("ecs-worker")
        self.metrics = Metrics()
        self.journal = Journal(settings.journal_url.get_secret_value())
        self.journal.on_unfit = self.stop
        self.cloud = Cloud(cloud_settings(settings), self._called)
        self.circuit_breaker = CircuitBreaker(
            names, self.cloud.probe, lambda: self.journal.trouble, self._choose_queues
        )
        self.pauses = Pauses(self.journal, names, self._paused)
        self._keys: KeySet | None = None
        wanted = topology(settings.retry_delays, names)
        self._declarer = TopologyDeclarer(broker, wanted, on_mismatch=self.stop)
        self.publisher = Publisher(broker, names, on_missing=self._declarer.declare_soon)
        self.pipeline = wire_pipeline(
            Surroundings(
                cloud=self.cloud,
                identity=self._identity(),
                journal=self.journal,
                replies=Replies(
                    self.publisher,
                    names,
                    self.metrics,
                    self._declarer.declare_soon,
                    partial(note_dead_letter, self.journal),
                ),
                handlers=handlers,
                policy=self._policy,
                timeouts=Timeouts(
                    settings.command_timeout,
                    settings.order_timeout,
                    settings.max_age,
                    tuple(settings.retry_delays),
                ),
                metrics=self.metrics,
                declare_again=self._declarer.declare_soon,
                concurrency=settings.concurrency,
            )
        )
        self.consumer = Consumer(
            broker,
            Consuming(names, self._consumed, settings.prefetch, MAX_BODY),
            self.pipeline.accept,
            on_cancelled=lambda _: self._declarer.declare_soon(),
            on_lost=self.pipeline.give_up_lost,
        )
        self._sampler = Sampler(
            self.metrics,
            Watched(
                pipeline=self.pipeline,
                consumer=self.consumer,
                publisher=self.publisher,
                circuit_breaker=self.circuit_breaker,
                journal=self.journal,
                problems=self.problems,
            ),
            QueueDepths(broker, names, wanted),
        )
        self._heartbeat = Heartbeat(self.journal, self._policy.region, names.namespace, self.report)
        # What operators see of a queue is right at once, and not at the next heartbeat.
        self.consumer.on_agreed = self._heartbeat.soon
        self._delivered, self._settled = Rates(), Rates()
        #: Until then (monotonic seconds) it is no trouble that the broker has not answered yet;
        #: None: it has started.
        self._starts_until: float | None = None
        self.metrics.show_all(
            "ecs_paused",
            "1 while an operator has paused this kind of requests",
            ("kind", "queue"),
            self.pauses.series,
        )
        #: Why the service account cannot act in the tenants' projects.
        self._account_trouble: str | None = None
        self._stopping = asyncio.Event()
        #: Whether threads hang that nobody waits for any more: the process is to end without them.
        self.is_hung = False

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT, then drain.

        `PortUnusable` and `JournalError` at the start end it, too, and `TopologyMismatch` and
        `JournalUnfit` at any time.
        """
        self._catch_signals()
        if self._traces is not None:
            self._traces.begin()
        # Before anything else: a worker whose port is taken must not have consumed anything.
        health = await self._health()
        await self.journal.open()
        if not await self._until_declared():
            await self.journal.close()
            return
        _release_large_buffers()
        _import_late_modules()
        collect_seldom()
        sys.setswitchinterval(SWITCH_INTERVAL)
        self.publisher.open()
        # Before anything is consumed: a paused kind stays paused for a worker that starts.
        await _within(self.pauses.read(), _FIRST_LOOK)
        self._choose_queues()
        self._starts_until = time.monotonic() + STARTS_WITHIN
        self.consumer.open()
        beating = asyncio.create_task(self._heartbeat.watch())
        besides = [
            asyncio.create_task(self.pauses.watch()),
            asyncio.create_task(self._prune()),
            asyncio.create_task(self.circuit_breaker.watch()),
        ]
        besides += [
            asyncio.create_task(self._declarer.watch()),
            asyncio.create_task(self._watch_account()),
            asyncio.create_task(self._look_for_delivery_limit()),
        ]
        if health is not None:  # nobody asks for the numbers otherwise
            besides.append(asyncio.create_task(self._sampler.watch()))
        if self._keys is not None:
            besides.append(asyncio.create_task(self._keys.watch()))
        log.info("worker.started", prefetch=self._settings.prefetch)
        await self._stopping.wait()
        for task in besides:
            task.cancel()
        self._heartbeat.soon()
        await self._drain(beating)
        if health is not None:
            health.close()
        log.info("worker.ended")
        if self._declarer.mismatch is not None:
            raise self._declarer.mismatch
        if self.journal.unfit is not None:
            raise self.journal.unfit

    def _identity(self) -> Identity:
        settings = self._settings
        authentication: Identity = TrustedPublishers(self.cloud, self.journal)
        if settings.jwt_jwks is not None:
            # 45 ms and 10 MB, of cryptography most of all: only where tokens are verified.
            from workers.identity.jwt import Expected  # noqa: PLC0415
            from workers.identity.key_set import KeySet  # noqa: PLC0415
            from workers.identity.token_authentication import (  # noqa: PLC0415
                TokenAuthentication,
                TokenVerifier,
            )

            self._keys = KeySet(key_source(settings.jwt_jwks))
            expected = Expected(
                settings.jwt_issuer,
                settings.jwt_audience,
                settings.jwt_tenant_claim,
                settings.token_grace,
            )
            authentication = TokenAuthentication(
                TokenVerifier(self._keys, expected),
                self.cloud,
                self.journal,
                frozenset(settings.tokenless_publishers),
                settings.jwt_tenant_is,
            )
        return ResumeTokenAuthentication(
            authentication, self.cloud, self.journal, JournalReplays(self.journal)
        )

    def stop(self) -> None:
        """Begin to drain."""
        self._stopping.set()

    def problems(self) -> list[str]:
        """Return what keeps the worker from working now, without URLs; the log says more."""
        return [without_urls(one) for one in self._problems()]

    async def report(self) -> WorkerReport:
        """Return what the worker tells of itself in the journal."""
        pipeline, held = self.pipeline, list(self.pipeline.held)
        # Ten thousand take some 20 ms.
        counted = await asyncio.to_thread(report_held, self._consumed, held)
        # The first one is written before the broker has answered, and that is no trouble.
        problems = self.problems()
        if self._starts_until is not None and (
            not problems or time.monotonic() > self._starts_until
        ):
            self._starts_until = None
        delivered = self._delivered.take(pipeline.delivered)
        settled = self._settled.take(pipeline.settled)
        return WorkerReport(
            queues=tuple(
                one.model_copy(
                    update={
                        "consuming": one.queue in self.consumer.consuming,
                        "why": self._why_not(one.queue),
                        "delivered": pipeline.delivered[one.queue],
                        "settled": pipeline.settled[one.queue],
                        "delivered_rate": delivered.get(one.queue, 0.0),
                        "settled_rate": settled.get(one.queue, 0.0),
                    }
                )
                for one in counted
            ),
            problems=tuple(problems) if self._starts_until is None else (),
            down={name: without_urls(why) for name, why in self.circuit_breaker.down.items()},
            pauses=tuple(
                PauseReport(
                    id=one.id,
                    kind=one.kind.value,
                    since=one.since,
                    until=one.until,
                    reason=one.reason,
                    operator=one.operator,
                )
                for one in self.pauses.in_force
            ),
            in_flight=len(held),
            waiting=pipeline.waiting,
            draining=self._stopping.is_set(),
        )

    def _why_not(self, queue: str) -> str | None:
        """Return why a queue is not consumed; None while it is."""
        if queue in self.consumer.consuming:
            return None
        if self._stopping.is_set():
            return "draining"
        down = [
            f"{name} is down: {without_urls(why)}"
            for name, why in self.circuit_breaker.needed(queue).items()
        ]
        other = STARTING if self._starts_until is not None else "not consuming from the broker"
        return "; ".join((*self.pauses.lines(queue), *down)) or other

    def _paused(self) -> None:
        """Obey the pauses in force."""
        self._choose_queues()
        self._heartbeat.soon()

    def _problems(self) -> list[str]:
        found = []
        if self._stopping.is_set():
            found.append("draining")
        if not self.consumer.connection.is_up or self.consumer.consuming != self.consumer.wanted:
            found.append("not consuming from the broker")
        found += [
            f"changes are paused, {dependency} is down: {why}"
            for dependency, why in self.circuit_breaker.down.items()
        ]
        if self._account_trouble is not None:
            found.append(f"nothing can be done in the cloud: {self._account_trouble}")
        if not self.publisher.is_up:
            found.append("not publishing to the broker")
        if self.publisher.is_blocked:
            found.append("the broker takes no messages (memory or disk alarm)")
        if overdue := self.publisher.overdue():
            more = f"; and {len(overdue) - _SHOWN} more" if len(overdue) > _SHOWN else ""
            named = "; ".join(map(str, overdue[:_SHOWN]))
            found.append(f"messages that the broker does not confirm: {named}{more}")
        if self._keys is not None and self._keys.is_empty:
            found.append(f"no key set, so nobody can be told: {self._keys.trouble}")
        if self.journal.trouble is not None and JOURNAL not in self.circuit_breaker.down:
            found.append(f"journal: {self.journal.trouble}")
        return found

    async def _watch_account(self) -> None:
        """Check again and again that the service account can do its work at all: one request's
        failure does not tell.
        """
        while True:
            try:
                found = await self.cloud.account_trouble()
            except (Transient, CloudRefusal):
                found = self._account_trouble  # the circuit breaker tells that the cloud is down
            if found != self._account_trouble:
                log.error("account.unusable" if found is not None else "account.usable", why=found)
            self._account_trouble = found
            await asyncio.sleep(_LOOK_EVERY if found is None else _LOOK_SOON)

    async def _look_for_delivery_limit(self) -> None:
        """Say once where RabbitMQ gives up on what was given back too often. Nothing waits for it."""
        broker, names = self._settings.broker, self._settings.names
        is_limited, is_told = None, False
        while is_limited is None:  # the broker may be down at the start
            try:
                is_limited = await in_daemon_thread(
                    lambda: has_delivery_limit(broker, names), "delivery limit"
                )
            except Exception as error:  # py-amqp raises whatever its socket does
                if not is_told:
                    log.warning("broker.delivery_limit_unknown", why=explain(error, broker).reason)
                if not isinstance(error, UNREACHABLE):
                    return  # it may not look
                is_told = True
                await asyncio.sleep(_LOOK_EVERY)
        if is_limited:
            log.warning(
                "broker.delivery_limit",
                why="RabbitMQ gives up on messages that were given back 20 times",
                set=policy_command(broker, names),
            )

    def _called(self, service: str, method: str, outcome: str, seconds: float) -> None:
        self.metrics.called(service, method, outcome, seconds)
        self.circuit_breaker.called(service, outcome)

    def _choose_queues(self) -> None:
        """Consume those queues alone whose requests can be carried out now."""
        if not self._stopping.is_set():
            wanted = {one for one in self._consumed if self.circuit_breaker.may_consume(one)}
            wanted -= self.pauses.queues
            # ORDER: not consumed any more before anything is given back, or it would come again.
            self.consumer.want(wanted)
            self.pipeline.pause(set(self._consumed) - wanted)
            self.pipeline.give_back(self.pauses.queues)

    async def _drain(self, beating: "asyncio.Task[None]") -> None:
        """Stop consuming, finish what is under way or leave it to the next worker, await the
        confirms, then ack.
        """
        log.info("worker.draining", in_flight=self.pipeline.in_flight)
        end = Deadline.after(DRAIN_LIMIT)
        self.consumer.pause()
        await self.pipeline.drain(DRAIN)
        await _within(self.publisher.drain(), _CONFIRMS)
        self._declarer.close()
        await _within(self.consumer.close(), _GOODBYE)
        await _within(self.publisher.close(), _GOODBYE)
        if self._traces is not None:  # a receiver that hangs keeps nobody from ending
            await _within(in_daemon_thread(self._traces.close, "traces"), _LAST_SPANS)
        # Calls that are under way end before others may take their requests over. Of those that
        # hang the requests stay ours until the process ends: the journal is not let go of, and
        # whoever has them then looks for the calls.
        self.is_hung = not await _within(self.cloud.close(), end.left - _LETTING_GO)
        beating.cancel()
        await self._heartbeat.end()
        if not self.is_hung:
            self.is_hung = not await _within(self.journal.close(), max(_LETTING_GO, end.left))
        if self.is_hung:
            log.warning("worker.calls_abandoned")

    async def _until_declared(self) -> bool:
        """Await the declaration of the topology; False where the worker is to end before the broker
        was reached.
        """
        declaring = asyncio.create_task(self._declarer.until_declared())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((declaring, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not declaring.done():
            declaring.cancel()
            return False
        declaring.result()
        return True

    async def _prune(self) -> None:
        while True:
            while await self.journal.prune(COMMANDS_KEPT):
                pass
            while await self.journal.prune_archive(ARCHIVE_KEPT):
                pass
            await self._prune_orders()
            await asyncio.sleep(_PRUNE_EVERY)

    async def _prune_orders(self) -> None:
        kept, pruned = self._settings.orders_kept, 0
        while kept is not None and (count := await self.journal.prune_orders(kept * 86400.0)):
            pruned += count
            # Writes of requests come between two of its transactions.
            await asyncio.sleep(_PRUNE_BREATH)
        if pruned:
            log.info("journal.pruned", orders=pruned)

    async def _health(self) -> HealthServer | None:
        if not self._settings.http_port:
            return None
        settings = self._settings
        server = HealthServer(
            settings.http_host, settings.http_port, self.problems, self.metrics.registry
        )
        server.paused = self.pauses.lines
        await server.open()
        return server

    def _catch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)

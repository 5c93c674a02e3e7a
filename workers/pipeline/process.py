"""The one place where deliveries end: what is it, who asks, which way does it go, may it leave its
queue.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars

from handlers.catalogue import Handler
from handlers.context import Policy
from handlers.openstack.cloud import Cloud
from messages.codes import Code
from messages.errors import EcsError, Refused, Transient
from messages.orders import name_of
from messages.regions import OTHER_REGION
from workers.amqp.consumer import Delivery
from workers.amqp.envelope import Envelope
from workers.identity import Identity
from workers.journal import ClaimLost, Journal, JournalError, Kind
from workers.pipeline import parsing
from workers.pipeline.attempt import Attempt, unforeseen
from workers.pipeline.authentication import Authentication, Requeue
from workers.pipeline.idempotency import Idempotency
from workers.pipeline.in_flight import InFlightRequests
from workers.pipeline.large_bodies import LARGE, aside
from workers.pipeline.memory_budget import Budget
from workers.pipeline.progress import request_log
from workers.pipeline.rejections import Rejections
from workers.pipeline.replies import Replies
from workers.pipeline.retry import MACHINE_TROUBLE, GiveBack, decide_unbegun
from workers.pipeline.server_locks import ServerLocks
from workers.pipeline.timeouts import HOLD, HOLD_LIMIT, Timeouts
from workers.pipeline.undeliverable import Undelivered
from workers.request import Request
from workers.telemetry import Metrics

log = structlog.get_logger()

#: Seconds before a message is given back that the machine could not handle just now.
_BREATH = 2.0


class Pipeline:
    """Takes deliveries and settles each once what it asked for is safe."""

    def __init__(
        self,
        *,
        cloud: Cloud,
        identity: Identity,
        journal: Journal,
        outbox: Replies,
        handlers: Mapping[type, Handler],
        policy: Policy,
        limits: Timeouts,
        metrics: Metrics,
        declare_again: Callable[[], None] = lambda: None,
    ) -> None:
        """`declare_again` is called where a binding of ours is gone."""
        flights = InFlightRequests()
        self._region = policy.region
        self._journal = journal
        self._handlers = handlers
        self._limits = limits
        self._metrics = metrics
        self._admission = Authentication(identity, journal, limits.max_age)
        self._refusals = Rejections(outbox, policy, metrics, identity, journal)
        self._undelivered = Undelivered(outbox, self._refusals, self.give_up, declare_again)
        self._execution = Attempt(
            cloud=cloud,
            journal=journal,
            outbox=outbox,
            handlers=handlers,
            policy=policy,
            limits=limits,
            refusals=self._refusals,
            turns=ServerLocks(journal, flights.ended_event, limits.retry_delays),
            metrics=metrics,
        )
        self._once = Idempotency(
            journal=journal,
            identity=identity,
            admission=self._admission,
            outbox=outbox,
            execution=self._execution,
            refusals=self._refusals,
            flights=flights,
            metrics=metrics,
        )
        self._budget = Budget()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> int:
        """Deliveries that are not settled yet."""
        return len(self._tasks)

    def accept(self, delivery: Delivery) -> None:
        """Begin with a delivery."""
        task = asyncio.get_running_loop().create_task(self.handle(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def give_up(self, envelope: Envelope, refused: Refused) -> bool:
        """End what was begun of a request on whose message the broker gave up; False where nothing
        was.

        It has its one result and its final updates by the way of every request: what was answered
        stays the answer. `Requeue` where another worker is at it, `JournalError` where that cannot
        be told.
        """
        try:
            # Whatever its region: what was begun is ended, or its result would deny what was done.
            request = parsing.read(envelope, None)
        except (parsing.Ignored, parsing.Rejected):
            return False
        return await self._once.give_up(replace(request, given_up=refused))

    async def drain(self, seconds: float) -> None:
        """Wait for what is under way; what has not ended by then is left to the next worker."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._execution.close()

    async def handle(self, delivery: Delivery) -> None:
        """Whatever happens ends in a decision: it is settled, or given back."""
        size = len(delivery.envelope.body)
        is_large = size > LARGE
        if is_large and not self._budget.take(size, again=delivery.envelope.redelivered):
            delivery.forget_body()
            await self._budget.wait(size, HOLD)
            delivery.requeue()
            return
        try:
            with bound_contextvars(**parsing.known_by(delivery.envelope)):
                after = await self._decided(delivery.envelope)
        finally:
            if is_large:
                self._budget.give(size)
        if after is None:
            delivery.settle()
            return
        if after:
            delivery.forget_body()
            await asyncio.sleep(after)
        delivery.requeue()

    async def _decided(self, envelope: Envelope) -> float | None:
        """None where the message is done with; else seconds after which it is given back."""
        limit = asyncio.timeout(HOLD_LIMIT)
        try:
            async with limit:
                await self._end_of(envelope)
        except ClaimLost:
            # Another worker is at it; the broker gives the message to him, or it is found done.
            log.warning("request.taken_over")
            return 0.0
        except Requeue as given_back:
            return given_back.after
        except (Transient, JournalError, *MACHINE_TROUBLE) as error:
            if limit.expired():
                log.warning("request.held_too_long", queue=envelope.queue)
                return 0.0
            log.warning("request.given_back", queue=envelope.queue, exc_info=error)
            return _BREATH
        return None

    async def _end_of(self, envelope: Envelope) -> None:
        """The one broad except: an error that nobody foresaw is answered, and its message parked."""
        try:
            await self._take(envelope)
        except (ClaimLost, Requeue, Transient, JournalError, *MACHINE_TROUBLE):
            raise
        except Exception as error:
            log.exception("dispatch.unforeseen", queue=envelope.queue)
            await self._refusals.unforeseen(envelope, unforeseen(error))

    async def _take(self, envelope: Envelope) -> None:
        if envelope.queue == envelope.names.undelivered_queue:
            await self._undelivered.take(envelope)
            return
        try:
            region = self._region
            request = await aside(len(envelope.body), lambda: parsing.read(envelope, region))
        except parsing.Ignored as ignored:
            self._metrics.event("ignored")
            log.info("order.ignored", request=ignored.name, status=ignored.status)
            return
        except parsing.Rejected as unfit:
            if await self._was_begun(unfit):
                await self._refusals.park(envelope, unfit.refused)
            else:
                await self._refusals.reject(envelope, unfit)
            return
        if type(request.work) not in self._handlers:
            await self._refusals.reject(envelope, parsing.not_carried_out(request))
            return
        bind_contextvars(request=request.name, operation=request.operation)
        started = time.monotonic()
        try:
            requester = await self._admission.admit(request, self._limits.admission(request))
        except Requeue:
            raise
        except Exception as error:
            await self._fail_early(request, error)
            return
        bind_contextvars(tenant=requester.project_id)
        key = request.key(requester.project_id)
        too_old = (
            self._admission.stale(envelope) if key is None and requester.operator is None else None
        )
        if too_old is not None:
            await self._refusals.refuse(request, too_old, park=True, tenant=requester.project_id)
        elif key is None:
            await self._execution.answer(request, requester, started)
        else:
            await self._once.carry_out(request, key, requester, started)

    async def _was_begun(self, unfit: parsing.Rejected) -> bool:
        """True for another region's order that the journal knows: begun when this worker's region
        was another.

        It has a result of its own, or gets one when the region is set right and it is put in again.
        """
        if unfit.refused.reason != OTHER_REGION or not unfit.is_order:
            return False
        name = name_of(unfit.message or {})
        found = await self._journal.find(name) if name is not None else []
        return any(one.kind is Kind.ORDER for one in found)

    async def _fail_early(self, request: Request, error: Exception) -> None:
        """Who asks is not known, and that is the end of it."""
        decision = decide_unbegun(error, request.kind)
        if isinstance(decision, GiveBack):
            raise Requeue from error
        if not isinstance(error, EcsError):
            request_log(request, None).error("identity.unforeseen", exc_info=error)
        refused = decision.refused
        parks = decision.park or refused.code in (Code.PARAMETER, Code.IDENTITY)
        unheard = request.kind is Kind.ORDER or request.envelope.reply_queue is None
        too_old = refused.reason == "too_old"
        await self._refusals.refuse(request, refused, park=too_old or (parks and unheard))

"""One message's way: what it is, who asks, was it here before, which handler, what came of it, who is told."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from handlers.catalogue import Handler
from handlers.cloud import Cloud
from handlers.context import Context, Policy, Watches
from handlers.deadlines import Deadline
from handlers.effects import Effects
from handlers.orders.course import instance_of, order_update
from messages.codes import Code
from messages.errors import Postponed, Refused, wrong
from messages.order_results import unread_order_result
from messages.orders import Order
from messages.results import Result
from messages.status import OrderStatus
from workers import intake
from workers.consumer import Delivery
from workers.envelope import Envelope
from workers.identity import Identity
from workers.journal import (
    Begun,
    ClaimLost,
    Conflict,
    Elsewhere,
    Journal,
    Kind,
    Known,
    NewRequest,
    Resumed,
)
from workers.outbox import Outbox
from workers.request import Request
from workers.retry import Retry, decide, is_last_try
from workers.session import Session, request_log, update_body
from workers.telemetry import Metrics

log = structlog.get_logger()

#: Seconds for which a delivery is held before it goes on by way of a retry queue; five minutes are promised.
HOLD = 270.0
#: Seconds within which an order's calls are tried again before it goes to a retry queue.
ORDER_PATIENCE = 10.0
#: Seconds between two looks at a request that another worker is at.
_LOOK_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The configured times, in seconds."""

    command_timeout: float
    order_timeout: float
    max_age: float
    retry_delays: tuple[int, ...]


@dataclass(slots=True)
class _Flight:
    """A request under way in this process."""

    digest: str
    answered: "asyncio.Future[Result]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Dispatcher:
    """Takes deliveries and settles each once what it asked for is safe."""

    def __init__(
        self,
        *,
        cloud: Cloud,
        identity: Identity,
        journal: Journal,
        outbox: Outbox,
        handlers: Mapping[type, Handler],
        policy: Policy,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._cloud = cloud
        self._identity = identity
        self._journal = journal
        self._outbox = outbox
        self._handlers = handlers
        self._policy = policy
        self._limits = limits
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()
        self._flights: dict[str, _Flight] = {}
        self._watches: dict[str, Watches] = {}

    @property
    def in_flight(self) -> int:
        """Deliveries that are not settled yet."""
        return len(self._tasks)

    def accept(self, delivery: Delivery) -> None:
        """Begin with a delivery."""
        task = asyncio.get_running_loop().create_task(self._handle(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, seconds: float) -> None:
        """Wait for what is under way; what has not ended by then is left to the next worker."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for watches in self._watches.values():
            watches.close()

    async def _handle(self, delivery: Delivery) -> None:
        """The one broad except: whatever happens ends in a decision."""
        envelope = delivery.envelope
        try:
            await self._take(envelope)
        except ClaimLost:
            # Another worker is at it; the broker gives the message to him, or it is found done.
            log.warning("request.taken_over", message_id=envelope.message_id)
            delivery.requeue()
            return
        except Exception as error:
            log.exception("dispatch.unforeseen", message_id=envelope.message_id, queue=envelope.queue)
            await self._outbox.park(
                envelope,
                Refused(Code.FAILED, reason="internal", detail=type(error).__name__),
                intake.attempts(envelope),
            )
            self._metrics.event("parked")
        delivery.settle()

    async def _take(self, envelope: Envelope) -> None:
        try:
            request = intake.read(envelope)
        except intake.Ignored:
            self._metrics.event("ignored")
            log.info("order.ignored", message_id=envelope.message_id)
            return
        except intake.Unfit as unfit:
            await self._turn_away(envelope, unfit)
            return
        started = time.monotonic()
        try:
            requester = await self._identity.identify(request)
        except Exception as error:
            await self._fail_early(request, error)
            return
        key = request.key(requester.project_id)
        if key is None:
            await self._answer_only(request, requester.project_id, started)
        else:
            await self._carry_out(request, key, requester.project_id, started)

    # What is not carried out.

    async def _turn_away(self, envelope: Envelope, unfit: intake.Unfit) -> None:
        """Answer a message that is wrong in form, and park it where nobody may hear the answer."""
        refused = unfit.refused
        log.warning(
            "message.unfit", message_id=envelope.message_id, operation=unfit.operation, queue=envelope.queue,
            code=refused.code.wire, subject=refused.subject, why=refused.detail,
        )  # fmt: skip
        result = Result.refusal(refused)
        if unfit.is_order:
            result = unread_order_result(unfit.message or {}, refused, self._policy.billing_now())
        if unfit.operation is not None or envelope.reply_to is not None:
            key = f"unfit:{intake.fingerprint(envelope)}"
            for one in self._outbox.result(envelope, unfit.operation or "unknown", key, result):
                await one
        if unfit.is_order or envelope.reply_to is None or intake.is_own_queue(envelope.reply_to):
            await self._park(envelope, refused)
        self._metrics.answered(unfit.operation or "unknown", result.code, 0.0)

    async def _park(self, envelope: Envelope, refused: Refused) -> None:
        await self._outbox.park(envelope, refused, intake.attempts(envelope))
        self._metrics.event("parked")

    async def _fail_early(self, request: Request, error: Exception) -> None:
        """Who asks is not known: refused for good, or to be asked again."""
        decision = self._decide(error, request)
        if isinstance(decision, Retry):
            await self._retry(request, decision, intake.attempts(request.envelope))
            return
        refused = decision.refused
        is_order = request.kind is Kind.ORDER
        parks = decision.park or refused.code in (Code.PARAMETER, Code.IDENTITY)
        await self._refuse(request, refused, park=parks and (is_order or request.envelope.reply_to is None))

    async def _refuse(self, request: Request, refused: Refused, *, park: bool) -> None:
        """Answer what was not begun, without a trace in the journal."""
        result = self._failure(request, refused)
        key = f"refused:{intake.fingerprint(request.envelope)}"
        for one in self._outbox.result(request.envelope, request.operation, key, result):
            await one
        if park:
            await self._park(request.envelope, refused)
        log.info(
            "request.refused", message_id=request.envelope.message_id, operation=request.operation, code=result.code,
            why=refused.detail,
        )  # fmt: skip
        self._metrics.answered(request.operation, result.code, 0.0)

    def _failure(self, request: Request, refused: Refused) -> Result:
        if request.kind is Kind.ORDER:
            return unread_order_result(request.message, refused, self._policy.billing_now())
        return Result.refusal(refused)

    # What leaves no journal entry.

    async def _answer_only(self, request: Request, project_id: str, started: float) -> None:
        key = f"{request.kind}:{project_id}:{intake.fingerprint(request.envelope)}"
        session = Session(
            request,
            key,
            self._outbox,
            None,
            None,
            {},
            request_log(request, project_id, intake.attempts(request.envelope)),
        )
        try:
            if late := intake.too_late(request.envelope):
                raise late
            result = await self._run(session, project_id, time.time())
        except Exception as error:
            decision = self._decide(error, request)
            refused = decision.refused if not isinstance(decision, Retry) else Refused(Code.FAILED, reason="timeout")
            _log_unforeseen(session, error)
            result = self._failure(request, refused)
        await session.publish_end(result)
        self._report(session, result, started)

    # What does.

    async def _carry_out(self, request: Request, key: str, project_id: str, started: float) -> None:
        flight = self._flights.get(key)
        while flight is not None:
            if flight.digest != request.digest:
                await self._conflict(request)
                return
            answer = await _answer_of(flight)
            if answer is not None:
                await self._repeat(request, key, answer)
                return
            flight = self._flights.get(key)
        flight = self._flights[key] = _Flight(request.digest)
        try:
            await self._begin(request, key, project_id, started, flight)
        finally:
            del self._flights[key]
            flight.answered.cancel()

    async def _begin(self, request: Request, key: str, project_id: str, started: float, flight: _Flight) -> None:
        hold = Deadline.after(HOLD)
        new = NewRequest(
            key, request.name or "", request.kind, request.operation, project_id, request.digest,
            intake.first_seen(request.envelope, time.time()),
        )  # fmt: skip
        outcome = await self._journal.begin(new)
        while isinstance(outcome, Elsewhere) and not hold.passed:
            await asyncio.sleep(_LOOK_EVERY)
            outcome = await self._journal.begin(new)
        match outcome:
            case Known():
                await self._repeat(request, key, Result.restored(outcome.result), outcome)
            case Conflict():
                await self._conflict(request)
            case Elsewhere():
                await self._retry(request, self._decide(Postponed("another worker"), request), 0)
            case Begun():
                session = self._session(request, key, project_id, outcome, flight)
                await self._finish(session, outcome, project_id, new.received_at, started)
            case Resumed():
                session = self._session(request, key, project_id, outcome, flight)
                session.log.info("request.resumed", effects=sorted(outcome.effects))
                await self._finish(session, outcome, project_id, outcome.received_at, started)

    def _session(
        self, request: Request, key: str, project_id: str, outcome: Begun | Resumed, flight: _Flight
    ) -> Session:
        effects = outcome.effects if isinstance(outcome, Resumed) else {}
        attempt = outcome.attempts if isinstance(outcome, Resumed) else 0
        session = Session(
            request, key, self._outbox, self._journal, outcome.claim, effects, request_log(request, project_id, attempt)
        )
        session.answered = flight.answered
        return session

    async def _finish(
        self, session: Session, begun: Begun | Resumed, project_id: str, received_at: float, started: float
    ) -> None:
        request, park = session.request, None
        attempts = begun.attempts if isinstance(begun, Resumed) else 0
        try:
            if isinstance(begun, Begun) and (refused := self._stale(request)):
                raise refused
            result = await self._run(session, project_id, received_at)
        except ClaimLost:
            raise
        except Exception as error:
            decision = decide(error, request.kind, attempts, time.time() - received_at, self._limits.retry_delays)
            _log_unforeseen(session, error)
            if isinstance(decision, Retry):
                await self._put_off(session, begun, decision, attempts)
                return
            result = self._failure(request, decision.refused)
            park = decision.refused if decision.park else None
            self._end_order(session)
            session.log.info("request.failed", why=decision.refused.detail, reason=decision.refused.reason)
        await self._journal.finish(begun.claim, result.stored(), session.finals)
        await session.publish_end(result)
        if park is not None:
            await self._park(request.envelope, park)
        # Not awaited: should it be lost, the next delivery finds the result and publishes it again.
        self._journal.settle(session.key)
        self._report(session, result, started)

    async def _run(self, session: Session, project_id: str, received_at: float) -> Result:
        request = session.request
        project = await self._cloud.project(project_id)
        is_order = request.kind is Kind.ORDER
        age = max(0.0, time.time() - received_at)
        patience = Deadline.after(ORDER_PATIENCE if is_order else self._command_seconds(request, age))
        context = Context(
            project=project,
            cloud=self._cloud,
            watches=self._watches_of(project_id, project),
            effects=Effects(session, patience, None if is_order else patience),
            policy=self._policy,
            deadline=patience,
            wait_limit=self._limits.order_timeout,
            hold=Deadline.after(HOLD),
            last_try=is_last_try(age),
            tell=session.tell,
            answer=session.answer,
        )
        return await self._handlers[type(request.work)](request.work, context)

    def _command_seconds(self, request: Request, age: float) -> float:
        own = intake.deadline(request.envelope)
        left = self._limits.command_timeout - age
        return min(left, own - time.time()) if own is not None else left

    def _watches_of(self, project_id: str, project: Any) -> Watches:
        found = self._watches.get(project_id)
        if found is None:
            for name in [name for name, watches in self._watches.items() if watches.idle]:
                self._watches.pop(name).close()
            found = self._watches[project_id] = Watches(project)
        return found

    def _stale(self, request: Request) -> Refused | None:
        """The refusal of what comes too late for the first time."""
        if intake.age(request.envelope) > self._limits.max_age:
            return wrong("timestamp", "the message is too old", reason="too_old")
        return intake.too_late(request.envelope)

    async def _put_off(self, session: Session, begun: Begun | Resumed, retry: Retry, attempts: int) -> None:
        """Give the request up and have the message come back; whoever gets it goes on where it was."""
        request = session.request
        if retry.counts and isinstance(request.work, Order):
            order = request.work
            await session.tell(
                order_update(
                    order.order_id, order.flow_id, instance_of(order), OrderStatus.WAITING_RETRY, session.progress
                )
            )
        await session.flush()
        await self._journal.release(begun.claim, int(retry.counts))
        await self._retry(request, retry, attempts + int(retry.counts))

    async def _retry(self, request: Request, decision: Any, attempts: int) -> None:
        delay = decision.delay if isinstance(decision, Retry) else self._limits.retry_delays[0]
        await self._outbox.retry(request.envelope, request.message, delay, attempts)
        log.info(
            "request.put_off", message_id=request.envelope.message_id, operation=request.operation, seconds=delay,
            attempt=attempts,
        )  # fmt: skip
        self._metrics.event("retried")

    def _end_order(self, session: Session) -> None:
        """An order that ended outside its handler still has its one final update."""
        order = session.request.work
        if isinstance(order, Order) and not any(body["resource"] == "order" for body in session.finals):
            update = order_update(
                order.order_id, order.flow_id, instance_of(order), OrderStatus.FAILED, session.progress
            )
            session.finals.append(update_body(session.request, update))

    async def _repeat(self, request: Request, key: str, result: Result, known: Known | None = None) -> None:
        """Give a known request's result to whoever asks again; and what was finished and not published, too."""
        published = self._outbox.result(request.envelope, request.operation, key, result)
        if known is not None and not known.settled:
            published += [self._outbox.update(request.envelope, body, key) for body in known.updates]
        for one in published:
            await one
        if known is not None and not known.settled:
            self._journal.settle(key)
        self._metrics.event("duplicate")
        log.info(
            "request.repeated", message_id=request.envelope.message_id, operation=request.operation, code=result.code
        )

    async def _conflict(self, request: Request) -> None:
        refused = wrong(
            "message_id" if request.kind is Kind.COMMAND else "orderId",
            "the key is known with another content",
            reason="conflicting_duplicate",
        )
        self._metrics.event("conflict")
        await self._refuse(request, refused, park=True)

    def _decide(self, error: Exception, request: Request) -> Any:
        envelope = request.envelope
        if not isinstance(error, Refused):
            log.info(
                "request.trouble", message_id=envelope.message_id, operation=request.operation, why=str(error)[:300]
            )
        age = time.time() - intake.first_seen(envelope, time.time())
        return decide(error, request.kind, intake.attempts(envelope), age, self._limits.retry_delays)

    def _report(self, session: Session, result: Result, started: float) -> None:
        seconds = time.monotonic() - started
        session.log.info(
            "request.done", code=result.code, seconds=round(seconds, 3),
            openstack_request_ids=session.openstack_request_ids(),
        )  # fmt: skip
        self._metrics.answered(session.request.operation, result.code, seconds)


async def _answer_of(flight: _Flight) -> Result | None:
    """The answer of a request under way; None where it ended without."""
    try:
        return await asyncio.shield(flight.answered)
    except asyncio.CancelledError:
        if flight.answered.cancelled():
            return None
        raise


def _log_unforeseen(session: Session, error: Exception) -> None:
    from messages.errors import EcsError  # noqa: PLC0415

    if not isinstance(error, EcsError):
        session.log.error("handler.unforeseen", exc_info=error)

"""One message's way: what it is, who asks, was it here before, which handler, what came of it, who is told."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid5

import structlog

from handlers.abandoned import ends_of
from handlers.catalogue import Handler
from handlers.cloud import Cloud, Project
from handlers.context import Errand, Policy, Watches
from handlers.deadlines import Deadline
from handlers.effects import Effects
from handlers.orders.course import order_update
from handlers.orders.new_servers import has_secrets, needs_secrets
from messages.codes import Code
from messages.errors import EcsError, Postponed, Refused
from messages.orders import Order
from messages.results import Result
from messages.status import OrderStatus
from workers import intake
from workers.admission import Admission, GivenBack
from workers.consumer import Delivery
from workers.envelope import Envelope
from workers.identity import NOBODY, Identity, Requester, hash_of, new_pass
from workers.journal import (
    Begun,
    Claim,
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
from workers.refusals import Refusals
from workers.request import Request
from workers.retry import MACHINE_TROUBLE, Decision, GiveBack, Retry, decide, decide_unbegun, is_last_try
from workers.session import Session, request_log, update_body
from workers.telemetry import Metrics
from workers.turns import Turns, servers_of

log = structlog.get_logger()

#: Seconds for which a delivery is held before it goes on by way of a retry queue; five minutes are promised.
HOLD = 270.0
#: Seconds after which it is given back to its queue, whatever it waits for: a journal or a broker that takes nothing.
HOLD_LIMIT = 290.0
#: Seconds within which an order's calls are tried again before it goes to a retry queue.
ORDER_PATIENCE = 10.0
_MARKS = UUID("0d2f7a63-52c1-5a0c-9b0e-8f4f0c1d9e55")
#: Seconds before a message is given back that the machine could not handle just now.
_BREATH = 2.0
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
    ended: asyncio.Event = field(default_factory=asyncio.Event)


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
        self._admission = Admission(identity, journal, limits.max_age)
        self._journal = journal
        self._outbox = outbox
        self._handlers = handlers
        self._policy = policy
        self._refusals = Refusals(outbox, policy, metrics)
        self._limits = limits
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()
        self._flights: dict[str, _Flight] = {}
        self._watches: dict[str, Watches] = {}
        self._turns = Turns(journal, self._ended_event, limits.retry_delays[0])

    def _ended_event(self, key: str) -> asyncio.Event | None:
        flight = self._flights.get(key)
        return flight.ended if flight is not None else None

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
        """End what was begun of a request on whose message the broker gave up; False where nothing was.

        It has its one result and its final updates by the way of every request: what was answered stays the answer.
        `GivenBack` where another worker is at it, `JournalError` where that cannot be told.
        """
        try:
            request = replace(intake.read(envelope), given_up=refused)
        except (intake.Ignored, intake.Unfit):
            return False
        for known in await self._journal.find(request.name) if request.name is not None else ():
            if known.key == request.key(known.tenant) and known.digest == request.digest:
                await self._carry_out(request, known.key, Requester(known.tenant), time.monotonic())
                return True
        return False

    async def drain(self, seconds: float) -> None:
        """Wait for what is under way; what has not ended by then is left to the next worker."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for watches in self._watches.values():
            watches.close()

    async def handle(self, delivery: Delivery) -> None:
        """The one broad except: whatever happens ends in a decision."""
        envelope = delivery.envelope
        limit = asyncio.timeout(HOLD_LIMIT)
        try:
            async with limit:
                await self._take(envelope)
        except ClaimLost:
            # Another worker is at it; the broker gives the message to him, or it is found done.
            log.warning("request.taken_over", message_id=envelope.message_id)
            delivery.requeue()
            return
        except GivenBack:
            delivery.requeue()
            return
        except Exception as error:
            if limit.expired():
                log.warning("request.held_too_long", message_id=envelope.message_id, queue=envelope.queue)
                delivery.requeue()
                return
            if isinstance(error, MACHINE_TROUBLE):
                log.exception("request.given_back", message_id=envelope.message_id, queue=envelope.queue)
                await asyncio.sleep(_BREATH)
                delivery.requeue()
                return
            log.exception("dispatch.unforeseen", message_id=envelope.message_id, queue=envelope.queue)
            await self._refusals.park(envelope, Refused(Code.FAILED, reason="internal", detail=type(error).__name__))
        delivery.settle()

    async def _take(self, envelope: Envelope) -> None:
        try:
            request = intake.read(envelope)
        except intake.Ignored as ignored:
            self._metrics.event("ignored")
            log.info("order.ignored", message_id=envelope.message_id, request=ignored.name, status=ignored.status)
            return
        except intake.Unfit as unfit:
            await self._refusals.turn_away(envelope, unfit)
            return
        if type(request.work) not in self._handlers:
            await self._refusals.turn_away(envelope, intake.not_carried_out(request))
            return
        started = time.monotonic()
        try:
            requester = await self._admission.admit(request, self._hold(request))
        except GivenBack:
            raise
        except Exception as error:
            await self._fail_early(request, error)
            return
        key = request.key(requester.project_id)
        if key is None:
            await self._answer_only(request, requester, started)
        else:
            await self._carry_out(request, key, requester, started)

    async def _fail_early(self, request: Request, error: Exception) -> None:
        """Who asks is not known, and that is the end of it."""
        decision = decide_unbegun(error, request.kind)
        if isinstance(decision, GiveBack):
            raise GivenBack from error
        if not isinstance(error, EcsError):
            request_log(request, None).error("identity.unforeseen", exc_info=error)
        refused = decision.refused
        parks = decision.park or refused.code in (Code.PARAMETER, Code.IDENTITY)
        unheard = request.kind is Kind.ORDER or intake.reply_queue(request.envelope) is None
        await self._refusals.refuse(request, refused, park=parks and unheard)

    # What leaves no journal entry.

    async def _answer_only(self, request: Request, requester: Requester, started: float) -> None:
        project_id = requester.project_id
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
            if refused := self._stale(request, requester.operator):
                raise refused
            result = await self._run(session, project_id, time.monotonic())
        except Exception as error:
            decision = self._decide(error, request)
            refused = decision.refused if not isinstance(decision, Retry) else Refused(Code.FAILED, reason="timeout")
            _log_unforeseen(session, error)
            result = self._refusals.result(request, refused)
        await session.publish_end(result)
        self._report(session, result, started)

    # What does.

    async def _carry_out(self, request: Request, key: str, requester: Requester, started: float) -> None:
        flight = self._flights.get(key)
        while flight is not None:
            if flight.digest != request.digest:
                await self._refusals.conflict(request, requester.project_id)
                return
            answer = await _answer_of(flight)
            if answer is not None:
                await self._repeat(request, key, requester.project_id, answer)
                return
            flight = self._flights.get(key)
        flight = self._flights[key] = _Flight(request.digest)
        try:
            await self._begin(request, key, requester, started, flight)
        finally:
            del self._flights[key]
            flight.answered.cancel()
            flight.ended.set()

    async def _begin(self, request: Request, key: str, requester: Requester, started: float, flight: _Flight) -> None:
        hold, project_id = Deadline.after(HOLD), requester.project_id
        first_seen = intake.first_seen(request.envelope, time.time())
        received = _monotonic(first_seen)
        new = NewRequest(
            key, request.name or "", request.kind, request.operation, project_id, request.digest, first_seen
        )
        outcome = await self._journal.begin(new)
        while isinstance(outcome, Elsewhere) and not hold.passed:
            await asyncio.sleep(_LOOK_EVERY)
            outcome = await self._journal.begin(new)
        match outcome:
            case Known():
                await self._repeat(request, key, project_id, Result.restored(outcome.result), outcome)
            case Conflict():
                await self._refusals.conflict(request, project_id)
            case Elsewhere() if request.given_up is not None or has_secrets(request.work):
                raise GivenBack
            case Elsewhere():
                pass_word = requester.pass_word or new_pass()
                await self._journal.give_pass(key, hash_of(pass_word))
                again = Retry(self._limits.retry_delays[0], counts=False)
                said = request_log(request, project_id)
                await self._retry(request, said, again, intake.attempts(request.envelope), pass_word)
            case Begun():
                session = self._session(request, key, requester, outcome, flight)
                await self._finish(session, outcome, project_id, received, started)
            case Resumed():
                session = self._session(request, key, requester, outcome, flight)
                session.log.info("request.resumed", effects=sorted(outcome.effects))
                await self._finish(session, outcome, project_id, _monotonic(outcome.received_at), started)

    def _session(
        self, request: Request, key: str, requester: Requester, outcome: Begun | Resumed, flight: _Flight
    ) -> Session:
        effects = outcome.effects if isinstance(outcome, Resumed) else {}
        attempt = outcome.attempts if isinstance(outcome, Resumed) else 0
        log_of = request_log(request, requester.project_id, attempt)
        session = Session(request, key, self._outbox, self._journal, outcome.claim, effects, log_of)
        session.answered = flight.answered
        session.pass_word = requester.pass_word or new_pass()
        session.operator = requester.operator
        return session

    async def _finish(
        self, session: Session, begun: Begun | Resumed, project_id: str, received: float, started: float
    ) -> None:
        """`received`: when it first came, by the monotonic clock."""
        request, park = session.request, None
        attempts = begun.attempts if isinstance(begun, Resumed) else 0
        try:
            if request.given_up is not None:
                raise request.given_up
            if isinstance(begun, Begun) and (refused := self._stale(request, session.operator)):
                raise refused
            result = await self._in_turn(session, begun.claim, project_id, received)
        except ClaimLost:
            raise
        except Exception as error:
            told, age = session.told, time.monotonic() - received
            decision = decide(error, request.kind, attempts, age, self._limits.retry_delays, answered=told is not None)
            _log_unforeseen(session, error)
            if isinstance(decision, Retry):
                await self._put_off(session, begun, decision, attempts, started)
                return
            # What was answered already stays the answer, whatever goes wrong with telling its course.
            result = told or self._refusals.result(request, decision.refused, changed=session.any_begun)
            park = decision.refused if decision.park else None
            self._end(session)
            session.log.info("request.failed", why=decision.refused.detail, reason=decision.refused.reason)
        await self._journal.finish(begun.claim, result.stored(), session.finals)
        await session.publish_end(result)
        if park is not None:
            await self._refusals.park(request.envelope, park)
        # Not awaited: should it be lost, the next delivery finds the result and publishes it again.
        self._journal.settle(session.key)
        self._report(session, result, started)

    async def _in_turn(self, session: Session, claim: Claim, project_id: str, received: float) -> Result:
        """Carried out when nobody is ahead at the same servers; a command waits no longer than it may take."""
        request = session.request
        until: Deadline
        too_late: EcsError
        if request.kind is Kind.ORDER:
            until, too_late = Deadline.after(HOLD), Postponed("its turn")
        else:
            until = self._patience(request, time.monotonic() - received)
            too_late = Refused(Code.FAILED, reason="busy", detail="other requests for the server are under way")
        async with self._turns.taken(claim, servers_of(request.work), until, too_late):
            return await self._run(session, project_id, received)

    async def _run(self, session: Session, project_id: str, received: float) -> Result:
        request = session.request
        is_order = request.kind is Kind.ORDER
        age = time.monotonic() - received
        patience = self._patience(request, age)
        errand = Errand(
            cloud=self._cloud,
            effects=Effects(session, patience, None if is_order else patience),
            policy=self._policy,
            deadline=patience,
            wait_limit=self._limits.order_timeout,
            hold=Deadline.after(HOLD),
            last_try=is_last_try(age),
            mark=uuid5(_MARKS, session.key).hex,
            tell=session.tell,
            answer=session.answer,
            watches_of=self._watches_of,
        )
        surroundings = errand if project_id == NOBODY else await errand.inside(project_id)
        return await self._handlers[type(request.work)](request.work, surroundings)

    def _hold(self, request: Request) -> Deadline:
        """Until when it is asked who asks: before that is known nothing can be put off."""
        if request.kind is Kind.ORDER:
            return Deadline.after(HOLD)
        return self._patience(request, time.time() - intake.first_seen(request.envelope, time.time()))

    def _patience(self, request: Request, age: float) -> Deadline:
        """Until when a request that came so many seconds ago is tried again in this delivery."""
        if request.kind is Kind.ORDER:
            return Deadline.after(ORDER_PATIENCE)
        own = intake.deadline(request.envelope)
        left = self._limits.command_timeout - age
        return Deadline.after(min(left, own - time.time()) if own is not None else left)

    def _watches_of(self, project: Project) -> Watches:
        found = self._watches.get(project.id)
        if found is None:
            for name in [name for name, watches in self._watches.items() if watches.idle]:
                self._watches.pop(name).close()
            found = self._watches[project.id] = Watches(project)
        return found

    def _stale(self, request: Request, operator: str | None) -> Refused | None:
        """The refusal of what comes too late for the first time; what an operator puts in again may be of any age."""
        too_old = self._admission.stale(request.envelope) if operator is None else None
        return too_old or intake.too_late(request.envelope)

    async def _put_off(
        self, session: Session, begun: Begun | Resumed, retry: Retry, attempts: int, started: float
    ) -> None:
        """Give the request up and have the message come back; whoever gets it goes on where it was."""
        request = session.request
        if retry.counts and isinstance(request.work, Order):
            await session.tell(order_update(request.work, OrderStatus.WAITING_RETRY, session.progress))
        await session.flush()
        await self._journal.release(begun.claim, int(retry.counts), hash_of(session.pass_word))
        if needs_secrets(request.work, session):
            # A retry queue would have them masked: the message is held, and goes back to its queue as it came.
            await asyncio.sleep(max(_LOOK_EVERY, min(retry.delay, HOLD - (time.monotonic() - started))))
            session.log.info("request.given_back", attempt=attempts + int(retry.counts))
            raise GivenBack
        await self._retry(request, session.log, retry, attempts, session.pass_word)

    async def _retry(self, request: Request, said: Any, retry: Retry, attempts: int, pass_word: str) -> None:
        """Have the message come back, known again by its pass; `attempts` failed before this one. `said` is its log."""
        attempts += int(retry.counts)
        await self._outbox.retry(request.envelope, request.message, retry.delay, attempts, pass_word)
        said.info("request.put_off", seconds=retry.delay, attempt=attempts)
        self._metrics.event("retried")

    def _end(self, session: Session) -> None:
        """What ended outside its handler still has its one final update for each resource."""
        request = session.request
        ends = ends_of(request.work, session.told, session.effects())
        if isinstance(request.work, Order):
            ends.append(order_update(request.work, OrderStatus.FAILED, session.progress))
        known = {(body["resource"], body["id"]) for body in session.finals}
        session.finals += [
            update_body(request.message_id, request.operation, end)
            for end in ends
            if (end.resource, end.id) not in known
        ]

    async def _repeat(
        self, request: Request, key: str, tenant: str, result: Result, known: Known | None = None
    ) -> None:
        """Give a known request's result to whoever asks again; and what was finished and not published, too."""
        published = self._outbox.result(request.envelope, request.operation, key, result)
        if known is not None and not known.settled:
            published += [self._outbox.update(request.envelope, body, key) for body in known.updates]
        for one in published:
            await one
        if known is not None and not known.settled:
            self._journal.settle(key)
        self._metrics.event("duplicate")
        request_log(request, tenant).info("request.repeated", code=result.code)

    def _decide(self, error: Exception, request: Request) -> Decision:
        envelope = request.envelope
        if not isinstance(error, Refused):
            request_log(request, None).info("request.trouble", why=str(error)[:300])
        age = time.time() - intake.first_seen(envelope, time.time())
        return decide(error, request.kind, intake.attempts(envelope), age, self._limits.retry_delays)

    def _report(self, session: Session, result: Result, started: float) -> None:
        seconds = time.monotonic() - started
        session.log.info(
            "request.done", code=result.code, seconds=round(seconds, 3),
            openstack_request_ids=session.openstack_request_ids(),
        )  # fmt: skip
        self._metrics.answered(session.request.operation, result.code, seconds)


def _monotonic(unix: float) -> float:
    """An instant of the past by the clock that does not jump; one of the future counts as now."""
    return time.monotonic() - max(0.0, time.time() - unix)


async def _answer_of(flight: _Flight) -> Result | None:
    """The answer of a request under way; None where it ended without."""
    try:
        return await asyncio.shield(flight.answered)
    except asyncio.CancelledError:
        if flight.answered.cancelled():
            return None
        raise


def _log_unforeseen(session: Session, error: Exception) -> None:
    if not isinstance(error, EcsError):
        session.log.error("handler.unforeseen", exc_info=error)

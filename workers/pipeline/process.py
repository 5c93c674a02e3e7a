"""One delivery from the broker to its ack, stage by stage:

    parse        bytes -> Request                                  Ignored, Rejected
    authenticate Request -> Requester                              Rejected, Requeue
    turn         in turn by tenant                                 Requeue
    claim        idempotency: new, resumed, known result, conflict Answered, Rejected, Requeue
    lock         FIFO locks of the servers that it changes         busy, postponed
    run          the handler; an error becomes a decision          Answer | Retry
    finish       journal, then broker confirms                     Rescheduled
    settle       ack, requeue or dead-letter

A read goes the same way with a ledger in memory and without locks.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable

import structlog

from handlers import tracing
from handlers.effects.backoff import Deadline, within
from messages.codes import Code
from messages.errors import Postponed, Refused, Transient
from messages.record import record
from workers.amqp.consumer import Delivery
from workers.amqp.envelope import Envelope
from workers.amqp.renewal import is_worn, restored
from workers.identity import Requester
from workers.journal import ClaimLost, JournalError, Kind
from workers.metrics import Metrics
from workers.pipeline.attempt import Attempt, writable
from workers.pipeline.authentication import Authentication
from workers.pipeline.exits import Answered, Ignored, Rejected, Requeue, Rescheduled
from workers.pipeline.idempotency import Idempotency
from workers.pipeline.large_bodies import (
    BOUNDED,
    LIGHT,
    MOST_READS,
    MemoryBudget,
    in_thread_if_large,
)
from workers.pipeline.parsing import operation_of, parse
from workers.pipeline.progress import Ended, Progress
from workers.pipeline.rejections import Rejections
from workers.pipeline.retry import MACHINE_TROUBLE, Retry, unforeseen, wait_after
from workers.pipeline.server_locks import ServerLocks
from workers.pipeline.suspects import Suspects
from workers.pipeline.timeouts import HOLD, Timeouts, Timing
from workers.pipeline.turns import RequestTurns
from workers.pipeline.undeliverable import Undeliverable
from workers.request import Request
from workers.telemetry import log_request
from workers.tracing import delivery as traced

log = structlog.get_logger()

#: Seconds after which a delivery is requeued, whatever it waits for: a journal or a broker that
#: takes nothing.
HOLD_LIMIT = 290.0
#: Seconds before a message is requeued that the machine could not handle just now.
_BREATH = 2.0


@record
class Stages:
    """The stages, in order."""

    authentication: Authentication
    turns: RequestTurns
    idempotency: Idempotency
    locks: ServerLocks
    suspects: Suspects
    attempt: Attempt
    rejections: Rejections
    undeliverable: Undeliverable


class Pipeline:
    """Takes deliveries, and settles each once what it asked for is safe."""

    def __init__(self, stages: Stages, timeouts: Timeouts, metrics: Metrics, region: str) -> None:
        self._stages = stages
        self._timeouts = timeouts
        self._metrics = metrics
        self._region = region
        self._budget, self._budget_of_reads = MemoryBudget(), MemoryBudget(MOST_READS)
        #: The deliveries that are not settled, in the order in which they came.
        self._tasks: dict[asyncio.Task[None], Delivery] = {}
        #: Deliveries since the start, and those of them that were acked, by queue.
        self.delivered: Counter[str] = Counter()
        self.settled: Counter[str] = Counter()

    @property
    def in_flight(self) -> int:
        """Deliveries that are not settled yet."""
        return len(self._tasks)

    @property
    def held(self) -> Iterable[Delivery]:
        """The deliveries that are not settled yet."""
        return self._tasks.values()

    @property
    def waiting(self) -> int:
        """Deliveries that wait for their turn."""
        return self._stages.turns.waiting

    def accept(self, delivery: Delivery) -> None:
        """Begin with a delivery."""
        # The task has a context of its own, and so log fields of its own.
        task = asyncio.get_running_loop().create_task(self.handle(delivery))
        self._tasks[task] = delivery
        self.delivered[delivery.envelope.queue] += 1
        task.add_done_callback(self._tasks.pop)

    async def process(self, delivery: Delivery) -> None:
        """Carry out what a message asks for; returns when it may leave its queue."""
        started, envelope = time.monotonic(), delivery.envelope

        async def execute(request: Request, requester: Requester) -> None:
            log_request(request=request.name, operation=request.operation)
            await self.execute(request, requester, self._timeouts.timing(request, started))

        # Before anything is begun with it: its worker may be about to die once more.
        if is_worn(envelope) and await self._stages.undeliverable.renew(envelope, execute):
            tracing.note(ecs__outcome="renewed")
            return
        if envelope.queue == envelope.names.undelivered_queue:
            delivery.is_begun = True
            await self._stages.undeliverable.handle(envelope, execute)
            return
        request: Request | None
        with tracing.span("parse"):
            request = await self._parsed(envelope)
        log_request(request=request.name, operation=request.operation)
        tracing.note(ecs__operation=request.operation, ecs__request=request.name)
        timing = self._timeouts.timing(request, started)
        with tracing.span("authenticate"):
            requester = await self._stages.authentication.authenticate(request, timing)
        delivery.tenant = requester.project_id
        turns = self._stages.turns
        line = turns.line_of(request)
        turn = turns.at_once(line, requester, timing)
        if turn is None:
            if len(envelope.body) > LIGHT:
                request = None  # it waits as bytes, which are a fraction of what they are read to
            with tracing.span("turn"):
                turn = await turns.wait(line, requester, timing, delivery)
        delivery.is_begun = True
        try:
            request = request or await self._parsed(envelope)
            await self.execute(request, requester, turn.timing)
        finally:
            turn.end()

    async def _parsed(self, envelope: Envelope) -> Request:
        return await in_thread_if_large(len(envelope.body), lambda: parse(envelope, self._region))

    async def execute(self, request: Request, requester: Requester, timing: Timing) -> None:
        """Carry out an authenticated request, once.

        ORDER: the intent of an effect is in the journal before its call to OpenStack; the result is
        in the journal before it is published; the broker has confirmed everything before the ack.
        """
        log_request(tenant=requester.project_id)
        stages = self._stages
        tracing.note(ecs__tenant=requester.project_id, ecs__attempt=request.envelope.attempts)
        with tracing.span("claim"):
            progress = await stages.idempotency.claim(request, requester, timing)
        if progress.attempts != request.envelope.attempts:
            log_request(attempt=progress.attempts)
        try:
            with tracing.span("run"):
                ended = await self._run(progress)
            with tracing.span("finish"):
                await progress.finish(ended)
        except (ClaimLost, Requeue, Rescheduled, JournalError, *MACHINE_TROUBLE):
            raise
        except Exception as error:  # it has begun, so it must have its one result
            ended = stages.attempt.failed_unforeseen(progress, error)
            await progress.finish(ended)
        finally:
            stages.suspects.release(progress)
            stages.idempotency.release(progress)
        tracing.note(ecs__outcome="answered", ecs__code=ended.result.code)
        self._metrics.answered(
            request.operation, ended.result.code, time.monotonic() - timing.started
        )

    async def _run(self, progress: Progress) -> Ended:
        """Lock the servers and call the handler; an error becomes a decision.

        Raises `Rescheduled` or `Requeue` where there is to be another attempt.
        """
        request, attempt = progress.request, self._stages.attempt
        try:
            _check_may_go_on(progress)
            later = self._stages.suspects.check(progress)
            progress.publish_known()
            if later is not None:
                await self._put_off(progress)
                await progress.reschedule(*later)
            if request.name is None:
                result = await attempt.read(progress)
            else:
                async with attempt.answered_in_time(progress):
                    with tracing.span("lock"):
                        locked = bool(request.locks) and await self._stages.locks.acquire(progress)
                    if locked:
                        self._check_pause(progress)
                    result = await attempt.run(progress)
            # What was answered already stays the answer.
            return Ended(writable(progress, progress.early_answer or result))
        except (ClaimLost, Requeue, Rescheduled):
            raise
        except Exception as error:
            decision = await attempt.decide(progress, error)
            wait = wait_after(error, time.time(), progress.waited_for)
        if isinstance(decision, Retry):
            await progress.reschedule(decision, wait)
        return attempt.failed(progress, decision)

    async def _put_off(self, progress: Progress) -> None:
        """Answer a command whose time is up before it is put off: its worker may die again."""
        limit = progress.timing.limit
        if limit is not None and limit.passed and progress.early_answer is None:
            await self._stages.attempt.answer_late(progress)

    async def handle(self, delivery: Delivery) -> None:
        """Settle a delivery: ack it when it is done with, else requeue it.

        No name here stands for the envelope: what waits is to wait without its body.
        """
        delivery.envelope = restored(delivery.envelope)
        size, names = len(delivery.envelope.body), delivery.envelope.names
        # What is renewed is not read, and must not be given back once more for want of memory.
        is_large = size > BOUNDED and not is_worn(delivery.envelope)
        budget = (
            self._budget_of_reads if delivery.envelope.queue == names.reads_queue else self._budget
        )
        if is_large and not budget.take(size, again=delivery.envelope.redelivered):
            delivery.forget_body()
            await budget.wait(size, HOLD)
            delivery.requeue()
            return
        try:
            requeue_after = await self._settled(delivery)
        finally:
            if is_large:
                budget.give(size)
        if requeue_after is None:
            self.settled[delivery.envelope.queue] += 1
            delivery.settle()
            return
        if requeue_after:
            delivery.forget_body()
            await asyncio.sleep(requeue_after)
        delivery.requeue()

    async def _settled(self, delivery: Delivery) -> float | None:
        """Return None where the message is done with, else the seconds after which it is requeued."""
        envelope = delivery.envelope
        log_request(
            anew=True,
            message_id=envelope.message_id,
            request=None,
            operation=operation_of(envelope, {}, is_order=False),
            tenant=None,
            attempt=envelope.attempts,
        )
        with traced(envelope) as span:
            if span.trace_id is not None:
                log_request(trace_id=span.trace_id)
            requeue_after = await self._held(delivery)
            if requeue_after is not None:
                span.note(ecs__outcome="requeued")
        return requeue_after

    async def _held(self, delivery: Delivery) -> float | None:
        """Answer a message within the time for which it may be held; return as `_settled`."""
        envelope = delivery.envelope
        limit = within(Deadline.after(HOLD_LIMIT))
        try:
            with limit:
                await self._answered(delivery)
                # ORDER: its turn is another's by now. A requester that is gone holds up nobody.
                for reply in envelope.late:
                    await reply()
        except ClaimLost:
            # Another worker is at it; the broker gives the message to it, or it is found done.
            log.warning("request.taken_over")
            return 0.0
        except Requeue as requeue:
            return requeue.after
        except (Transient, JournalError, *MACHINE_TROUBLE) as error:
            if limit.expired:
                log.warning("request.held_too_long", queue=envelope.queue)
                return 0.0
            log.warning("request.requeued", queue=envelope.queue, exc_info=error)
            return _BREATH
        return None

    async def _answered(self, delivery: Delivery) -> None:
        """Process a message; whatever it ends in, it is answered.

        The broad `except`: an error that nobody foresaw is answered, and its message dead-lettered.
        """
        envelope = delivery.envelope
        try:
            try:
                await self.process(delivery)
            except Rejected as rejected:  # inside: an error of rejecting it is answered, too
                tracing.note(ecs__outcome="rejected", ecs__code=rejected.refused.code.wire)
                await self._stages.rejections.reject(envelope, rejected)
        except Ignored as ignored:
            self._metrics.event("ignored")
            tracing.note(ecs__outcome="ignored")
            log.info("order.ignored", request=ignored.name, status=ignored.status)
        except Answered:
            self._metrics.event("duplicate")
            tracing.note(ecs__outcome="duplicate")
        except Rescheduled:
            self._metrics.event("retried")
            tracing.note(ecs__outcome="retried")
        except (ClaimLost, Requeue, Transient, JournalError, *MACHINE_TROUBLE):
            raise
        except Exception as error:
            log.exception("pipeline.unforeseen", queue=envelope.queue)
            tracing.note(ecs__outcome="unforeseen", error__type=type(error).__name__)
            await self._stages.rejections.unforeseen(envelope, unforeseen(error))

    def pause(self, queues: Iterable[str]) -> None:
        """Begin nothing more of these queues until they are no longer named."""
        self._stages.turns.pause(queues)

    def give_back(self, queues: Iterable[str]) -> None:
        """Requeue what is not begun of these queues, and whatever comes of them, until they are no
        longer named.
        """
        self._stages.turns.give_back(queues)

    def _check_pause(self, progress: Progress) -> None:
        """Have an order go on later whose kind was paused while it waited for the locks of its
        servers. A command is begun: it must be answered within its time limit.
        """
        request = progress.request
        is_order = request.kind is Kind.ORDER and not progress.any_begun
        if is_order and self._stages.turns.gives_back(request.envelope.queue):
            raise Postponed("its kind, which is paused", for_lock=True)

    def give_up_lost(self) -> None:
        """Let go of what is not begun and whose connection is gone: its messages come again."""
        self._stages.turns.give_up_lost()

    async def drain(self, seconds: float) -> None:
        """Requeue what is not begun, and wait for what is; what has not ended by then is left to
        the next worker.
        """
        self._stages.turns.close()
        self._budget.close()
        self._budget_of_reads.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._stages.attempt.close()


def _check_may_go_on(progress: Progress) -> None:
    """Raise where a request ends before its handler is called, or is to come again first."""
    request = progress.request
    if progress.cancelled and not progress.any_begun:
        raise Refused(Code.FAILED, reason="cancelled", detail="an operator cancelled it")
    if request.given_up is not None:
        raise request.given_up
    if not progress.any_begun and (too_late := request.envelope.too_late) is not None:
        raise too_late
    if request.kind is Kind.ORDER and progress.timing.hold.passed:
        raise Postponed("its turn", for_lock=True)
    if is_worn(request.envelope):
        raise Postponed("its renewal", for_lock=True)

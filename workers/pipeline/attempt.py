"""Stage 6: one attempt at a request: its handler is called, and an error becomes a decision."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context

import structlog

from handlers.catalogue import Handler
from handlers.context import Environment, ProjectContext, RequestContext, RequestTimes
from handlers.effects.backoff import Alarm, Deadline, within
from handlers.effects.concurrency import changing
from handlers.effects.once import Effects
from handlers.effects.waits import Waits
from handlers.final_updates import ends_of, publish_ends
from handlers.openstack.errors import CloudRefusal
from handlers.openstack.project import counted
from handlers.orders.progress import order_update
from handlers.servers.targets import answer_in_time, failure, outcome_unknown
from messages.codes import Code
from messages.errors import Ambiguous, EcsError, OutcomeUnknown, Postponed, Refused, Transient
from messages.orders import Order
from messages.results import Result
from messages.updates import OrderStatus
from messages.wire import encode
from workers.journal import Kind
from workers.pipeline.progress import Ended, Progress
from workers.pipeline.rejections import failed_result
from workers.pipeline.retry import GIVE_UP_AFTER, Answer, Decision, Retry, decide, unforeseen
from workers.pipeline.timeouts import ANSWER_WITHIN, Timeouts

log = structlog.get_logger()

#: Reasons of a refusal that say that the time was up.
_WAITED = ("timeout", "busy")


class Attempt:
    """Runs handlers."""

    def __init__(
        self, environment: Environment, handlers: Mapping[type, Handler], timeouts: Timeouts
    ) -> None:
        self._environment = environment
        self._handlers = handlers
        self._timeouts = timeouts

    def close(self) -> None:
        """Stop watching the cloud."""
        self._environment.close()

    async def run(self, progress: Progress) -> Result:
        """Return what the request's handler returns, or raise what it raises."""
        request, timing = progress.request, progress.timing
        counted.set(progress.calls)
        changing.set(request.name is not None)
        patience = timing.patience(any_begun=progress.any_begun)
        context = RequestContext(
            environment=self._environment,
            effects=Effects(
                progress,
                patience,
                timing.limit,
                timing.deadline,
                self._environment.cloud.effect_timing,
            ),
            times=RequestTimes(
                timing.hold,
                self._timeouts.order_timeout,
                time.monotonic() - timing.received >= GIVE_UP_AFTER,
            ),
            replies=progress,
            key=progress.key,
            waits=(waits := Waits(progress.note_wait)),
        )
        handler = self._handlers[type(request.work)]
        try:
            if progress.project_id is None:
                return await handler(request.work, context)
            in_project = await context.in_project(progress.project_id)
            try:
                return await handler(request.work, in_project)
            except (Refused, CloudRefusal, OutcomeUnknown) as error:
                if request.kind is Kind.ORDER:
                    raise
                return await self._end_after_answer(progress, in_project, error)
        finally:
            progress.waited_for = waits.last
            waits.close()

    async def read(self, progress: Progress) -> Result:
        """Run the handler of a read, which ends when its time is up.

        It ends while its message is held: nothing of it could go on with another delivery.
        """
        until = min(progress.timing.patience(), progress.timing.hold)
        limit = within(Deadline.after(until.left + ANSWER_WITHIN))
        try:
            with limit:
                return await self.run(progress)
        except TimeoutError:
            if not limit.expired:
                raise
            detail = "the time was up before OpenStack answered"
            raise Refused(Code.FAILED, reason="timeout", detail=detail) from None

    @asynccontextmanager
    async def answered_in_time(self, progress: Progress) -> AsyncIterator[None]:
        """Carry a command out inside the context. When its time is up it is answered, whatever
        it waits for.

        What is under way goes on after the answer: a call that has been sent cannot be taken back,
        and what became of it is to be found out.
        """
        request, timing = progress.request, progress.timing
        if request.kind is Kind.ORDER or progress.closed:
            yield
            return
        # A request that is resumed after its limit has as long to find out what was done.
        left = timing.patience().left + ANSWER_WITHIN
        answering: list[asyncio.Task[None]] = []
        context = copy_context()  # the alarm rings in whatever context: another request's

        def answer() -> None:
            if not progress.closed:
                late = self.answer_late(progress)
                answering.append(asyncio.create_task(late, context=context))

        try:
            with Alarm(Deadline.after(left), answer):
                yield
        except asyncio.CancelledError:
            # The worker ends, or has held the message for too long: a journal that takes no answer
            # is not waited for.
            for task in answering:
                task.cancel()
            raise
        finally:
            # One that has begun to answer is waited for: there must be no second answer.
            if answering:
                await asyncio.wait(answering)
        for task in answering:
            task.result()

    async def decide(self, progress: Progress, found: Exception) -> Decision:
        """Return the decision after an error of the attempt."""
        request, timing = progress.request, progress.timing
        await self._answer_in_doubt(progress, found)
        error = _past_deadline(found, progress) or found
        decision = decide(
            error,
            request.kind,
            progress.attempts,
            time.monotonic() - timing.received,
            self._timeouts.retry_delays,
            answered=progress.early_answer is not None,
        )
        if not isinstance(error, EcsError):
            log.error("handler.unforeseen", exc_info=error)
        if isinstance(decision, Retry) and request.name is None:
            # Nobody finds a read again: whatever goes wrong is the answer.
            return Answer(Refused(Code.FAILED, reason="timeout"))
        return decision

    def failed(self, progress: Progress, answer: Answer) -> Ended:
        """Return the end of a request that failed, and note its final updates.

        What was answered already stays the answer, whatever went wrong afterwards.
        """
        refused = answer.refused
        log.info("request.failed", why=refused.detail, reason=refused.reason)
        result = progress.early_answer or self._failure(progress, refused)
        self._note_ends(progress)
        return Ended(result, refused if answer.dead_letter else None)

    def failed_unforeseen(self, progress: Progress, error: Exception) -> Ended:
        """Return the end of a request at which the worker itself failed, with as little
        of its own as can fail.
        """
        log.error("handler.unforeseen", exc_info=error)
        refused = unforeseen(error)
        result = progress.published_result or progress.early_answer
        if result is None:
            try:
                result = writable(progress, self._failure(progress, refused))
            except Exception:
                result = Result.refusal(refused)
        with suppress(Exception):
            self._note_ends(progress)
        progress.finals = [one for one in progress.finals if _is_json(one)]
        return Ended(result, refused)

    def _failure(self, progress: Progress, refused: Refused) -> Result:
        return failed_result(
            progress.request,
            refused,
            self._environment.policy,
            effects=progress.effects(),
            checked=progress.checked,
        )

    def _note_ends(self, progress: Progress) -> None:
        """Note the one final update of each resource of what ended outside its handler."""
        work = progress.request.work
        ends = ends_of(work, progress.early_answer, progress.effects())
        if isinstance(work, Order):
            ends.append(order_update(work, OrderStatus.FAILED, progress.percent))
        progress.finals += [
            progress.body_of(end)
            for end in ends
            if not progress.final_published(end.resource, end.id)
        ]

    async def _answer_in_doubt(self, progress: Progress, error: Exception) -> None:
        """Answer a command of which an earlier attempt may have done something, where the cloud
        does not tell.

        It was not refused, and is not over: it comes again, and is found out.
        """
        request = progress.request
        if request.kind is Kind.ORDER or progress.closed or not isinstance(error, Transient):
            return
        if isinstance(error, Ambiguous) or not progress.any_begun:
            return  # this attempt's own call, which has been looked for
        rest = Refused(Code.FAILED, reason=error.reason, detail=str(error))
        await progress.answer(
            answer_in_time(request.work, progress.effects(), progress.checked, rest)
        )

    async def answer_late(self, progress: Progress) -> None:
        """Answer a command whose time is up by what has been done so far."""
        request = progress.request
        late = request.envelope.too_late or Refused(Code.FAILED, reason="timeout")
        result = answer_in_time(request.work, progress.effects(), progress.checked, late)
        log.info("request.answered_in_time", code=result.code)
        await progress.answer(result)

    async def _end_after_answer(
        self, progress: Progress, context: ProjectContext, error: Exception
    ) -> Result:
        """Return the answer of a command that failed after it, or whose outcome is not known, and
        publish what there is of its end. Raises `error` where there is no answer yet.
        """
        work = progress.request.work
        if isinstance(error, OutcomeUnknown) or progress.closed:
            unknown = failure(work, outcome_unknown(), progress.effects(), progress.checked)
            await progress.answer(unknown)  # unless it has been already
        answer = progress.early_answer
        if answer is None:
            raise error
        await publish_ends(work, answer, context)
        return answer


def writable(progress: Progress, result: Result) -> Result:
    """Return the result. Raises `ValueError` where it or a final update is no JSON in UTF-8."""
    if not _is_json([result.stored(), progress.finals]):
        progress.finals = [one for one in progress.finals if _is_json(one)]
        raise ValueError("the result is no JSON")
    return result


def _is_json(value: object) -> bool:
    try:
        encode(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _past_deadline(error: Exception, progress: Progress) -> Refused | None:
    """Return the refusal of what waited, for whatever, until its own deadline had passed, and had
    nothing begun.
    """
    has_waited = isinstance(error, (Postponed, Transient)) or (
        isinstance(error, Refused) and error.reason in _WAITED
    )
    return progress.request.envelope.too_late if has_waited and not progress.any_begun else None

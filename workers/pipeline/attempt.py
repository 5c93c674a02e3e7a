"""A request is carried out by its handler, and what came of it becomes a result, a retry or a dead
letter.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from uuid import UUID, uuid5

from handlers.catalogue import Handler
from handlers.context import Environment, Policy, ProjectContext, RequestContext, RequestTimes
from handlers.effects.backoff import Deadline
from handlers.effects.once import Effects
from handlers.final_updates import ends_of, tell_ends
from handlers.openstack.cloud import Cloud
from handlers.openstack.errors import CloudRefusal
from handlers.openstack.project import counted
from handlers.orders.new.handler import needs_secrets
from handlers.orders.progress import order_update
from handlers.servers.targets import answer_in_time, failure, outcome_unknown
from messages.codes import Code
from messages.errors import Ambiguous, EcsError, OutcomeUnknown, Postponed, Refused, Transient
from messages.orders import Order
from messages.results import Result
from messages.updates import OrderStatus
from messages.wire import encode
from workers.identity import NOBODY, Requester, hash_of, new_resume_token
from workers.journal import Begun, Claim, ClaimLost, Journal, JournalError, Kind, Resumed
from workers.pipeline.authentication import Requeue
from workers.pipeline.progress import Progress, request_log
from workers.pipeline.rejections import Rejections
from workers.pipeline.replies import Replies
from workers.pipeline.retry import MACHINE_TROUBLE, Answer, Decision, Retry, decide, is_last_try
from workers.pipeline.server_locks import ServerLocks, lock_names_of
from workers.pipeline.timeouts import ANSWER_WITHIN, HOLD, Timeouts, own_deadline, soonest
from workers.request import Request
from workers.telemetry import Metrics

T = TypeVar("T")

_MARKS = UUID("0d2f7a63-52c1-5a0c-9b0e-8f4f0c1d9e55")
#: Reasons of a refusal that tell that the time was up.
_WAITED = ("timeout", "busy")
#: Seconds at least before a message goes back to its queue that must not go to a retry queue.
_LEAST_PAUSE = 1.0


class Attempt:
    """Carries out what was admitted, when it is its turn."""

    def __init__(
        self,
        *,
        cloud: Cloud,
        journal: Journal,
        outbox: Replies,
        handlers: Mapping[type, Handler],
        policy: Policy,
        limits: Timeouts,
        refusals: Rejections,
        turns: ServerLocks,
        metrics: Metrics,
    ) -> None:
        self._journal = journal
        self._outbox = outbox
        self._handlers = handlers
        self._environment = Environment(cloud, policy)
        self._limits = limits
        self._refusals = refusals
        self._turns = turns
        self._metrics = metrics

    def close(self) -> None:
        """Watch no more."""
        self._environment.close()

    async def answer(self, request: Request, requester: Requester, started: float) -> None:
        """Carry out what leaves no journal entry. Nobody finds it again, so whatever goes wrong is
        the answer.
        """
        project_id = requester.project_id
        key = f"{request.kind}:{project_id}:{request.envelope.fingerprint}"
        log = request_log(request, project_id, request.envelope.attempts)
        session, park = Progress(request, key, self._outbox, None, None, {}, log), None
        try:
            if refused := request.envelope.too_late:
                raise refused
            limit = self._patience(session, time.monotonic() - started)
            running = self._run(session, project_id, started)
            result = checked(await _within(limit.left + ANSWER_WITHIN, running), session)
        except Exception as error:
            decision = self._decide(error, request)
            refused = (
                decision.refused
                if not isinstance(decision, Retry)
                else Refused(Code.FAILED, reason="timeout")
            )
            _log_unforeseen(session, error)
            result = self._refusals.result(request, refused)
            park = decision.refused if isinstance(decision, Answer) and decision.park else None
        await session.publish_end(result)
        if park is not None:
            await self._refusals.park(request.envelope, park, proven=project_id)
        self._report(session, result, started)

    async def carry_out(
        self,
        session: Progress,
        begun: Begun | Resumed,
        project_id: str,
        received: float,
        started: float,
    ) -> None:
        """Carry out what the journal has begun, to its end or until it is put off.

        `received`: when it first came, `started`: when this delivery did, both by the monotonic
        clock. An error of our own on the way there ends it, too: with its one result, and its
        message parked.
        """
        try:
            await self._carry_out(session, begun, project_id, received, started)
        except (ClaimLost, Requeue, JournalError, *MACHINE_TROUBLE):
            raise
        except Exception as error:
            _log_unforeseen(session, error)
            await self._end_unforeseen(session, begun.claim, error)

    async def _carry_out(
        self,
        session: Progress,
        begun: Begun | Resumed,
        project_id: str,
        received: float,
        started: float,
    ) -> None:
        request, park = session.request, None
        attempts = begun.attempts if isinstance(begun, Resumed) else 0
        try:
            if request.given_up is not None:
                raise request.given_up
            if not session.any_begun and (refused := request.envelope.too_late):
                raise refused
            session.publish_known()
            async with self._answered_in_time(session, received):
                result = await self._in_turn(session, begun.claim, project_id, received)
            result = checked(session.told or result, session)
        except ClaimLost:
            raise
        except Exception as found:
            await self._answer_in_doubt(session, found)
            told, age = session.told, time.monotonic() - received
            error = _past_deadline(found, session) or found
            decision = decide(
                error,
                request.kind,
                attempts,
                age,
                self._limits.retry_delays,
                answered=told is not None,
            )
            _log_unforeseen(session, error)
            if isinstance(decision, Retry):
                await self._put_off(session, begun, decision, attempts, started)
                return
            # What was answered already stays the answer, whatever goes wrong with telling its
            # course.
            result = told or self._refusals.result(
                request,
                decision.refused,
                changed=session.any_begun,
                effects=session.effects(),
                verdicts=session.checked,
            )
            park = decision.refused if decision.park else None
            self._end(session)
            session.log.info(
                "request.failed", why=decision.refused.detail, reason=decision.refused.reason
            )
        await self._journal.finish(begun.claim, result.stored(), session.finals)
        await session.publish_end(result)
        if park is not None:
            await self._refusals.park(request.envelope, park, proven=project_id)
        # Not awaited: should it be lost, the next delivery finds the result and publishes it again.
        self._journal.settle(session.key)
        self._report(session, result, started)

    async def _answer_in_doubt(self, session: Progress, error: Exception) -> None:
        """Answer a command of which an earlier run may have done something, where the cloud does
        not tell.

        It was not refused, and is not over: it comes again, and is found out.
        """
        request = session.request
        if request.kind is Kind.ORDER or session.closed or not isinstance(error, Transient):
            return
        if isinstance(error, Ambiguous) or not session.any_begun:
            return  # this run's own call, which has been looked for
        rest = Refused(Code.FAILED, reason=error.reason, detail=str(error))
        await session.answer(answer_in_time(request.work, session.effects(), session.checked, rest))

    async def _end_unforeseen(self, session: Progress, claim: Claim, error: Exception) -> None:
        """End a request at which the worker itself failed, with as little of its own as can fail."""
        request, refused = session.request, unforeseen(error)
        result = session.given or session.told or self._plain_failure(session, refused)
        with suppress(Exception):
            self._end(session)
        session.finals = [one for one in session.finals if can_be_written(one)]
        await self._journal.finish(claim, result.stored(), session.finals)
        await session.publish_end(result)
        await self._refusals.park(request.envelope, refused, proven=session.project_id or NOBODY)
        self._journal.settle(session.key)
        self._report(session, result, time.monotonic())

    def _plain_failure(self, session: Progress, refused: Refused) -> Result:
        """The failure in the shape of what was asked, or without data where that cannot be made,
        either.
        """
        try:
            return checked(
                self._refusals.result(session.request, refused, changed=session.any_begun), session
            )
        except Exception:
            return Result.refusal(refused)

    @asynccontextmanager
    async def _answered_in_time(self, session: Progress, received: float) -> AsyncIterator[None]:
        """Inside it a command is carried out. When its time is up it is answered, whatever it waits
        for.

        What is under way then goes on behind the answer: a call that has been sent cannot be taken
        back, and what became of it is to be found out.
        """
        request = session.request
        if request.kind is Kind.ORDER or session.closed:
            yield
            return
        limit = soonest(
            self._limits.patience(request, time.monotonic() - received),
            own_deadline(request.envelope),
        )
        begun = asyncio.Event()
        watch = asyncio.create_task(self._answer_at(limit.left + ANSWER_WITHIN, session, begun))
        try:
            yield
        except asyncio.CancelledError:
            # The worker ends, or has held the message for too long: a journal that takes no answer
            # is not waited for.
            watch.cancel()
            raise
        finally:
            # One that has begun to answer is waited for: there must be no second answer.
            if not begun.is_set():
                watch.cancel()
            await asyncio.wait([watch])
        if begun.is_set():
            watch.result()

    async def _answer_at(self, seconds: float, session: Progress, begun: asyncio.Event) -> None:
        await asyncio.sleep(seconds)
        if session.closed:
            return
        begun.set()
        late = session.request.envelope.too_late or Refused(Code.FAILED, reason="timeout")
        result = answer_in_time(session.request.work, session.effects(), session.checked, late)
        session.log.info("request.answered_in_time", code=result.code)
        await session.answer(result)

    async def _in_turn(
        self, session: Progress, claim: Claim, project_id: str, received: float
    ) -> Result:
        """Carried out when nobody is ahead at the same servers; a command waits no longer than it
        may take.
        """
        request = session.request
        if session.closed:
            # Nothing is begun for it any more: what is still to be told waits behind nobody.
            return await self._run(session, project_id, received)
        until: Deadline
        too_late: EcsError
        if request.kind is Kind.ORDER:
            until, too_late = Deadline.after(HOLD), Postponed("its turn")
        else:
            until = self._patience(session, time.monotonic() - received)
            too_late = Refused(
                Code.FAILED, reason="busy", detail="other requests for the server are under way"
            )

        def keeps() -> bool:
            # Half done, and tried again: whoever came later would find the server in a state of
            # ours, not the user's.
            return request.kind is Kind.ORDER and session.any_begun

        async with self._turns.taken(claim, lock_names_of(request.work), until, too_late, keeps):
            return await self._run(session, project_id, received)

    async def _run(self, session: Progress, project_id: str, received: float) -> Result:
        request = session.request
        is_order = request.kind is Kind.ORDER
        age = time.monotonic() - received
        counted.set(session.calls)
        patience = self._patience(session, age)
        expiry = None if is_order else self._limits.patience(request, age)
        errand = RequestContext(
            environment=self._environment,
            effects=Effects(
                session,
                patience,
                expiry,
                own_deadline(request.envelope),
                self._environment.cloud.effect_timing,
            ),
            times=RequestTimes(
                patience, Deadline.after(HOLD), self._limits.order_timeout, is_last_try(age)
            ),
            replies=session,
            mark=uuid5(_MARKS, session.key).hex,
        )
        if project_id == NOBODY:
            return await self._handlers[type(request.work)](request.work, errand)
        context = await errand.in_project(project_id)
        try:
            return await self._handlers[type(request.work)](request.work, context)
        except (Refused, CloudRefusal, OutcomeUnknown) as error:
            if is_order:
                raise
            return await self._ended_behind_its_answer(session, context, error)

    async def _ended_behind_its_answer(
        self, session: Progress, context: ProjectContext, error: Exception
    ) -> Result:
        """The answer of a command that failed behind it, or whose outcome nobody knows; what there
        is of it is told.
        """
        if isinstance(error, OutcomeUnknown) or session.closed:
            unknown = failure(
                session.request.work, outcome_unknown(), session.effects(), session.checked
            )
            await session.answer(unknown)  # unless it has been already
        if session.told is None:
            raise error
        await tell_ends(session.request.work, session.told, context)
        return session.told

    def _patience(self, session: Progress, age: float) -> Deadline:
        """Until when it is tried in this delivery; the requester's own deadline counts until
        something is begun.
        """
        request = session.request
        patience = self._limits.patience(request, age)
        if request.kind is Kind.ORDER or session.any_begun:
            return patience
        return soonest(patience, own_deadline(request.envelope))

    async def _put_off(
        self, session: Progress, begun: Begun | Resumed, retry: Retry, attempts: int, started: float
    ) -> None:
        """Give the request up and have the message come back; whoever gets it goes on where it was."""
        request = session.request
        if retry.counts and isinstance(request.work, Order):
            await session.publish(
                order_update(request.work, OrderStatus.WAITING_RETRY, session.progress)
            )
        await session.flush()
        resume_token = session.resume_token or new_resume_token()
        await self._journal.release(begun.claim, int(retry.counts), hash_of(resume_token))
        if needs_secrets(request.work, session):
            # A retry queue would have them masked: the message is held, and goes back to its queue
            # as it came.
            await asyncio.sleep(
                max(_LEAST_PAUSE, min(retry.delay, HOLD - (time.monotonic() - started)))
            )
            session.log.info("request.given_back", attempt=attempts + int(retry.counts))
            raise Requeue
        await self._retry(request, session.log, retry, attempts, resume_token)

    async def reschedule(self, request: Request, project_id: str, resume_token: str) -> None:
        """Look again later at what another worker is at."""
        again = Retry(self._limits.retry_delays[0], counts=False)
        await self._retry(
            request,
            request_log(request, project_id),
            again,
            request.envelope.attempts,
            resume_token,
        )

    async def _retry(
        self, request: Request, said: Any, retry: Retry, attempts: int, resume_token: str
    ) -> None:
        """Have the message come back, known again by its pass; `attempts` failed before this one.
        `said` is its log.
        """
        attempts += int(retry.counts)
        await self._outbox.retry(
            request.envelope, request.message, retry.delay, attempts, resume_token
        )
        said.info("request.put_off", seconds=retry.delay, attempt=attempts)
        self._metrics.event("retried")

    def _end(self, session: Progress) -> None:
        """What ended outside its handler still has its one final update for each resource."""
        request = session.request
        ends = ends_of(request.work, session.told, session.effects())
        if isinstance(request.work, Order):
            ends.append(order_update(request.work, OrderStatus.FAILED, session.progress))
        known = {(body["resource"], body["id"]) for body in session.finals}
        session.finals += [
            session.body_of(end) for end in ends if (end.resource, end.id) not in known
        ]

    def _decide(self, error: Exception, request: Request) -> Decision:
        envelope = request.envelope
        if not isinstance(error, Refused):
            request_log(request, None).info("request.trouble", why=str(error)[:300])
        age = time.time() - envelope.first_seen
        return decide(error, request.kind, envelope.attempts, age, self._limits.retry_delays)

    def _report(self, session: Progress, result: Result, started: float) -> None:
        seconds = time.monotonic() - started
        session.log.info(
            "request.done",
            code=result.code,
            seconds=round(seconds, 3),
            openstack_calls=dict(session.calls),
            openstack_request_ids=session.openstack_request_ids(),
        )
        self._metrics.answered(session.request.operation, result.code, seconds)


def unforeseen(error: Exception) -> Refused:
    """What is answered where the worker itself failed."""
    return Refused(Code.FAILED, reason="internal", detail=type(error).__name__)


def checked(result: Result, session: Progress) -> Result:
    """The result, which can be written down and published with its final updates; raises where it
    cannot.
    """
    if not can_be_written([result.stored(), session.finals]):
        session.finals = [one for one in session.finals if can_be_written(one)]
        raise ValueError("the result is no JSON")
    return result


def can_be_written(value: Any) -> bool:
    """Whether it is JSON in UTF-8."""
    try:
        encode(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _past_deadline(error: Exception, session: Progress) -> Refused | None:
    """The refusal of what waited, for whatever, until its own deadline had passed, and had nothing
    begun.
    """
    waited = isinstance(error, (Postponed, Transient)) or (
        isinstance(error, Refused) and error.reason in _WAITED
    )
    return session.request.envelope.too_late if waited and not session.any_begun else None


async def _within(seconds: float, answer: Awaitable[T]) -> T:
    """The answer of what changes nothing, if it comes in time."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await answer
    except TimeoutError:
        if not limit.expired():
            raise
        raise Refused(
            Code.FAILED, reason="timeout", detail="the time was up before OpenStack answered"
        ) from None


def _log_unforeseen(session: Progress, error: Exception) -> None:
    if not isinstance(error, EcsError):
        session.log.error("handler.unforeseen", exc_info=error)

"""A request is carried out once, however often its message comes: in this process, in another, or
after a crash.
"""

import asyncio
import time

from handlers.effects.backoff import Deadline
from handlers.orders.new.handler import has_secrets
from messages.results import Result
from workers.identity import NOBODY, Identity, Requester, hash_of, new_resume_token
from workers.journal import Begun, Conflict, Elsewhere, Journal, Known, NewRequest, Resumed
from workers.pipeline.attempt import Attempt
from workers.pipeline.authentication import Authentication, Requeue
from workers.pipeline.in_flight import InFlight, InFlightRequests
from workers.pipeline.progress import Progress, request_log
from workers.pipeline.rejections import Rejections
from workers.pipeline.replies import Replies
from workers.pipeline.timeouts import HOLD
from workers.request import Request
from workers.telemetry import Metrics

#: Seconds between two looks at a request that another worker is at.
_LOOK_EVERY = 1.0


class GoesOn(Exception):
    """The broker gave up on a message whose request does not end with it: it was sent again."""


class Idempotency:
    """Knows a request again: it is begun, gone on with, or has its answer already."""

    def __init__(
        self,
        *,
        journal: Journal,
        identity: Identity,
        admission: Authentication,
        outbox: Replies,
        execution: Attempt,
        refusals: Rejections,
        flights: InFlightRequests,
        metrics: Metrics,
    ) -> None:
        self._journal = journal
        self._identity = identity
        self._admission = admission
        self._outbox = outbox
        self._execution = execution
        self._refusals = refusals
        self._flights = flights
        self._metrics = metrics

    async def carry_out(
        self, request: Request, key: str, requester: Requester, started: float
    ) -> None:
        """Have it done, or answer what is known; `started`: when this delivery began, by the
        monotonic clock.

        `Requeue` where another worker is at it and the message must not go to a retry queue,
        `ClaimLost` where another has taken it over.
        """
        if await self._comes_too_late(request, key, requester):
            return
        # From the look at what is under way to the place among it nothing is awaited.
        while (flight := self._flights.get(key)) is not None:
            if flight.digest != request.digest:
                await self._refusals.conflict(request, requester.project_id)
                return
            answer = await flight.answer()
            if answer is not None:
                await self._repeat(request, key, requester.project_id, answer)
                return
        with self._flights.begun(key, request.digest) as flight:
            await self._begin(request, key, requester, started, flight)

    async def _comes_too_late(self, request: Request, key: str, requester: Requester) -> bool:
        """Refuse what is too old when it first comes. It leaves no key, so that it may be put in
        again.

        What an operator puts in again, and what the broker gave up on, may be of any age.
        """
        if requester.operator is not None or request.given_up is not None:
            return False
        refused = self._admission.stale(request.envelope)
        if refused is None or await self._journal.find(key):
            return False
        await self._refusals.refuse(request, refused, park=True, tenant=requester.project_id)
        return True

    async def give_up(self, request: Request) -> bool:
        """Carry out what was begun of a request that is only to be ended; False where nothing was.

        Nor is anything ended for a sender who is not proven. `GoesOn` where the request is not to
        end with this message; `JournalError`, or `Transient`, where it cannot be told.
        """
        for known in await self._journal.find(request.name) if request.name is not None else ():
            if known.key == request.key(known.tenant) and known.digest == request.digest:
                if not await self._identity.proves(request):
                    return False
                requester = Requester(known.tenant, resume_token=request.envelope.resume_token)
                await self.carry_out(request, known.key, requester, time.monotonic())
                return True
        return False

    async def _begin(
        self, request: Request, key: str, requester: Requester, started: float, flight: InFlight
    ) -> None:
        hold, project_id = Deadline.after(HOLD), requester.project_id
        # Whoever asks has waited since the message came, also while it was found out who that is.
        first_seen = request.envelope.first_seen
        received = min(started, _monotonic(first_seen))
        new = NewRequest(
            key,
            request.name or "",
            request.kind,
            request.operation,
            project_id,
            request.digest,
            first_seen,
        )
        outcome = await self._journal.begin(new)
        while isinstance(outcome, Elsewhere) and not hold.passed:
            await asyncio.sleep(_LOOK_EVERY)
            outcome = await self._journal.begin(new)
        match outcome:
            case Known():
                await self._repeat(
                    request, key, project_id, Result.restored(outcome.result), outcome
                )
            case Conflict():
                await self._refusals.conflict(request, project_id)
            case Elsewhere() if request.given_up is not None or has_secrets(request.work):
                raise Requeue
            case Elsewhere():
                resume_token = requester.resume_token or new_resume_token()
                await self._journal.give_pass(key, hash_of(resume_token))
                await self._execution.reschedule(request, project_id, resume_token)
            case Begun():
                session = self._session(request, key, requester, outcome, flight)
                await self._execution.carry_out(session, outcome, project_id, received, started)
            case Resumed() if request.given_up is not None and _goes_on(
                request, requester, outcome
            ):
                await self._send_again(request, key, requester, outcome)
            case Resumed():
                session = self._session(request, key, requester, outcome, flight)
                session.log.info("request.resumed", effects=sorted(outcome.effects))
                received = _monotonic(outcome.received_at)
                await self._execution.carry_out(session, outcome, project_id, received, started)

    async def _send_again(
        self, request: Request, key: str, requester: Requester, outcome: Resumed
    ) -> None:
        """Have a message that the broker gave up on come again, for its request is not to end with
        it.
        """
        if has_secrets(request.work):  # a retry queue would have them masked
            await self._journal.release(outcome.claim)
            await self._outbox.send_again(request.envelope)
        else:
            resume_token = requester.resume_token or new_resume_token()
            await self._journal.release(outcome.claim, 0, hash_of(resume_token))
            await self._execution.reschedule(request, requester.project_id, resume_token)
        raise GoesOn

    def _session(
        self,
        request: Request,
        key: str,
        requester: Requester,
        outcome: Begun | Resumed,
        flight: InFlight,
    ) -> Progress:
        effects = outcome.effects if isinstance(outcome, Resumed) else {}
        attempt = outcome.attempts if isinstance(outcome, Resumed) else 0
        log_of = request_log(request, requester.project_id, attempt)
        session = Progress(
            request, key, self._outbox, self._journal, outcome.claim, effects, log_of
        )
        session.answered = flight.answered
        session.resume_token = requester.resume_token
        session.operator = requester.operator
        session.project_id = requester.project_id if requester.project_id != NOBODY else None
        return session

    async def _repeat(
        self, request: Request, key: str, tenant: str, result: Result, known: Known | None = None
    ) -> None:
        """Give a known request's result to whoever asks again; and what was finished and not
        published, too.
        """
        published = self._outbox.result(request.envelope, request.operation, key, result)
        if known is not None and not known.settled:
            published += [
                self._outbox.update(request.envelope, body, key) for body in known.updates
            ]
        for one in published:
            await one
        if known is not None and not known.settled:
            self._journal.settle(key)
        self._metrics.event("duplicate")
        request_log(request, tenant).info("request.repeated", code=result.code)


def _goes_on(request: Request, requester: Requester, outcome: Resumed) -> bool:
    """Return whether a request goes on although the broker gave up on a message of it.

    A deadline counts until the first effect. And what was put off comes again with its pass: one
    without is a copy, whose end is not that of the request.
    """
    if outcome.passed and requester.resume_token is None and not has_secrets(request.work):
        return True
    done = any(
        not (one.outcome or {}).keys() & {"refused", "value"} for one in outcome.effects.values()
    )
    return done and request.given_up is not None and request.given_up.reason == "deadline"


def _monotonic(unix: float) -> float:
    """An instant of the past by the clock that does not jump; one of the future counts as now."""
    return time.monotonic() - max(0.0, time.time() - unix)

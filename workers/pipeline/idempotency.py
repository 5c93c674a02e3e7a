"""Stage 4: a request is carried out once, however often its message comes: in this process, in
another, or after a crash.
"""

import asyncio
import time

import structlog

from handlers.orders.new.handler import has_secrets
from messages.errors import wrong
from messages.orders import OrderSoftDown
from messages.results import Result
from workers.identity import Requester, hash_of, new_resume_token
from workers.journal import (
    Begun,
    Claim,
    ContentConflict,
    HeldElsewhere,
    Journal,
    Kind,
    Known,
    NewRequest,
    Resumed,
)
from workers.pipeline.exits import Answered, Rejected, Requeue, Rescheduled
from workers.pipeline.in_flight import InFlight, InFlightRequests
from workers.pipeline.progress import Claimed, MemoryLedger, Progress
from workers.pipeline.rejections import CONFLICT
from workers.pipeline.replies import Replies
from workers.pipeline.timeouts import Timeouts, Timing
from workers.request import Request

log = structlog.get_logger()

#: The ledger of all reads: it keeps nothing.
_MEMORY = MemoryLedger()
#: Seconds between two looks at a request that another worker carries out.
_LOOK_EVERY = 1.0


class Idempotency:
    """Claims requests: new ones, and those whose worker is gone."""

    def __init__(
        self,
        journal: Journal,
        in_flight: InFlightRequests,
        replies: Replies,
        timeouts: Timeouts,
    ) -> None:
        self._journal = journal
        self._in_flight = in_flight
        self._replies = replies
        self._timeouts = timeouts

    async def claim(self, request: Request, requester: Requester, timing: Timing) -> Progress:
        """Return the progress of a request for which this process alone acts until `release`.

        Raises `Answered` where it has its result already, `Rejected` where it comes too late or its
        key belongs to another content, `Rescheduled` or `Requeue` where another worker is at it.
        """
        key = request.key(requester.project_id)
        # What an operator replays, and what the broker gave up on, may be of any age. What is
        # rejected leaves no key, so that it may be replayed.
        may_be_old = requester.operator is not None or request.given_up is not None
        too_old = None if may_be_old else self._timeouts.too_old(request.envelope)
        if too_old is not None and (key is None or not await self._journal.find(key)):
            raise Rejected.of(request, too_old, requester.project_id)
        if key is None:
            # A read leaves no entry in the journal, and a repeat of it is looked up afresh.
            envelope = request.envelope
            claim = Claim(f"{request.kind}:{requester.project_id}:{envelope.fingerprint}", "")
            claimed = Claimed(_MEMORY, claim, {}, envelope.attempts, None)
            return Progress(request, requester, timing, claimed, self._replies)
        # From the look at what is under way to the place among it nothing is awaited.
        while (flight := self._in_flight.get(key)) is not None:
            if flight.digest != request.digest:
                raise _conflict(request, requester)
            answer = await flight.answer()
            if answer is not None:
                await self._repeat(request, key, answer)
        flight = self._in_flight.begin(key, request.digest)
        try:
            return await self._begin(request, requester, timing, key, flight)
        except BaseException:
            self._in_flight.end(key, flight)
            raise

    def release(self, progress: Progress) -> None:
        """Note that this process acts for a request no more."""
        if progress.flight is not None:
            self._in_flight.end(progress.key, progress.flight)

    async def _begin(
        self,
        request: Request,
        requester: Requester,
        timing: Timing,
        key: str,
        flight: InFlight,
    ) -> Progress:
        new = NewRequest(
            key,
            request.name or "",
            request.kind,
            request.operation,
            requester.project_id,
            request.digest,
            # Whoever resumes a command counts its time from here, too.
            time.time() - (time.monotonic() - timing.received),
        )
        outcome = await self._journal.begin(new, request.locks)
        while isinstance(outcome, HeldElsewhere) and not timing.hold.passed:
            await asyncio.sleep(_LOOK_EVERY)
            outcome = await self._journal.begin(new, request.locks)
        match outcome:
            case Known():
                await self._repeat(request, key, Result.restored(outcome.result), outcome)
            case ContentConflict():
                raise _conflict(request, requester)
            case HeldElsewhere() if request.given_up is not None or has_secrets(request.work):
                raise Requeue
            case HeldElsewhere():
                token = requester.resume_token or new_resume_token()
                await self._journal.add_resume_token(key, hash_of(token))
                await self._reschedule(request, token, "held_elsewhere")
            case Begun():
                claimed = Claimed(
                    self._journal, outcome.claim, {}, 0, flight, outcome, outcome.cancelled
                )
                return Progress(request, requester, timing, claimed, self._replies)
            case Resumed() if request.given_up is not None and _goes_on(
                request, requester, outcome
            ):
                await self._publish_again(request, requester, outcome)
            case Resumed():
                log.info("request.resumed", effects=sorted(outcome.effects))
                timing = timing.resumed(outcome.received_at)
                claimed = Claimed(
                    self._journal,
                    outcome.claim,
                    outcome.effects,
                    outcome.attempts,
                    flight,
                    cancelled=outcome.cancelled,
                    lost_workers=outcome.lost_workers,
                    was_lost=outcome.was_lost,
                )
                return Progress(request, requester, timing, claimed, self._replies)
        raise AssertionError("each of the other outcomes is an exit")

    async def _publish_again(
        self, request: Request, requester: Requester, outcome: Resumed
    ) -> None:
        """Have a message that the broker gave up on come again: its request does not end with it."""
        if has_secrets(request.work):  # a retry queue would have them masked
            await self._journal.release(outcome.claim)
            await self._replies.publish_again(request.envelope)
            raise Rescheduled
        token = requester.resume_token or new_resume_token()
        await self._journal.release(outcome.claim, 0, hash_of(token))
        await self._reschedule(request, token, "undelivered")

    async def _reschedule(self, request: Request, token: str, reason: str) -> None:
        """Look again later at what another worker is at."""
        delay, attempts = self._timeouts.retry_delays[0], request.envelope.attempts
        await self._replies.retry(request, delay, attempts, token, reason=reason)
        raise Rescheduled

    async def _repeat(
        self, request: Request, key: str, result: Result, known: Known | None = None
    ) -> None:
        """Publish a known request's result to whoever asks again; and the final updates, where they
        may not have been published.
        """
        envelope = request.envelope
        published = self._replies.result(envelope, request.operation, key, result)
        if known is not None and not known.settled:
            published += [self._replies.update(envelope, body, key) for body in known.updates]
        for one in published:
            await one
        if known is not None and not known.settled:
            self._journal.settle(key)
        log.info("request.repeated", code=result.code)
        raise Answered


def _goes_on(request: Request, requester: Requester, outcome: Resumed) -> bool:
    """Tell whether a request goes on although the broker gave up on a message of it.

    A deadline counts until the first effect. And what was rescheduled comes again with its resume
    token: one without is a copy, whose end is not that of the request.
    """
    if (
        outcome.has_resume_token
        and requester.resume_token is None
        and not has_secrets(request.work)
    ):
        return True
    done = any(
        not (one.outcome or {}).keys() & {"refused", "value"} for one in outcome.effects.values()
    )
    return done and request.given_up is not None and request.given_up.reason == "deadline"


def _conflict(request: Request, requester: Requester) -> Rejected:
    """Return the rejection of a request whose key belongs to another content; what that one did is
    not touched.
    """
    name = "message_id"
    if request.kind is Kind.ORDER:
        name = "flowId" if isinstance(request.work, OrderSoftDown) else "orderId"
    refused = wrong(name, "the key is known with another content", reason=CONFLICT)
    return Rejected.of(request, refused, requester.project_id)

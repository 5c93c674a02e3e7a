"""Stage 5: FIFO locks of the servers that a request changes, kept in the journal for all workers."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

import structlog

from handlers.effects.backoff import Deadline
from messages.codes import Code
from messages.errors import EcsError, Postponed, Refused
from workers.journal import Ahead, Claim, HolderState, Journal, Kind
from workers.pipeline.in_flight import InFlightRequests
from workers.pipeline.progress import Progress

log = structlog.get_logger()

#: Seconds between two looks at a request that another worker carries out.
LOOK_EVERY = 0.5
#: Seconds, besides those in its retry queue, for which a request that nobody carries out keeps its
#: place: the broker has its message, and gives it to a worker.
GRACE = 10.0


class ServerLocks:
    """The locks of servers. Whoever waits is served in the order of the requests."""

    def __init__(
        self, journal: Journal, in_flight: InFlightRequests, retry_delays: Sequence[float]
    ) -> None:
        self._journal = journal
        self._in_flight = in_flight
        self._delays = retry_delays

    async def acquire(self, progress: Progress) -> bool:
        """Wait until the request, which locks a server, has the locks of all its servers; it keeps
        them until its result is written, or it is rescheduled. Return whether it had to wait.

        Where they are not free in time a command is `Refused` as busy, and an order `Postponed`.
        """
        request, claim = progress.request, progress.claim
        if progress.closed:
            # Nothing is begun for a closed one any more: its final updates wait behind nobody.
            return False
        until: Deadline = progress.timing.hold
        too_late: EcsError = Postponed("the locks of its servers", for_lock=True)
        if request.kind is not Kind.ORDER:
            until = progress.timing.patience(any_begun=progress.any_begun)
            detail = "other requests for the server are under way"
            too_late = Refused(Code.FAILED, reason="busy", detail=detail)
        gone: dict[Claim, float] = {}
        if progress.begun is not None:
            ahead = progress.begun.ahead
        else:
            ahead = await self._journal.acquire_locks(claim, request.locks)
        waits = ahead is not None
        while ahead is not None and not until.passed:
            await self._wait_for(ahead, until, gone)
            ahead = await self._journal.acquire_locks(claim)
        if ahead is not None:
            raise too_late
        return waits

    async def _wait_for(self, ahead: Ahead, until: Deadline, gone: dict[Claim, float]) -> None:
        """Wait for a while for the request right ahead; expire the lock of one that nobody has.

        `gone`: since when (monotonic clock) nobody has carried a request out.
        """
        flight = self._in_flight.get(ahead.claim.key)
        if flight is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(flight.ended.wait(), until.left)
            return
        if ahead.holder is not HolderState.ELSEWHERE and not self._is_in_retry(ahead):
            since = gone.setdefault(ahead.claim, time.monotonic())
            if time.monotonic() - since > self._delays[0] + GRACE:
                log.warning("server_lock.expired", key=ahead.claim.key)
                await self._journal.expire_lock(ahead.claim)
                return
        await asyncio.sleep(min(LOOK_EVERY, until.left))

    def _is_in_retry(self, ahead: Ahead) -> bool:
        """Tell whether its message has not come back yet from its retry queue."""
        if ahead.rescheduled_at is None or ahead.attempts == 0:
            return False
        delay = self._delays[min(ahead.attempts, len(self._delays)) - 1]
        return ahead.rescheduled_at <= time.time() < ahead.rescheduled_at + delay

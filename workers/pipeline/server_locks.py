"""Requests that change the same server take turns, in the order in which they came."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

import structlog

from handlers.effects.backoff import Deadline
from messages.commands import Force, Power, PowerAction, PowerBatch
from messages.errors import EcsError, Postponed
from messages.images import CreateImage
from messages.orders import Order
from messages.servers import ServerTagsUpdate
from workers.journal import Ahead, Claim, Journal, Standing

log = structlog.get_logger()

#: Seconds between two looks at a request that another worker is at.
LOOK_EVERY = 0.5
#: Seconds, besides those in its retry queue, for which a request that nobody is at keeps its place:
#: the broker has its message, and gives it to somebody.
GRACE = 10.0


#: Added to a server's id: the line in which hard reboots stand, and everything else but soft ones.
_HARD = " hard"


def lock_names_of(work: Any) -> tuple[str, ...]:
    """The lines in which a request waits for its turn: two for each server that it changes.

    A hard reboot waits for no soft one, which may hang: they stand in one line each, and everything
    else in both.
    """
    match work:
        case PowerAction():
            return _lines((work.server_id,), work)
        case CreateImage() | ServerTagsUpdate():
            return _lines((work.server_id,))
        case PowerBatch():
            return _lines(work.server_ids, work)
        case Order():
            return _lines(work.instance_ids)
        case _:
            return ()


def _lines(
    server_ids: Iterable[str], action: PowerAction | PowerBatch | None = None
) -> tuple[str, ...]:
    ends: tuple[str, ...] = ("", _HARD)
    if action is not None and action.power is Power.REBOOT:
        ends = (_HARD,) if action.force is Force.HARD else ("",)
    return tuple(one + end for one in server_ids for end in ends)


class ServerLocks:
    """The lines before the servers. `under_way` gives what is set when a request of this process
    has ended.
    """

    def __init__(
        self,
        journal: Journal,
        under_way: Callable[[str], asyncio.Event | None],
        retry_delays: Sequence[float],
    ) -> None:
        self._journal = journal
        self._delays = retry_delays
        self._under_way = under_way

    @asynccontextmanager
    async def taken(
        self,
        claim: Claim,
        places: tuple[str, ...],
        until: Deadline,
        too_late: EcsError,
        keeps: Callable[[], bool] = lambda: False,
    ) -> AsyncIterator[None]:
        """Inside it is this request's turn at all these places; `too_late` is raised where it does
        not come in time.

        A request that goes on later (`Postponed`) keeps its place; so does one that failed, where
        `keeps` says so: it may be in the middle of something.
        """
        if not places:
            yield
            return
        try:
            if not await self._comes_first(claim, places, until):
                raise too_late
            yield
        except Postponed:
            raise
        except Exception:
            if not keeps():
                self._leave(claim)
            raise
        self._leave(claim)

    def _leave(self, claim: Claim) -> None:
        # Not awaited: a place whose request has ended counts no more.
        self._journal.leave(claim.key)

    async def _comes_first(self, claim: Claim, places: tuple[str, ...], until: Deadline) -> bool:
        gone: dict[Claim, float] = {}
        ahead = await self._journal.acquire_locks(claim, places)
        while ahead is not None and not until.passed:
            await self._wait_for(ahead, until, gone)
            ahead = await self._journal.acquire_locks(claim)
        return ahead is None

    async def _wait_for(self, ahead: Ahead, until: Deadline, gone: dict[Claim, float]) -> None:
        ended = self._under_way(ahead.claim.key)
        if ended is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), until.left)
            return
        if ahead.standing is not Standing.ELSEWHERE and not self._is_in_retry(ahead):
            since = gone.setdefault(ahead.claim, monotonic())
            if monotonic() - since > self._delays[0] + GRACE:
                log.warning("turn.forfeited", key=ahead.claim.key)
                await self._journal.expire_lock(ahead.claim)
                return
        await asyncio.sleep(min(LOOK_EVERY, until.left))

    def _is_in_retry(self, ahead: Ahead) -> bool:
        """Whether its message has not come back yet from the retry queue that it was put into."""
        if ahead.put_off_at is None or ahead.attempts == 0:
            return False
        delay = self._delays[min(ahead.attempts, len(self._delays)) - 1]
        return ahead.put_off_at <= time.time() < ahead.put_off_at + delay

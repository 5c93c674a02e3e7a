"""Putting parked messages in again, or throwing them away: those that were pinned, however often it
is cut off.

The order is what keeps a message from being lost or done twice: the word in the journal, the
message published and confirmed, that in the journal, and only then the ack in `ecs.dead`. Cut off
in between, the message is there twice, and the worker's own idempotency makes of two one.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from uuid import uuid4

from workers.amqp.broker import Where
from workers.amqp.consumer import Delivery
from workers.amqp.names import Names
from workers.amqp.publication import Published
from workers.amqp.publisher import Publisher
from workers.dead_letters.batch import real_user
from workers.dead_letters.dead_letter import identity_of, publication_again
from workers.dead_letters.reader import Reader
from workers.identity import hash_of, new_resume_token
from workers.journal import Action, Journal, Replay, ReplayState

#: Messages of one group: one write in the journal before they are published, one after.
GROUP = 500
#: Groups under way at once.
GROUPS = 4
#: Seconds for which messages are held; the broker gives up on slow consumers after thirty minutes.
HOLD = 600.0
#: Seconds that what is under way may take once it is to stop.
STOPPING = 20.0
_DONE = frozenset({ReplayState.SENT, ReplayState.DISCARDED})


@dataclass(slots=True)
class Member:
    """A pinned message, and the delivery by which it is held."""

    replay: Replay
    state: ReplayState
    delivery: Delivery | None = None
    #: Whether it has come in this round.
    came: bool = False
    under_way: bool = False
    #: Acked: it is in `ecs.dead` no more.
    settled: bool = False
    #: The broker did not take it: there is no queue for it.
    refused: bool = False

    @property
    def is_done(self) -> bool:
        """Whether nothing is to be done any more but the ack."""
        return self.state in _DONE

    @property
    def is_held(self) -> bool:
        """Whether it is in our hand."""
        return self.delivery is not None and not self.delivery.lost


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many of a set were done, were in `ecs.dead` no more, were not taken by the broker, and
    are left.
    """

    done: int
    gone: int
    refused: int
    left: int


class Pace:
    """So many messages a second at most; None: as fast as it goes."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._free_at = monotonic()
        self.group = GROUP if rate is None else max(1, min(GROUP, int(rate / 4)))

    async def permit(self, number: int, stopping: asyncio.Event) -> bool:
        """Wait until so many may go; False where it is to stop meanwhile."""
        if self._rate is None:
            return not stopping.is_set()
        now = monotonic()
        wait, self._free_at = self._free_at - now, max(self._free_at, now) + number / self._rate
        if wait > 0:
            try:
                await asyncio.wait_for(stopping.wait(), wait)
            except TimeoutError:
                return True
        return not stopping.is_set()


class Run:
    """Works through the members of one set until they are done, it is told to stop, or nothing more
    can be done.
    """

    def __init__(
        self,
        where: Where,
        names: Names,
        journal: Journal,
        members: Sequence[Replay],
        *,
        operator: str,
        rate: float | None,
        stopping: asyncio.Event,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._where = where
        self._names = names
        self._journal = journal
        self._operator, self._real_user = operator, real_user()
        self._members = [Member(one, one.state) for one in members]
        self._by_identity: dict[str, list[Member]] = {}
        for member in self._members:
            self._by_identity.setdefault(member.replay.identity, []).append(member)
        self._ready: deque[Member] = deque()
        self._pace = Pace(rate)
        self._stopping = stopping
        self._on_progress = on_progress
        self._publisher = Publisher(where)
        self._groups: set[asyncio.Task[None]] = set()
        self._trouble: BaseException | None = None

    async def work(self) -> None:
        """Do it. `Unreachable`, `NotDeclared`, `JournalError`; what was done stays done."""
        self._publisher.open()
        try:
            while self._left() and not self._stopping.is_set() and await self._round():
                pass
        finally:
            await self._publisher.close()
        if self._trouble is not None:
            raise self._trouble

    def outcome(self) -> Outcome:
        """How it stands."""
        states = [one.state for one in self._members]
        done, gone = sum(one.is_done for one in self._members), states.count(ReplayState.GONE)
        refused = sum(one.refused for one in self._members)
        return Outcome(done, gone, refused, len(states) - done - gone - refused)

    def _left(self) -> list[Member]:
        return [one for one in self._members if not one.settled and not one.refused]

    async def _round(self) -> bool:
        """Take everything in hand once, for a limited time; whether another round may do more."""
        self._ready.clear()
        for one in self._members:
            one.came = False
        reader = Reader(self._where, self._names, self._delivered)
        await reader.open()
        try:
            complete = await self._feed(reader, monotonic() + HOLD)
        finally:
            await self._finish_groups()
            await reader.close(settled=self._is_settled)
        if not complete:
            return True
        missing = [one for one in self._left() if not one.came]
        if not reader.shared and missing:
            await self._end_missing(missing)
        return False

    async def _feed(self, reader: Reader, limit: float) -> bool:
        """Send what comes until all has come and gone; False where it was cut off before."""
        while True:
            complete = reader.is_complete()
            if self._stopping.is_set() or monotonic() > limit:
                return False
            if not self._ready:
                if complete and not self._groups:
                    return True
                await reader.news()
            elif len(self._groups) >= GROUPS:
                await asyncio.wait(self._groups, return_when=asyncio.FIRST_COMPLETED)
            elif len(self._ready) >= self._pace.group or complete or self._groups:
                await self._begin_group()
            else:
                await reader.news()

    async def _begin_group(self) -> None:
        group = [self._ready.popleft() for _ in range(min(self._pace.group, len(self._ready)))]
        if not await self._pace.permit(len(group), self._stopping):
            return
        group = [one for one in group if one.is_held]
        if not group:
            return
        for one in group:
            one.under_way = True
        task = asyncio.create_task(self._carry_out(group))
        self._groups.add(task)
        task.add_done_callback(self._group_ended)

    def _group_ended(self, task: "asyncio.Task[None]") -> None:
        self._groups.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._trouble = self._trouble or error
            self._stopping.set()

    async def _finish_groups(self) -> None:
        """What is under way is ended, not cut off, unless broker or journal do not answer."""
        if self._groups:
            await asyncio.wait(self._groups, timeout=STOPPING)
        for task in self._groups:
            task.cancel()
        await asyncio.gather(*self._groups, return_exceptions=True)

    def _delivered(self, delivery: Delivery) -> None:
        """Each delivery belongs to one member: of several that are alike each has its own."""
        for member in self._by_identity.get(identity_of(delivery.envelope), ()):
            if not member.settled and not member.is_held:
                member.delivery, member.came = delivery, True
                if member.is_done:
                    self._settle(member)
                elif not member.under_way and not member.refused:
                    self._ready.append(member)
                return

    def _is_settled(self, delivery: Delivery) -> bool:
        return any(
            one.delivery is delivery and one.settled
            for one in self._by_identity.get(identity_of(delivery.envelope), ())
        )

    async def _carry_out(self, group: list[Member]) -> None:
        carry_out: Callable[[list[Member]], Awaitable[None]] = (
            self._discard if group[0].replay.action == Action.DISCARD else self._send
        )
        try:
            await carry_out(group)
        finally:
            for one in group:
                one.under_way = False

    async def _discard(self, group: list[Member]) -> None:
        await self._end(group, ReplayState.DISCARDED)

    async def _send(self, group: list[Member]) -> None:
        await self._put_in_again([one for one in group if one.state is ReplayState.ISSUED])
        words = [new_resume_token() for _ in group]
        await self._journal.issue_tokens(
            [(one.replay.id, hash_of(word)) for one, word in zip(group, words, strict=True)]
        )
        published = [self._publish(one, word) for one, word in zip(group, words, strict=True)]
        outcomes = await asyncio.gather(*published, return_exceptions=True)
        for one, outcome in zip(group, outcomes, strict=True):
            one.state = ReplayState.ISSUED
            one.refused = outcome is not Published.CONFIRMED
        await self._end([one for one in group if not one.refused], ReplayState.SENT)

    def _publish(self, member: Member, word: str) -> "asyncio.Future[Published]":
        assert member.delivery is not None
        return self._publisher.publish(
            publication_again(member.delivery.envelope, word, member.replay.batch)
        )

    async def _end_missing(self, missing: list[Member]) -> None:
        """What did not come is there no more: acked before, or taken by somebody else."""
        await self._note([one for one in missing if not one.is_done], ReplayState.GONE)
        for one in missing:
            one.settled = True

    async def _put_in_again(self, group: list[Member]) -> None:
        """What may have been published before has a word that stays good; it gets a row and a word
        of its own.
        """
        if not group:
            return
        former = [one.replay.id for one in group]
        for one in group:
            one.replay = replace(
                one.replay,
                id=str(uuid4()),
                operator=self._operator,
                real_user=self._real_user,
                state=ReplayState.PINNED,
            )
        await self._journal.repeat_replays(former, [one.replay for one in group])

    async def _end(self, group: list[Member], state: ReplayState) -> None:
        """Written down before the ack: what is found done in the next run is acked, not done again."""
        if not group:
            return
        await self._note(group, state)
        for one in group:
            self._settle(one)
        self._on_progress(len(group))

    async def _note(self, group: list[Member], state: ReplayState) -> None:
        if not group:
            return
        await self._journal.end_replays([one.replay.id for one in group], state)
        for one in group:
            one.state = state

    def _settle(self, member: Member) -> None:
        if member.delivery is not None and not member.delivery.lost:
            member.delivery.settle()
            member.settled = True

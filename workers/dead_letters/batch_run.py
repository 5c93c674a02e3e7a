"""Replaying or discarding the messages of a batch, however often that is interrupted.

ORDER keeps a message from being lost or executed twice: the resume token in the journal, the
message published and confirmed, that in the journal, and only then the ack in `ecs.dead`. After an
interruption in between, the message exists twice, and the worker's idempotency makes one request of
both.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from time import monotonic
from uuid import uuid4

from messages.record import record
from workers.amqp.consumer import Delivery
from workers.amqp.envelope import Published
from workers.amqp.publisher import Publisher
from workers.dead_letters.archive import archived_letter
from workers.dead_letters.dead_letter import DeadLetter, identity_of, replay_publication
from workers.dead_letters.reader import Reader
from workers.identity import hash_of, new_resume_token
from workers.journal import Action, Actor, Journal, Replay, ReplayState
from workers.settings import Settings

#: Messages of one group: one write in the journal before they are published, one after.
GROUP = 500
#: Bytes of the bodies of one group that is archived: they are one write in the journal.
GROUP_BYTES = 8 * 1024 * 1024
#: Groups under way at once.
GROUPS = 4
#: Seconds for which messages are held; the broker gives up on slow consumers after thirty minutes.
HOLD = 600.0
#: Seconds that groups under way may take once the run is to stop.
STOPPING = 20.0
_DONE = frozenset({ReplayState.SENT, ReplayState.DISCARDED})


class _Phase(Enum):
    WAITING = "waiting"
    UNDER_WAY = "under way"
    #: Acked: it is in `ecs.dead` no more.
    SETTLED = "settled"
    #: The broker did not take it: there is no queue for it.
    REFUSED = "refused"


@dataclass(slots=True)
class _Member:
    """A message of the batch, and the delivery by which it is held.

    `replay` is its row as it was read or written first; `state` is the state that it has now.
    """

    replay: Replay
    state: ReplayState
    delivery: Delivery | None = None
    #: True once it was delivered in this round.
    came: bool = False
    phase: _Phase = _Phase.WAITING

    @property
    def is_done(self) -> bool:
        """True if only the ack may be left to do."""
        return self.state in _DONE

    @property
    def is_held(self) -> bool:
        return self.delivery is not None and not self.delivery.lost


@record
class BatchResult:
    """The number of messages that are done, were in `ecs.dead` no more, were not taken by the
    broker, and are left.
    """

    done: int
    gone: int
    refused: int
    left: int


@record
class RunTerms:
    """Terms of a batch's run: what is done, by whom, with how many messages a second at most."""

    action: Action
    operator: Actor
    rate: float | None = None
    why: str | None = None


class RateLimit:
    """Messages a second at most; None: no limit."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._free_at = monotonic()
        self.group = GROUP if rate is None else max(1, min(GROUP, int(rate / 4)))

    async def permit(self, number: int, stopping: asyncio.Event) -> bool:
        """Wait until so many may be sent; return False where `stopping` is set before."""
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


class BatchRun:
    """Carries out a batch until all is done, it is stopped, or nothing more can be done.

    `on_progress` gets the number of messages that were just done.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        replays: Sequence[Replay],
        terms: RunTerms,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._terms = terms
        self._actor = terms.operator
        self._on_progress = on_progress
        self._members = [_Member(one, one.state) for one in replays]
        self._by_identity: dict[str, list[_Member]] = {}
        for member in self._members:
            self._by_identity.setdefault(member.replay.identity, []).append(member)
        self._ready: deque[_Member] = deque()
        self._limit = RateLimit(terms.rate)
        self._stopping = asyncio.Event()
        self._publisher = Publisher(settings.broker)
        self._groups: set[asyncio.Task[None]] = set()
        self._acked: set[Delivery] = set()
        self._trouble: BaseException | None = None

    def stop(self) -> None:
        """Begin nothing more; what is under way is finished."""
        self._stopping.set()

    async def work(self, reader: Reader | None = None) -> None:
        """Carry the batch out. Raises `Unreachable`, `NotDeclared`, `JournalError`; what was done
        stays done.

        `reader` holds the messages where they were chosen just before; it is closed.
        """
        self._publisher.open()
        try:
            while self._left() and not self._stopping.is_set() and await self._round(reader):
                reader = None
        finally:
            await self._publisher.close()
        if self._trouble is not None:
            raise self._trouble

    @property
    def result(self) -> BatchResult:
        """The numbers so far."""
        done = sum(one.is_done for one in self._members)
        gone = sum(one.state is ReplayState.GONE for one in self._members)
        refused = sum(one.phase is _Phase.REFUSED for one in self._members)
        return BatchResult(done, gone, refused, len(self._members) - done - gone - refused)

    def _left(self) -> list[_Member]:
        ended = (_Phase.SETTLED, _Phase.REFUSED)
        return [one for one in self._members if one.phase not in ended]

    async def _round(self, held: Reader | None) -> bool:
        """Read the queue once, for a limited time; return True if another round may do more."""
        self._ready.clear()
        for one in self._members:
            one.came = False
        reader = held or Reader(self._settings.broker, self._settings.names, self._delivered)
        if held is None:
            await reader.open()
        try:
            if held is not None:
                held.hand_over(self._delivered)
            complete = await self._work_off(reader, monotonic() + HOLD)
        finally:
            # Groups under way are finished, not cut off, unless broker or journal do not answer.
            if self._groups:
                await asyncio.wait(self._groups, timeout=STOPPING)
            for task in self._groups:
                task.cancel()
            await asyncio.gather(*self._groups, return_exceptions=True)
            await reader.close(self._acked.__contains__)
        if not complete:
            return True
        missing = [one for one in self._left() if not one.came]
        if not reader.shared and not reader.beyond and missing:
            # They are there no more: acked in an earlier run, or taken by somebody else.
            await self._record([one for one in missing if not one.is_done], ReplayState.GONE)
            for one in missing:
                one.phase = _Phase.SETTLED
        return False

    async def _work_off(self, reader: Reader, limit: float) -> bool:
        """Begin groups until all has been delivered and done; return False if cut off before."""
        while True:
            complete = reader.is_complete()
            if self._stopping.is_set() or monotonic() > limit:
                return False
            if not self._ready:
                if complete and not self._groups:
                    return True
                await reader.wait_for_delivery()
            elif len(self._groups) >= GROUPS:
                await asyncio.wait(self._groups, return_when=asyncio.FIRST_COMPLETED)
            elif len(self._ready) >= self._limit.group or complete or self._groups:
                await self._begin_group()
            else:
                await reader.wait_for_delivery()

    async def _begin_group(self) -> None:
        group: list[_Member] = []
        size = 0
        while self._ready and len(group) < self._limit.group and size < GROUP_BYTES:
            group.append(member := self._ready.popleft())
            if self._terms.action is Action.DISCARD and member.delivery is not None:
                size += len(member.delivery.envelope.body)
        if not await self._limit.permit(len(group), self._stopping):
            return
        group = [one for one in group if one.is_held]
        if not group:
            return
        for one in group:
            one.phase = _Phase.UNDER_WAY
        task = asyncio.create_task(self._carry_out(group))
        self._groups.add(task)
        task.add_done_callback(self._group_ended)

    def _group_ended(self, task: "asyncio.Task[None]") -> None:
        self._groups.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._trouble = self._trouble or error
            self._stopping.set()

    def _delivered(self, delivery: Delivery) -> None:
        """Give a delivery to its member: of several that are equal each has its own."""
        for member in self._by_identity.get(identity_of(delivery.envelope), ()):
            if member.phase is not _Phase.SETTLED and not member.is_held:
                member.delivery, member.came = delivery, True
                if member.is_done:
                    self._settle(member)
                elif member.phase is _Phase.WAITING:
                    self._ready.append(member)
                return

    async def _carry_out(self, group: list[_Member]) -> None:
        try:
            if self._terms.action is Action.REPLAY:
                await self._replay(group)
            else:
                await self._end(group, ReplayState.DISCARDED)
        finally:
            for one in group:
                if one.phase is _Phase.UNDER_WAY:
                    one.phase = _Phase.WAITING

    async def _replay(self, group: list[_Member]) -> None:
        await self._repeat([one for one in group if one.state is ReplayState.ISSUED])
        tokens = [new_resume_token() for _ in group]
        await self._journal.issue_tokens(
            [(one.replay.id, hash_of(token)) for one, token in zip(group, tokens, strict=True)],
            self._actor,
        )
        published = []
        for one, token in zip(group, tokens, strict=True):
            assert one.delivery is not None
            publication = replay_publication(
                one.delivery.envelope, token, one.replay.batch, one.replay.id
            )
            published.append(self._publisher.publish(publication))
        outcomes = await asyncio.gather(*published, return_exceptions=True)
        for one, outcome in zip(group, outcomes, strict=True):
            one.state = ReplayState.ISSUED
            if outcome is not Published.CONFIRMED:
                one.phase = _Phase.REFUSED
        confirmed = [one for one in group if one.phase is not _Phase.REFUSED]
        await self._end(confirmed, ReplayState.SENT)

    async def _repeat(self, group: list[_Member]) -> None:
        """Publish again what may have been published before: its token stays valid; it gets a row
        and a token of its own.
        """
        if not group:
            return
        former = [one.replay.id for one in group]
        for one in group:
            one.replay = replace(
                one.replay,
                id=str(uuid4()),
                done_by=None,
                done_user=None,
                state=ReplayState.PINNED,
            )
            one.state = ReplayState.PINNED
        await self._journal.repeat_replays(former, [one.replay for one in group])

    async def _end(self, group: list[_Member], state: ReplayState) -> None:
        """Record the end before the ack: the next run only acks what it finds done."""
        if not group:
            return
        await self._record(group, state)
        for one in group:
            self._settle(one)
        self._on_progress(len(group))

    async def _record(self, group: list[_Member], state: ReplayState) -> None:
        if not group:
            return
        archived = []
        if state is ReplayState.DISCARDED:
            archived = [
                archived_letter(
                    DeadLetter.of(one.delivery.envelope),
                    self._terms.operator,
                    kind="discarded",
                    archive_id=one.replay.id,
                    batch=one.replay.batch,
                    why=self._terms.why,
                )
                for one in group
                if one.delivery is not None
            ]
        await self._journal.end_replays(
            [one.replay.id for one in group],
            state,
            self._actor,
            self._settings.names.namespace,
            archived,
        )
        for one in group:
            one.state = state

    def _settle(self, member: _Member) -> None:
        if member.delivery is not None and not member.delivery.lost:
            member.delivery.settle()
            member.phase = _Phase.SETTLED
            self._acked.add(member.delivery)

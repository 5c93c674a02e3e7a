"""Looks at messages that wait in a queue, without taking any out of it.

What was looked at is given back, to where it was. The broker counts that as a failed delivery, and
gives up on a message after some (RabbitMQ 4: 20, unless a policy says otherwise): an order would be
answered as failed. So a message is looked at a few times at most, and looks are noted in the
journal, for all operators together.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from time import monotonic

from messages.record import record
from messages.wire import MAX_BODY
from workers.amqp.broker import Where
from workers.amqp.consumer import Consumer, Consuming, Delivery
from workers.amqp.envelope import Envelope
from workers.amqp.names import Names
from workers.amqp.queues import QueueDepth
from workers.amqp.renewal import times_returned
from workers.dead_letters.reader import Unreachable
from workers.journal import JournalError, Look, Looks

#: Times that one message may be given back by looks.
MOST_RETURNED = 5
#: Seconds until a head is looked at again although nobody seems to have consumed the queue; four
#: times as long after each look.
AGAIN_AFTER = 60.0
#: Messages that are looked at in a search of one queue.
MOST_SEARCHED = 10_000
#: Seconds without a message after which no more is expected, and for a connection.
_QUIET, _NO_CONNECTION = 1.0, 15.0
_TICK = 0.02


class NotLooked(Exception):
    """A queue was not looked into; the text is a line that says why."""


@record
class Head:
    """The message at the head of a queue that nobody consumes, published at this time."""

    published_at: float | None
    looked_at: float


class Peeker:
    """Looks into queues. `looks` is the journal's record of all looks; its calls block, and are
    made in threads.
    """

    def __init__(self, where: Where, names: Names, looks: Looks) -> None:
        self._where = where
        self._names = names
        self._looks = looks

    async def head(self, depth: QueueDepth, consumed_at: float | None) -> Head:
        """Return the head of a queue, as it was at the last look where it must still be the same.

        `consumed_at`: when a worker is known to have consumed the queue last. Raises `NotLooked`.
        """
        last = await self._last(depth.name)
        ready = depth.ready or 0
        if last is not None and last.looked_at and not _has_moved(last, ready, consumed_at):
            is_early = time.time() - last.looked_at < AGAIN_AFTER * 4 ** (last.returned - 1)
            if is_early or last.returned >= MOST_RETURNED:
                return Head(last.head_at, last.looked_at)
        look, _ = await self._search(depth, consumed_at, lambda *_: None, most=1)
        return Head(look.head_at, look.looked_at)

    async def search(
        self,
        depth: QueueDepth,
        consumed_at: float | None,
        on_message: Callable[[int, Envelope], object],
    ) -> int:
        """Call `on_message` with position (from 1) and envelope of each message that waits, up to
        `MOST_SEARCHED` from the head, give all back, and return how many they were. Raises
        `NotLooked`.
        """
        return (await self._search(depth, consumed_at, on_message, MOST_SEARCHED))[1]

    async def _search(
        self,
        depth: QueueDepth,
        consumed_at: float | None,
        on_message: Callable[[int, Envelope], object],
        most: int,
    ) -> tuple[Look, int]:
        ready = depth.ready or 0
        last = await self._last(depth.name)
        moved = last is None or _has_moved(last, ready, consumed_at)
        returned = 0 if last is None or moved else last.returned
        if returned >= MOST_RETURNED:
            raise NotLooked(
                f"{depth.name} was looked into {returned} times since anything left it: each look"
                " counts as a failed delivery, after some of which the broker gives up"
            )
        head_at = last.head_at if last is not None and not moved else None
        look = Look(depth.name, time.time(), ready, returned + 1, head_at)
        await self._note(look)
        seen: list[tuple[int, float | None]] = []

        counted = 0

        def count(envelope: Envelope) -> None:
            nonlocal counted
            counted += 1
            if counted == 1:
                seen.append((times_returned(envelope), envelope.timestamp))
            on_message(counted, envelope)

        try:
            await _look(self._where, self._names, depth.name, min(ready, most), count)
        except Unreachable as error:
            raise NotLooked(f"{depth.name} could not be looked into: {error}") from error
        if seen:
            times, published = seen[0]
            look = Look(depth.name, look.looked_at, ready, max(times + 1, 1), published)
            await self._note(look)
        return look, counted

    async def _last(self, queue: str) -> Look | None:
        try:
            return await asyncio.to_thread(self._looks.last, queue)
        except JournalError as error:
            raise NotLooked(_not_counted(queue, error)) from error

    async def _note(self, look: Look) -> None:
        try:
            await asyncio.to_thread(self._looks.note, look)
        except JournalError as error:
            raise NotLooked(_not_counted(look.queue, error)) from error


def _not_counted(queue: str, error: JournalError) -> str:
    return f"{queue} is not looked into, for looks are counted in the journal: {error}"


def _has_moved(last: Look, ready: int, consumed_at: float | None) -> bool:
    """Tell whether something has left the queue since the last look."""
    return ready < last.ready or (consumed_at is not None and consumed_at > last.looked_at)


async def _look(
    where: Where, names: Names, queue: str, most: int, on_message: Callable[[Envelope], object]
) -> None:
    """Hold up to `most` messages of a queue for a moment. Raises `Unreachable`."""
    if not most:
        return
    came = asyncio.Event()
    count, quiet_since = 0, monotonic()

    def delivered(delivery: Delivery) -> None:
        nonlocal count, quiet_since
        count, quiet_since = count + 1, monotonic()
        on_message(delivery.envelope)
        came.set()

    consuming = Consuming(names, (queue,), most, MAX_BODY, name="ecs-worker show")
    consumer = Consumer(where, consuming, delivered)
    consumer.open()
    begun = monotonic()
    try:
        while count < most:
            now = monotonic()
            if not consumer.consuming:
                quiet_since = now
                if now - begun > _NO_CONNECTION:
                    raise Unreachable("the broker did not let it be consumed")
            elif now - quiet_since > _QUIET:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(came.wait(), _TICK)
            came.clear()
    finally:
        # Everything goes back at once, in its order, as the channel is closed.
        consumer.pause()
        await consumer.close()

"""Reading `ecs.dead` without taking anything out of it.

All messages are held unacked and given back by closing the channel: the broker puts them back where
they were, all at once. That counts as a failed delivery of each, and a broker with a delivery limit
(RabbitMQ 4 has one of 20, unless a policy says otherwise) drops what was given back too often. So a
message that has been given back a few times is renewed first: published to `ecs.dead` once more,
confirmed, and only then acked.
"""

import asyncio
import contextlib
from collections.abc import Callable
from time import monotonic

import structlog

from workers.amqp.broker import Where, explain
from workers.amqp.consumer import Consumer, Consuming, Delivery
from workers.amqp.envelope import Published
from workers.amqp.names import Names
from workers.amqp.publisher import Publisher
from workers.amqp.renewal import times_returned
from workers.amqp.topology import NotDeclared, depth
from workers.dead_letters.dead_letter import renewed_publication

log = structlog.get_logger()

#: Messages that are held at once; AMQP's prefetch count goes no further.
MOST = 65535
#: Times that a message is given back before it is renewed. Lower than any sensible delivery limit.
RENEW_AFTER = 2
#: Seconds for another reader to end: what it holds cannot be seen.
PATIENCE = 10.0
#: Seconds without a message after which the broker is asked whether more is to come, and without a
#: connection after which reading fails.
QUIET, NO_CONNECTION = 3.0, 30.0
#: Seconds for which messages are waited for that the broker has: a queue of 100,000 that was just
#: given back is delivered after a quarter of a minute.
NO_DELIVERY = 60.0
#: Seconds for renewing.
RENEWING = 60.0
_TICK = 0.02


class Unreachable(Exception):
    """The broker cannot be reached; the text is one line."""


class Reader:
    """Holds the messages of `ecs.dead` from `open` to `close`. `on_delivery` gets each, and may
    settle it.

    A message whose channel is lost is delivered again. All of it happens in one event loop.
    """

    def __init__(self, where: Where, names: Names, on_delivery: Callable[[Delivery], None]) -> None:
        self._where = where
        self._queue = names.dead_queue
        self._on_delivery = on_delivery
        self._consumer = Consumer(
            where,
            Consuming(names, (self._queue,), MOST, name="ecs-worker dead"),
            self._delivered,
        )
        self._held: list[Delivery] = []
        self._delivery_came = asyncio.Event()
        self._quiet_since = self._up_at = monotonic()
        #: Messages in the queue when it was opened.
        self.waiting = 0
        #: True if another reader held messages then, which cannot be seen.
        self.shared = False
        #: Messages in the queue that are too many to be held at once.
        self.beyond = 0
        self._is_over = False
        self._look_at = 0.0

    async def open(self) -> None:
        """Begin to take messages once no other reader holds any. Raises `Unreachable`,
        `NotDeclared`.
        """
        limit = monotonic() + PATIENCE
        while True:
            self.waiting, consumers = await asyncio.to_thread(_depth, self._where, self._queue)
            self.shared = bool(consumers)
            if not consumers or monotonic() > limit:
                break
            await asyncio.sleep(0.1)
        self._quiet_since = self._up_at = monotonic()
        self.beyond = max(0, self.waiting - MOST)
        if self.waiting:
            self._consumer.open()

    @property
    def seen(self) -> int:
        """The number of messages that have been delivered."""
        return len(self._held)

    def hand_over(self, on_delivery: Callable[[Delivery], None]) -> None:
        """Give everything that is held, and what comes from now on, to another function."""
        self._on_delivery = on_delivery
        for delivery in self._held:
            if not delivery.lost:
                on_delivery(delivery)

    def is_complete(self) -> bool:
        """Tell whether all that waited has been delivered, or nothing more comes. Raises
        `Unreachable` after too long without a connection.
        """
        if not self.waiting:
            return True
        now = monotonic()
        if self._consumer.connection.is_up:
            self._up_at = now
        elif now - self._up_at > NO_CONNECTION:
            raise Unreachable("the connection to the broker was lost")
        if self._held and self._held[0].lost:
            self._held = [one for one in self._held if not one.lost]
        return len(self._held) >= min(self.waiting, MOST) or self._is_over

    async def wait(self) -> None:
        """Wait until reading is complete."""
        while not self.is_complete():
            await self.wait_for_delivery()

    async def wait_for_delivery(self) -> None:
        """Wait until a message has come, or for a moment."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._delivery_came.wait(), _TICK)
        self._delivery_came.clear()
        now = monotonic()
        if self._consumer.consuming and now - self._quiet_since > QUIET and now > self._look_at:
            self._look_at = now + 1.0
            await self._look()

    async def _look(self) -> None:
        """Find out whether more is to come, as nothing has come for a while: what is silent may be
        a busy broker. Raises `Unreachable`.
        """
        ready, consumers = await asyncio.to_thread(_depth, self._where, self._queue)
        silent = monotonic() - self._quiet_since
        if silent <= QUIET:
            return
        self.shared = self.shared or consumers > 1
        if self.shared:
            self._is_over = True
        elif silent > NO_DELIVERY:
            if ready and len(self._held) < MOST:
                raise Unreachable(
                    f"the broker has delivered {len(self._held)} of {self.waiting} messages of"
                    f" {self._queue} and no more for {silent:.0f} s: it is overloaded; try again"
                )
            self._is_over = True  # they were deleted, or have expired

    async def close(self, is_settled: Callable[[Delivery], bool] = lambda _: False) -> None:
        """Give back everything that is not settled; renew what was given back too often. Once is
        enough.
        """
        if not self.waiting:
            return
        self.waiting = 0
        self._consumer.pause()
        worn = [
            one
            for one in self._held
            if not one.lost and times_returned(one.envelope) >= RENEW_AFTER and not is_settled(one)
        ]
        if worn:
            await self._renew(worn)
        await self._consumer.close()

    def _delivered(self, delivery: Delivery) -> None:
        self._quiet_since = monotonic()
        self._delivery_came.set()
        self._held.append(delivery)
        self._on_delivery(delivery)

    async def _renew(self, worn: list[Delivery]) -> None:
        """Publish messages to `ecs.dead` anew and ack the old ones. A crash in between leaves one
        twice; replays of both are the same request.
        """
        publisher = Publisher(self._where)
        publisher.open()
        published = {publisher.publish(renewed_publication(one.envelope)): one for one in worn}
        try:
            done, missing = await asyncio.wait(published, timeout=RENEWING)
            for future in done:
                if future.exception() is None and future.result() is Published.CONFIRMED:
                    published[future].settle()
            log.info("dead_letters.renewed", messages=len(done), left=len(missing))
        finally:
            await publisher.close()


def _depth(where: Where, queue: str) -> tuple[int, int]:
    try:
        return depth(where, queue)
    except NotDeclared:
        raise
    except Exception as error:
        cause = explain(error, where)
        text = f"the broker cannot be reached: {cause.reason}; {cause.advice}"
        raise Unreachable(text) from error

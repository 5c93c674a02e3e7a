"""Reading `ecs.dead` without taking anything out of it.

Everything is taken and held unacked, and given back by closing the channel: the broker puts it back
where it was, all of it at once. That counts as a failed delivery of each, and a broker with a
delivery limit (RabbitMQ 4 has one of 20, unless a policy says otherwise) throws away what was given
back too often. So what has been given back a few times is renewed first: published to `ecs.dead`
once more, confirmed, and only then acked.
"""

import asyncio
import contextlib
from collections.abc import Callable
from time import monotonic

import structlog

from workers.amqp.broker import Where
from workers.amqp.broker_errors import explain
from workers.amqp.consumer import Consumer, Delivery
from workers.amqp.names import Names
from workers.amqp.publication import Published
from workers.amqp.publisher import Publisher
from workers.amqp.topology import NotDeclared, depth
from workers.dead_letters.dead_letter import publication_renewed, times_returned

log = structlog.get_logger()

#: Messages that are held at once; AMQP counts no further.
MOST = 65535
#: Times that a message is given back before it is renewed. Lower than any delivery limit that makes
#: sense.
RENEW_AFTER = 2
#: Seconds for another reader to end: what it holds cannot be seen.
PATIENCE = 10.0
#: Seconds without a message after which no more is expected, and without a connection after which
#: none is.
QUIET, NO_CONNECTION = 3.0, 30.0
#: Seconds for renewing.
RENEWING = 60.0
_TICK = 0.02


class Unreachable(Exception):
    """The broker cannot be had; the text is one line."""


class Reader:
    """Holds what lies in `ecs.dead` from `open` to `close`. `on_delivery` gets each message, and
    may settle it.

    A message that comes by a channel that is lost comes again.
    """

    def __init__(self, where: Where, names: Names, on_delivery: Callable[[Delivery], None]) -> None:
        self._where = where
        self._queue = names.dead_queue
        self._on_delivery = on_delivery
        self._consumer = Consumer(
            where, (self._queue,), MOST, self._delivered, names=names, name="ecs-worker dead"
        )
        self._held: list[Delivery] = []
        self._news = asyncio.Event()
        self._quiet_since = self._up_at = monotonic()
        #: Messages that waited when it was opened.
        self.waiting = 0
        #: Whether somebody else held messages then, which cannot be seen.
        self.shared = False

    async def open(self) -> None:
        """Begin to take messages, once nobody else holds any. `Unreachable`, `NotDeclared`."""
        self.waiting, self.shared = await self._alone()
        self._quiet_since = self._up_at = monotonic()
        if self.waiting:
            self._consumer.open()

    @property
    def seen(self) -> int:
        """Messages that have come."""
        return len(self._held)

    def is_complete(self) -> bool:
        """Whether all that waited has been delivered, or nothing more comes. `Unreachable` without
        a connection.
        """
        if not self.waiting:
            return True
        now = monotonic()
        if self._consumer.link.is_up:
            self._up_at = now
        elif now - self._up_at > NO_CONNECTION:
            raise Unreachable("the connection to the broker was lost")
        if self._held and self._held[0].lost:
            self._held = [one for one in self._held if not one.lost]
        consumes = bool(self._consumer.consuming)
        return len(self._held) >= self.waiting or (consumes and now - self._quiet_since > QUIET)

    async def wait(self) -> None:
        """Until it is complete."""
        while not self.is_complete():
            await self.news()

    async def news(self) -> None:
        """Until a message has come, or for a moment."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), _TICK)
        self._news.clear()

    async def close(self, settled: Callable[[Delivery], bool] = lambda _: False) -> None:
        """Give everything back but what is `settled`; what was given back too often is renewed."""
        if not self.waiting:
            return
        self._consumer.pause()
        worn = [
            one
            for one in self._held
            if not one.lost and times_returned(one.envelope) >= RENEW_AFTER and not settled(one)
        ]
        if worn:
            await self._renew(worn)
        await self._consumer.close()

    def _delivered(self, delivery: Delivery) -> None:
        self._quiet_since = monotonic()
        self._news.set()
        self._held.append(delivery)
        self._on_delivery(delivery)

    async def _alone(self) -> tuple[int, bool]:
        limit = monotonic() + PATIENCE
        while True:
            waiting, consumers = await asyncio.to_thread(_depth, self._where, self._queue)
            if not consumers or monotonic() > limit:
                return waiting, bool(consumers)
            await asyncio.sleep(0.1)

    async def _renew(self, worn: list[Delivery]) -> None:
        """A crash in between leaves a message twice, which are the same when they are put in again."""
        publisher = Publisher(self._where)
        publisher.open()
        published = {publisher.publish(publication_renewed(one.envelope)): one for one in worn}
        try:
            done, missing = await asyncio.wait(published, timeout=RENEWING)
            for future in done:
                if future.exception() is None and future.result() is Published.CONFIRMED:
                    published[future].settle()
            log.info("dead.renewed", messages=len(done), left=len(missing))
        finally:
            await publisher.close()


def _depth(where: Where, queue: str) -> tuple[int, int]:
    try:
        return depth(where, queue)
    except NotDeclared:
        raise
    except Exception as error:
        told = explain(error, where)
        raise Unreachable(f"the broker cannot be reached: {told.reason}; {told.advice}") from error

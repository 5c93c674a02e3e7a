"""Consuming: a channel for each queue, with grouped acks; cancellations by the broker are noticed."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from typing import Any

import structlog
from pika.channel import Channel

from handlers.effects.backoff import delay_after
from messages.record import record
from workers.amqp.broker import Where
from workers.amqp.connection import CoalescingConnection, RecoveringConnection
from workers.amqp.envelope import Envelope
from workers.amqp.frames import DeliveryReader, ack_frame
from workers.amqp.names import Names

log = structlog.get_logger()

#: Seconds before a channel that the broker closed is opened again: at first, and at most.
REOPEN_DELAY, LONGEST_REOPEN_DELAY = 1.0, 10.0


class Delivery:
    """One message, to be settled once: when everything that it asked for is safe."""

    __slots__ = ("_consumed", "_tag", "envelope", "is_begun", "tenant")

    def __init__(self, consumed: "_ConsumedQueue", tag: int, envelope: Envelope) -> None:
        self._consumed = consumed
        self._tag = tag
        self.envelope = envelope
        #: The project of its request, once that is known, and whether that has been begun.
        self.tenant: str | None = None
        self.is_begun = False

    def forget_body(self) -> None:
        """Drop the body; the message comes again with it when it is requeued."""
        self.envelope = replace(self.envelope, body=b"")

    def settle(self) -> None:
        """Ack the message; without effect when its connection is gone: then the message comes again."""
        consumed = self._consumed
        if consumed.window.settled(self._tag) and consumed.channel.is_open:
            asyncio.get_running_loop().call_soon(consumed.flush)

    def requeue(self) -> None:
        """Nack the message back to its queue, for another worker or a later time."""
        consumed = self._consumed
        if consumed.channel.is_open:
            consumed.channel.basic_nack(self._tag, requeue=True)
            consumed.window.requeued(self._tag)

    @property
    def lost(self) -> bool:
        """True where its channel is gone: then the message comes again."""
        return not self._consumed.channel.is_open


@record
class Acks:
    """Acks to send: everything up to the tag `multiple` (0: nothing), and these single tags."""

    multiple: int
    single: tuple[int, ...]


class AckWindow:
    """The settled deliveries of a channel: one `multiple` ack below the oldest that is not settled,
    single acks above it.
    """

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._settled: set[int] = set()
        self._acked: set[int] = set()
        self._fresh: list[int] = []

    def delivered(self, tag: int) -> None:
        """Note a delivery; tags only grow."""
        self._open.append(tag)

    def settled(self, tag: int) -> bool:
        """Note that a delivery is settled; True for the first one since the last `take`."""
        self._settled.add(tag)
        self._fresh.append(tag)
        return len(self._fresh) == 1

    def requeued(self, tag: int) -> None:
        """Note that a delivery was requeued: it is no longer ours to ack."""
        self._settled.add(tag)
        self._acked.add(tag)

    def take(self) -> Acks:
        """Return the acks to send now, each tag just once."""
        multiple = 0
        while self._open and self._open[0] in self._settled:
            tag = self._open.popleft()
            self._settled.discard(tag)
            # One that was acked singly before must not be named again: the broker closes the
            # channel for it.
            if tag in self._acked:
                self._acked.discard(tag)
            else:
                multiple = tag
        single = tuple(sorted(tag for tag in self._fresh if tag in self._settled))
        self._acked.update(single)
        self._fresh = []
        return Acks(multiple, single)


class _ConsumedQueue:
    """A queue that is consumed, with its channel, as long as that is open."""

    def __init__(self, queue: str, channel: Channel) -> None:
        self.queue = queue
        self.channel = channel
        self.tag: str | None = None
        #: True once the broker has agreed to deliver.
        self.delivers = False
        self.window = AckWindow()

    def flush(self) -> None:
        """Ack what is settled, in one write."""
        acks, channel = self.window.take(), self.channel
        if not channel.is_open:
            return
        number = channel.channel_number
        if acks.multiple:
            channel.connection.send(ack_frame(number, acks.multiple, multiple=True))
        for tag in acks.single:
            channel.connection.send(ack_frame(number, tag, multiple=False))


@record
class Consuming:
    """The queues that are consumed, and how: `prefetch` deliveries at once from each."""

    names: Names
    queues: tuple[str, ...]
    prefetch: int
    #: Bytes of the largest body that is kept (`frames.DeliveryReader`); None: any.
    largest: int | None = None
    #: The connection's name in the broker's management.
    name: str = "ecs-worker consume"


class Consumer:
    """The consuming connection. Calls `on_delivery` for each message, on the loop; it must not
    block.

    `on_cancelled` is called when a queue is gone, before it is consumed again; `on_lost` when a
    channel is, and deliveries with it.
    """

    def __init__(
        self,
        where: Where,
        consuming: Consuming,
        on_delivery: Callable[[Delivery], None],
        on_cancelled: Callable[[str], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self._recovering = RecoveringConnection(
            where, consuming.name, self._connected, self._disconnected
        )
        self._largest = consuming.largest
        self._names = consuming.names
        self._queues = consuming.queues
        self._prefetch = consuming.prefetch
        self._on_delivery = on_delivery
        self._on_cancelled = on_cancelled
        self._on_lost = on_lost
        #: Called when the broker has agreed to deliver from a queue.
        self.on_agreed: Callable[[], None] = lambda: None
        self._connection: CoalescingConnection | None = None
        self._channels: dict[str, _ConsumedQueue] = {}
        #: Channels in a row that the broker closed before it delivered from them.
        self._failures: dict[str, int] = {}
        self._wanted = frozenset(self._queues)
        self._numbers = count(1)

    @property
    def connection(self) -> RecoveringConnection:
        """The connection, for health checks."""
        return self._recovering

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that are consumed while nothing is in the way."""
        return self._queues

    @property
    def consuming(self) -> frozenset[str]:
        """The queues that deliver now."""
        return frozenset(
            queue
            for queue, consumed in self._channels.items()
            if consumed.tag is not None and consumed.delivers
        )

    def open(self) -> None:
        """Begin to connect and to consume."""
        self._recovering.open()

    def want(self, queues: Iterable[str]) -> None:
        """Consume these queues and no others from now on; deliveries that came may still be
        settled.
        """
        self._wanted = frozenset(queues)
        for consumed in self._channels.values():
            if consumed.queue in self._wanted:
                self._consume_again(consumed)
            elif consumed.tag is not None:
                self._leave(consumed)

    def pause(self) -> None:
        """Consume nothing."""
        self.want(())

    @property
    def wanted(self) -> frozenset[str]:
        """The queues that are to deliver."""
        return self._wanted

    async def close(self) -> None:
        """Flush what is settled, then close the connection: what is not settled goes back to its
        queue.
        """
        for consumed in self._channels.values():
            consumed.flush()
        await asyncio.sleep(0)  # the grouped write goes out on the next turn
        await self._recovering.close()

    def _connected(self, connection: CoalescingConnection) -> None:
        self._connection = connection
        for queue in self._queues:
            self._open_channel(connection, queue)

    def _disconnected(self) -> None:
        self._connection = None
        self._channels.clear()
        self._lost()

    def _open_channel(self, connection: CoalescingConnection, queue: str) -> None:
        def opened(channel: Channel) -> None:
            consumed = _ConsumedQueue(queue, channel)
            self._channels[queue] = consumed

            def deliver(consumer_tag: str, tag: int, envelope: Envelope) -> None:
                if consumer_tag == consumed.tag:
                    consumed.window.delivered(tag)
                    self._on_delivery(Delivery(consumed, tag, envelope))
                elif channel.is_open:  # it is consumed no longer
                    channel.basic_reject(tag)

            reader = DeliveryReader(self._names, queue, self._largest, deliver)
            connection.read_by(channel, reader.take)
            channel.add_on_close_callback(
                lambda _, error: self._channel_closed(connection, consumed, error)
            )
            channel.add_on_cancel_callback(lambda _: self._cancelled(consumed))
            channel.basic_qos(
                prefetch_count=self._prefetch, callback=lambda _: self._consume_again(consumed)
            )

        connection.channel(on_open_callback=opened)

    def _consume(self, consumed: _ConsumedQueue) -> None:
        def unread(*_: Any) -> None:
            raise RuntimeError("pika has read a delivery, not the DeliveryReader of its channel")

        def agreed(_: Any) -> None:
            consumed.delivers = True
            self._failures.pop(consumed.queue, None)
            self.on_agreed()

        consumed.delivers = False
        tag = f"ecs-worker-{next(self._numbers)}"
        consumed.tag = consumed.channel.basic_consume(
            consumed.queue, unread, consumer_tag=tag, callback=agreed
        )

    def _leave(self, consumed: _ConsumedQueue) -> None:
        """Stop consuming a queue; what is delivered meanwhile is requeued."""
        if consumed.tag is not None and consumed.channel.is_open:
            consumed.channel.basic_cancel(consumed.tag)
        consumed.tag = None

    def _cancelled(self, consumed: _ConsumedQueue) -> None:
        """Consume again later: the broker cancelled, for the queue was deleted or has moved."""
        consumed.tag = None
        log.warning("consumer.cancelled", queue=consumed.queue)
        if self._on_cancelled is not None:
            self._on_cancelled(consumed.queue)
        asyncio.get_running_loop().call_later(REOPEN_DELAY, self._consume_again, consumed)

    def _consume_again(self, consumed: _ConsumedQueue) -> None:
        """Consume a queue, unless it is not wanted, is consumed already, or is gone."""
        is_ours = self._channels.get(consumed.queue) is consumed and consumed.channel.is_open
        if consumed.queue in self._wanted and consumed.tag is None and is_ours:
            self._consume(consumed)

    def _channel_closed(
        self, connection: CoalescingConnection, consumed: _ConsumedQueue, error: Exception
    ) -> None:
        if self._channels.get(consumed.queue) is consumed:
            del self._channels[consumed.queue]
        self._lost()
        if connection.is_open and connection is self._connection:
            log.warning("consumer.channel_closed", queue=consumed.queue, why=str(error)[:300])
            if self._on_cancelled is not None:
                self._on_cancelled(consumed.queue)
            failures = self._failures.get(consumed.queue, 0)
            self._failures[consumed.queue] = failures + 1
            delay = delay_after(failures, REOPEN_DELAY, LONGEST_REOPEN_DELAY)
            asyncio.get_running_loop().call_later(delay, self._reopen, connection, consumed.queue)

    def _lost(self) -> None:
        if self._on_lost is not None:
            # pika marks the channels of a lost connection as closed in this turn of the loop.
            asyncio.get_running_loop().call_soon(self._on_lost)

    def _reopen(self, connection: CoalescingConnection, queue: str) -> None:
        if connection.is_open and connection is self._connection and queue not in self._channels:
            self._open_channel(connection, queue)

"""Consuming: a channel for each queue, acks grouped, cancels noticed."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import structlog
from pika import BasicProperties
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.spec import Basic

from handlers.effects.backoff import delay_after
from workers.amqp.broker import Where
from workers.amqp.connection import Link
from workers.amqp.envelope import Envelope
from workers.amqp.frames import UNREADABLE_HEADERS
from workers.amqp.headers import short_text
from workers.amqp.names import Names
from workers.amqp.oversized import left_out_of

log = structlog.get_logger()

#: Seconds before a channel that the broker closed is opened again: at first, and at most.
REOPEN_DELAY, LONGEST_REOPEN_DELAY = 1.0, 10.0
#: The end of the year 9999, in Unix seconds.
_LAST_SECOND = 253402300799


class Delivery:
    """One message, to be settled once: when everything that it asked for is safe."""

    __slots__ = ("_lane", "_tag", "envelope")

    def __init__(
        self, lane: "_Lane", method: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        self._lane = lane
        self._tag: int = method.delivery_tag
        self.envelope = envelope_of(lane.names, lane.queue, method, properties, body)

    def forget_body(self) -> None:
        """Hold it without its body, which comes again with it when it is given back."""
        self.envelope = replace(self.envelope, body=b"")

    def settle(self) -> None:
        """Ack. Without effect when the connection it came by is gone: then it comes again."""
        self._lane.settle(self._tag)

    def requeue(self) -> None:
        """Give it back to the queue, for another worker or a later time."""
        self._lane.requeue(self._tag)

    @property
    def lost(self) -> bool:
        """Whether the channel that it came by is gone: then it comes again."""
        return not self._lane.channel.is_open


def envelope_of(
    names: Names, queue: str, method: Basic.Deliver, given: BasicProperties, body: bytes
) -> Envelope:
    """The message as the broker delivers it; whatever its publisher put into it can be published
    again.
    """
    readable = given.headers is not UNREADABLE_HEADERS
    return Envelope(
        queue,
        method.exchange,
        _text(method.routing_key),
        method.redelivered,
        body,
        _text(given.message_id),
        _text(given.correlation_id),
        _text(given.reply_to),
        _text(given.type),
        _time(given.timestamp),
        _text(given.content_type),
        _text(given.content_encoding),
        _text(given.user_id),
        given.headers or {},
        _text(given.app_id),
        given.priority,
        _text(given.expiration),
        _odd(given) + (() if readable else ("headers",)),
        names=names,
        left_out=left_out_of(given),
    )


def _text(value: Any) -> Any:
    """A short string, which pika leaves as bytes where it is no UTF-8."""
    return short_text(value) if isinstance(value, bytes) else value


def _odd(given: BasicProperties) -> tuple[str, ...]:
    """The names of those that are no UTF-8. What decides by them (`content_type`) refuses whatever
    is not its word.
    """
    named = (
        ("message_id", given.message_id),
        ("correlation_id", given.correlation_id),
        ("reply_to", given.reply_to),
    )
    return tuple(name for name, value in named if isinstance(value, bytes))


def _time(seconds: int | None) -> int | None:
    """Beyond the year 9999 it is no time that anybody can read: as if it were missing."""
    return seconds if seconds is None or seconds <= _LAST_SECOND else None


@dataclass(frozen=True, slots=True)
class Acks:
    """What to tell the broker: everything up to `multiple` (0: nothing), and these single ones."""

    multiple: int
    single: tuple[int, ...]


class AckWindow:
    """Which deliveries of a channel are settled: one `multiple` below the oldest that is not,
    single ones above it.
    """

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._settled: set[int] = set()
        self._acked: set[int] = set()
        self._fresh: list[int] = []

    def delivered(self, tag: int) -> None:
        """A delivery has come; tags only grow."""
        self._open.append(tag)

    def settled(self, tag: int) -> bool:
        """A delivery is settled; returns whether it is the first since the last `take`."""
        self._settled.add(tag)
        self._fresh.append(tag)
        return len(self._fresh) == 1

    def given_back(self, tag: int) -> None:
        """A delivery was given back to the queue: it is no longer ours to ack."""
        self._settled.add(tag)
        self._acked.add(tag)

    def take(self) -> Acks:
        """The acks to send now, each tag just once."""
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


class _Lane:
    """One queue's channel, as long as it lives."""

    def __init__(self, names: Names, queue: str, channel: Channel) -> None:
        self.names = names
        self.queue = queue
        self.channel = channel
        self.tag: str | None = None
        #: Whether the broker has agreed.
        self.delivers = False
        self._window = AckWindow()

    def delivered(self, tag: int) -> None:
        self._window.delivered(tag)

    def settle(self, tag: int) -> None:
        if self._window.settled(tag) and self.channel.is_open:
            asyncio.get_running_loop().call_soon(self.flush)

    def requeue(self, tag: int) -> None:
        if self.channel.is_open:
            self.channel.basic_nack(tag, requeue=True)
            self._window.given_back(tag)

    def flush(self) -> None:
        acks = self._window.take()
        if not self.channel.is_open:
            return
        if acks.multiple:
            self.channel.basic_ack(acks.multiple, multiple=True)
        for tag in acks.single:
            self.channel.basic_ack(tag)


class Consumer:
    """The consuming connection. Calls `on_delivery` for each message, on the loop; it must not
    block.

    `on_cancelled` is called when a queue is gone, before it is consumed again.
    """

    def __init__(
        self,
        where: Where,
        queues: Sequence[str],
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        on_cancelled: Callable[[str], None] | None = None,
        *,
        names: Names,
        name: str = "ecs-worker consume",
        largest: int | None = None,
    ) -> None:
        """`largest`: bytes of a body that is kept (`oversized`); None: any."""
        self._link = Link(where, name, self._connected, self._disconnected, largest)
        self._names = names
        self._queues = tuple(queues)
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._on_cancelled = on_cancelled
        self._connection: AsyncioConnection | None = None
        self._lanes: dict[str, _Lane] = {}
        #: Channels in a row that the broker closed before it delivered from them.
        self._failures: dict[str, int] = {}
        self._wanted = frozenset(self._queues)
        self._numbers = count(1)

    @property
    def link(self) -> Link:
        """The connection, for whoever asks how it is."""
        return self._link

    @property
    def consuming(self) -> frozenset[str]:
        """The queues that deliver now."""
        return frozenset(
            queue for queue, lane in self._lanes.items() if lane.tag is not None and lane.delivers
        )

    def open(self) -> None:
        """Begin to connect and to consume."""
        self._link.open()

    def want(self, queues: Iterable[str]) -> None:
        """Take messages of these queues and of no others, from now on; those that came may still be
        settled.
        """
        self._wanted = frozenset(queues)
        for lane in self._lanes.values():
            if lane.queue in self._wanted:
                self._consume_again(lane)
            elif lane.tag is not None:
                self._leave(lane)

    def pause(self) -> None:
        """Take no more messages."""
        self.want(())

    @property
    def wanted(self) -> frozenset[str]:
        """The queues that are to deliver."""
        return self._wanted

    async def close(self) -> None:
        """Flush what is settled, then close the connection: what is not settled goes back to its
        queue.
        """
        for lane in self._lanes.values():
            lane.flush()
        await asyncio.sleep(0)  # the grouped write goes out on the next turn
        await self._link.close()

    def _connected(self, connection: AsyncioConnection) -> None:
        self._connection = connection
        for queue in self._queues:
            self._open_lane(connection, queue)

    def _disconnected(self) -> None:
        self._connection = None
        self._lanes.clear()

    def _open_lane(self, connection: AsyncioConnection, queue: str) -> None:
        def opened(channel: Channel) -> None:
            lane = _Lane(self._names, queue, channel)
            self._lanes[queue] = lane
            channel.add_on_close_callback(
                lambda _, error: self._lane_closed(connection, lane, error)
            )
            channel.add_on_cancel_callback(lambda _: self._cancelled(lane))
            channel.basic_qos(
                prefetch_count=self._prefetch, callback=lambda _: self._consume_again(lane)
            )

        connection.channel(on_open_callback=opened)

    def _consume(self, lane: _Lane) -> None:
        def deliver(
            _: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes
        ) -> None:
            lane.delivered(method.delivery_tag)
            self._on_delivery(Delivery(lane, method, properties, body))

        def agreed(_: Any) -> None:
            lane.delivers = True
            self._failures.pop(lane.queue, None)

        lane.delivers = False
        tag = f"ecs-worker-{next(self._numbers)}"
        lane.tag = lane.channel.basic_consume(
            lane.queue, deliver, consumer_tag=tag, callback=agreed
        )

    def _leave(self, lane: _Lane) -> None:
        """What is delivered meanwhile pika gives back to the queue."""
        if lane.tag is not None and lane.channel.is_open:
            lane.channel.basic_cancel(lane.tag)
        lane.tag = None

    def _cancelled(self, lane: _Lane) -> None:
        """The broker cancelled: the queue was deleted, or has moved."""
        lane.tag = None
        log.warning("consumer.cancelled", queue=lane.queue)
        if self._on_cancelled is not None:
            self._on_cancelled(lane.queue)
        asyncio.get_running_loop().call_later(REOPEN_DELAY, self._consume_again, lane)

    def _consume_again(self, lane: _Lane) -> None:
        """Unless it is not wanted, is consumed already, or is gone."""
        is_ours = self._lanes.get(lane.queue) is lane and lane.channel.is_open
        if lane.queue in self._wanted and lane.tag is None and is_ours:
            self._consume(lane)

    def _lane_closed(self, connection: AsyncioConnection, lane: _Lane, error: Exception) -> None:
        if self._lanes.get(lane.queue) is lane:
            del self._lanes[lane.queue]
        if connection.is_open and connection is self._connection:
            log.warning("consumer.channel_closed", queue=lane.queue, why=str(error)[:300])
            if self._on_cancelled is not None:
                self._on_cancelled(lane.queue)
            failures = self._failures.get(lane.queue, 0)
            self._failures[lane.queue] = failures + 1
            delay = delay_after(failures, REOPEN_DELAY, LONGEST_REOPEN_DELAY)
            asyncio.get_running_loop().call_later(delay, self._reopen, connection, lane.queue)

    def _reopen(self, connection: AsyncioConnection, queue: str) -> None:
        if connection.is_open and connection is self._connection and queue not in self._lanes:
            self._open_lane(connection, queue)

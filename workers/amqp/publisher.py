"""Publishing that is finished only when the broker has confirmed it, however often the connection
is lost.

Confirms are pipelined: a future for each delivery tag, a window, a deadline. Whatever is not
understood (a time-out, a return of something unknown) ends the connection, and everything
unconfirmed is published again, in order, on a new one; so a confirm can never be credited to
another message.
"""

import asyncio
import struct
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any

import structlog
from pika import BasicProperties
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.spec import FRAME_METHOD, Basic

from handlers.effects.backoff import delay_after
from workers.amqp.broker import Where
from workers.amqp.connection import CoalescingConnection, RecoveringConnection
from workers.amqp.envelope import Publication, Published
from workers.amqp.frames import publication_frames, read_ack
from workers.amqp.send_queue import FIRST_DELAY, LONGEST_DELAY, Entry, SendQueue

log = structlog.get_logger()

#: Publications under way at once.
WINDOW = 2000
#: Seconds after which a publication that is not confirmed is not trusted any more.
DEADLINE = 30.0
_NOT_FOUND = 404


class Publisher:
    """The publishing connection. `on_missing` is called when an exchange is not there."""

    def __init__(
        self,
        where: Where,
        *,
        window: int = WINDOW,
        deadline: float = DEADLINE,
        on_missing: Callable[[], None] | None = None,
    ) -> None:
        self._recovering = RecoveringConnection(
            where, "ecs-worker publish", self._connected, self._forget_channel
        )
        self._window = window
        self._deadline = deadline
        self._on_missing = on_missing
        self._channel: Channel | None = None
        self._next_tag = 1
        self._numbers = count()
        #: Sent and not confirmed, by delivery tag, in order.
        self._sent: dict[int, Entry] = {}
        self._queue = SendQueue(self._fill)
        #: Channels that the broker closed in a row, and how many are still to be sent one by one
        #: after the last.
        self._failures, self._suspects = 0, 0
        self._watchdog: asyncio.Task[None] | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def connection(self) -> RecoveringConnection:
        """The connection, for health checks."""
        return self._recovering

    @property
    def unconfirmed(self) -> int:
        """Publications that are not confirmed yet."""
        return len(self._sent) + len(self._queue)

    def open(self) -> None:
        """Begin to connect."""
        self._recovering.open()
        self._watchdog = asyncio.get_running_loop().create_task(self._watch())

    def publish(self, publication: Publication) -> "asyncio.Future[Published]":
        """Publish, and return a future that is done when the broker has confirmed or returned the
        message, whatever happens to the connection in between.
        """
        future: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        self._empty.clear()
        self._queue.add(Entry(publication, next(self._numbers), future))
        self._fill()
        return future

    async def drain(self) -> None:
        """Wait until everything is confirmed."""
        await self._empty.wait()

    async def close(self) -> None:
        """Close the connection; what is unconfirmed stays so, its future pending for ever."""
        if self._watchdog is not None:
            self._watchdog.cancel()
        await self._recovering.close()

    # From here on: the channel's life.

    def _connected(self, connection: CoalescingConnection) -> None:
        connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(self._returned)
        channel.connection.read_by(channel, self._read)
        channel.confirm_delivery(self._nacked, callback=lambda _: self._channel_ready(channel))

    def _channel_ready(self, channel: Channel) -> None:
        self._channel = channel
        self._next_tag = 1
        self._fill()

    def _forget_channel(self) -> None:
        """Queue everything unconfirmed again, before what has not been published at all."""
        self._channel = None
        again = list(self._sent.values())
        self._sent.clear()
        for entry in again:
            entry.returned = False
        self._queue.put_back(again)

    def _channel_closed(self, channel: Channel, error: Exception) -> None:
        if channel is not self._channel and self._channel is not None:
            return
        if channel.connection.is_open:
            log.warning("publisher.channel_closed", why=str(error)[:300])
            self._suspect_unconfirmed()
            if getattr(error, "reply_code", None) == _NOT_FOUND and self._on_missing is not None:
                self._on_missing()
            asyncio.get_running_loop().call_later(
                delay_after(self._failures, FIRST_DELAY, LONGEST_DELAY),
                self._reopen,
                channel.connection,
            )
            self._failures += 1
        self._forget_channel()

    def _suspect_unconfirmed(self) -> None:
        """Send the unconfirmed publications one by one: the broker does not say for which it closed
        the channel (no such exchange, no right to it, too large). The one that is alone then does
        not hold up the others.
        """
        self._suspects = max(self._suspects, len(self._sent))
        if len(self._sent) == 1:
            self._queue.refused(self._sent.popitem()[1])
            self._suspects -= 1

    def _reopen(self, connection: CoalescingConnection) -> None:
        if self._channel is None and connection.is_open:
            connection.channel(on_open_callback=self._channel_opened)

    # From here on: one message's way.

    def _fill(self) -> None:
        # A channel that is closing is not forgotten yet, and takes nothing.
        while (channel := self._channel) is not None and channel.is_open:
            window = 1 if self._suspects else self._window
            if len(self._sent) >= window or (entry := self._queue.take()) is None:
                break
            self._send(channel, entry)
        self._settle()

    def _send(self, channel: Channel, entry: Entry) -> None:
        one, connection = entry.publication, channel.connection
        try:
            frames = publication_frames(one, channel.channel_number, connection.params.frame_max)
        except (AMQPError, ValueError, RecursionError, struct.error) as error:
            # It cannot be written as AMQP: nothing was sent, and no tag was used.
            entry.future.set_exception(error)
            self._queue.ended(entry)
            return
        connection.send(frames)
        self._sent[self._next_tag] = entry
        self._next_tag += 1
        entry.sent_at = monotonic()

    def _returned(
        self, _channel: Channel, method: Basic.Return, properties: BasicProperties, _body: bytes
    ) -> None:
        """Note a returned message; it comes before the confirm of the same message. The oldest of
        several that are alike is meant.
        """
        for entry in self._sent.values():
            one = entry.publication
            if not entry.returned and (one.message_id, one.exchange, one.routing_key) == (
                properties.message_id,
                method.exchange,
                method.routing_key,
            ):
                entry.returned = True
                return
        log.error("publisher.return_not_understood", message_id=properties.message_id)
        self._recovering.drop()

    def _read(self, kind: int, buffer: bytes, begin: int, end: int) -> bool:
        """Read a frame of the channel if it is a confirm."""
        if kind != FRAME_METHOD or (ack := read_ack(buffer, begin, end)) is None:
            return False
        self._confirmed(*ack)
        return True

    def _confirmed(self, tag: int, multiple: bool) -> None:
        tags = self._tags(tag, multiple)
        self._failures = 0
        self._suspects = max(0, self._suspects - len(tags))
        for one in tags:
            entry = self._sent.pop(one)
            if not entry.future.done():
                entry.future.set_result(
                    Published.RETURNED if entry.returned else Published.CONFIRMED
                )
            self._queue.taken(entry)
        self._fill()

    def _tags(self, tag: int, multiple: bool) -> list[int]:
        if not multiple:
            return [tag] if tag in self._sent else []
        found = []
        for sent in self._sent:
            if sent > tag:
                break
            found.append(sent)
        return found

    def _nacked(self, frame: Any) -> None:
        """Retry nacked publications later and later: their queue is full or has lost its leader."""
        tags = self._tags(frame.method.delivery_tag, frame.method.multiple)
        log.warning("publisher.nacked", messages=len(tags))
        for tag in tags:
            entry = self._sent.pop(tag)
            entry.returned = False
            self._queue.refused(entry)
        self._fill()

    def _settle(self) -> None:
        if not self._sent and not len(self._queue):
            self._empty.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._deadline / 4))
            self._queue.give_up()
            self._settle()
            oldest = next(iter(self._sent.values()), None)
            # A broker that blocks publishers says so; its silence then is no failure, nor what it
            # has to make up for.
            since = (
                max(oldest.sent_at, self._recovering.unblocked_at) if oldest is not None else 0.0
            )
            if (
                oldest is not None
                and not self._recovering.is_blocked
                and monotonic() - since > self._deadline
            ):
                log.error("publisher.confirm_overdue", unconfirmed=len(self._sent))
                self._recovering.drop()

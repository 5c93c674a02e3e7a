"""Publishing that is finished only when the broker has confirmed it, however often the connection
is lost.

Confirms are pipelined: a future for each delivery tag, a window, a deadline. After a return that is
not understood the connection is dropped, and everything unconfirmed is published again, in order,
on a new one; so a confirm can never be credited to another message.

RabbitMQ does not say which publication it closed a channel for, and stops answering at one whose
queue has no leader. The unconfirmed are then tried each on a channel of its own (`Trials`), and the
routes that are confirmed there go on as before. A broker that stops answering stops reading the
connection as well: replies, results and updates have one each, so that a queue of others holds up
neither a retry nor a dead letter.
"""

import asyncio
import struct
from collections.abc import Callable, Iterator
from itertools import count, takewhile
from time import monotonic
from typing import Any

import structlog
from pika import BasicProperties
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.spec import FRAME_METHOD, Basic

from handlers.effects.backoff import delay_after
from messages.record import record
from workers.amqp.broker import Where
from workers.amqp.connection import CoalescingConnection, RecoveringConnection
from workers.amqp.envelope import Publication, Published
from workers.amqp.frames import publication_frames, read_ack
from workers.amqp.names import Names
from workers.amqp.send_queue import FIRST_DELAY, LONGEST_DELAY, Entry, Route, SendQueue
from workers.amqp.trials import Trials

log = structlog.get_logger()

#: Publications of one connection under way at once.
WINDOW = 2000
#: Seconds without a confirm after which a publication is tried apart from the others. A quorum queue
#: elects a leader in less; with a new connection it is to be over within 15 s.
DEADLINE = 8.0
#: Seconds after which a publication that is not confirmed is shown to the operator.
OVERDUE = 30.0
#: Deadlines after which a trial is made anew: RabbitMQ refuses after 65 seconds.
_PATIENCE_OF_TRIALS = 10
_NOT_FOUND = 404


@record
class Overdue:
    """Publications of one route that are not confirmed for too long; `seconds`: the oldest."""

    route: Route
    messages: int
    seconds: float

    def __str__(self) -> str:
        exchange, key = self.route
        where = f"{exchange} with routing key {key}" if exchange else f"the queue {key}"
        return f"{self.messages} to {where} for {self.seconds:.0f} s"


class Publisher:
    """The publishing connections. `on_missing` is called when an exchange is not there.

    With `names` replies, results and updates have a connection each.
    """

    def __init__(
        self,
        where: Where,
        names: Names | None = None,
        *,
        window: int = WINDOW,
        deadline: float = DEADLINE,
        on_missing: Callable[[], None] | None = None,
    ) -> None:
        self._names = names
        self._deadline = deadline
        self._trials = Trials(where, on_missing, deadline * _PATIENCE_OF_TRIALS)
        self._numbers = count()
        limits = _Limits(window, deadline)
        self._own = Lane(where, "ecs-worker publish", self._trials, limits, on_missing)
        #: By exchange; the default exchange's is for replies.
        self._apart: dict[str, Lane] = {}
        if names is not None:
            kinds = {
                "": "replies",
                names.results_exchange: "results",
                names.status_exchange: "updates",
            }
            self._apart = {
                exchange: Lane(
                    where, f"ecs-worker publish {kind}", self._trials, limits, on_missing
                )
                for exchange, kind in kinds.items()
            }
        self._lanes = (self._own, *self._apart.values())
        self._watchdog: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        """True while all connections are open."""
        return all(lane.connection.is_up for lane in self._lanes)

    @property
    def is_blocked(self) -> bool:
        """True while the broker has stopped taking what is published (an alarm)."""
        return any(lane.connection.is_blocked for lane in self._lanes)

    @property
    def reconnects(self) -> int:
        """Times that a connection was lost or not made."""
        return self._trials.reconnects + sum(lane.connection.reconnects for lane in self._lanes)

    @property
    def unconfirmed(self) -> int:
        """Publications that are not confirmed yet, and that somebody waits for."""
        return sum(lane.unconfirmed for lane in self._lanes)

    @property
    def exchanges(self) -> tuple[str, ...]:
        """The exchanges that are published to; "" is the default exchange."""
        if self._names is None:
            return ()
        return (*self._apart, self._names.retry_exchange, self._names.dead_exchange)

    def overdue(self, seconds: float = OVERDUE) -> list[Overdue]:
        """Return the routes of which something is not confirmed for so long, the oldest first;
        nothing while the broker cannot be reached, or has stopped taking anything.
        """
        now = monotonic()
        found: dict[Route, list[float]] = {}
        for lane in self._lanes:
            if not lane.connection.is_blocked and lane.connection.is_up:
                for entry in lane.entries():
                    if now - entry.since > seconds:
                        found.setdefault(entry.publication.route, []).append(now - entry.since)
        overdue = [Overdue(route, len(ages), max(ages)) for route, ages in found.items()]
        return sorted(overdue, key=lambda one: -one.seconds)

    def open(self) -> None:
        """Begin to connect."""
        for lane in self._lanes:
            lane.connection.open()
        self._watchdog = asyncio.get_running_loop().create_task(self._watch())

    def publish(self, publication: Publication) -> "asyncio.Future[Published]":
        """Publish, and return a future that is done when the broker has confirmed or returned the
        message, whatever happens to the connection in between.
        """
        future: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        lane = self._apart.get(publication.exchange, self._own)
        if (
            not publication.exchange
            and self._names is not None
            and self._names.is_own_queue(publication.routing_key)
        ):
            lane = self._own
        lane.add(Entry(publication, next(self._numbers), future, monotonic()))
        return future

    async def drain(self) -> None:
        """Wait until everything is confirmed."""
        for lane in self._lanes:
            await lane.drain()

    async def close(self) -> None:
        """Close the connections; what is unconfirmed stays so, its future pending for ever."""
        if self._watchdog is not None:
            self._watchdog.cancel()
        await asyncio.gather(
            self._trials.close(), *(lane.connection.close() for lane in self._lanes)
        )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._deadline / 4))
            self._trials.watch()
            for lane in self._lanes:
                lane.watch()


@record
class _Limits:
    """Limits of one connection: publications under way at once, and seconds without a confirm."""

    window: int
    deadline: float


class Lane:
    """One connection with one channel, and what is to be published there."""

    def __init__(
        self,
        where: Where,
        name: str,
        trials: Trials,
        limits: _Limits,
        on_missing: Callable[[], None] | None,
    ) -> None:
        self.connection = RecoveringConnection(where, name, self._connected, self._forget_channel)
        self._name = name
        self._trials = trials
        self._limits = limits
        self._on_missing = on_missing
        self._channel: Channel | None = None
        self._next_tag = 1
        #: Sent and not confirmed, by delivery tag, in order.
        self._sent: dict[int, Entry] = {}
        #: The same of those whose confirm is overdue while later ones are confirmed.
        self._late: dict[int, Entry] = {}
        #: The highest delivery tag that was confirmed, and when one last was, in monotonic time.
        self._highest, self._confirmed_at = 0, 0.0
        self._queue = SendQueue(self._try_apart)
        #: Channels that the broker closed in a row.
        self._failures = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def unconfirmed(self) -> int:
        """Publications that are not confirmed yet, and that somebody waits for."""
        if not self._late:
            return len(self._sent) + len(self._queue)
        return len({id(one) for one in self.entries() if not one.future.done()})

    def entries(self) -> Iterator[Entry]:
        """Yield all that is not confirmed, each once."""
        yield from self._sent.values()
        late = set(map(id, self._late.values()))
        yield from self._late.values()
        for entry in self._queue.entries():
            if id(entry) not in late:
                yield entry

    def add(self, entry: Entry) -> None:
        """Publish."""
        self._empty.clear()
        self._queue.add(entry)
        self._fill()

    async def drain(self) -> None:
        """Wait until everything is confirmed."""
        await self._empty.wait()

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
        self._next_tag, self._highest = 1, 0
        self._fill()

    def _forget_channel(self) -> None:
        """Queue everything unconfirmed again, before what has not been published at all."""
        self._queue.put_back(self._take_back())

    def _take_back(self) -> list[Entry]:
        """Return everything that is sent and not confirmed, in order; the channel is not used any
        more.
        """
        self._channel = None
        sent = sorted([*self._late.values(), *self._sent.values()], key=lambda one: one.number)
        self._sent.clear()
        self._late.clear()
        for entry in sent:
            entry.returned = False
        return sent

    def _channel_closed(self, channel: Channel, error: Exception) -> None:
        if channel is not self._channel and self._channel is not None:
            return
        if not channel.connection.is_open:
            self._forget_channel()
            return
        log.warning("publisher.channel_closed", why=str(error)[:300])
        if getattr(error, "reply_code", None) == _NOT_FOUND and self._on_missing is not None:
            self._on_missing()
        asyncio.get_running_loop().call_later(
            delay_after(self._failures, FIRST_DELAY, LONGEST_DELAY),
            self._reopen,
            channel.connection,
        )
        self._failures += 1
        self._suspect_unconfirmed()

    def _suspect_unconfirmed(self) -> None:
        """Try the unconfirmed publications apart from each other: the broker does not say for which
        it closed the channel (no such exchange, no right to it, too large), or answers none because
        of one.
        """
        for entry in self._take_back():
            self._queue.suspect(entry)

    def _reopen(self, connection: CoalescingConnection) -> None:
        if self._channel is None and connection.is_open:
            connection.channel(on_open_callback=self._channel_opened)

    # From here on: one message's way.

    def _fill(self) -> None:
        if self._queue.is_careful:
            self._queue.take()  # all of them to the trials, whether or not there is a channel
        # A channel that is closing is not forgotten yet, and takes nothing.
        while (channel := self._channel) is not None and channel.is_open:
            if len(self._sent) >= self._limits.window or (entry := self._queue.take()) is None:
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
        for entry in (*self._late.values(), *self._sent.values()):
            one = entry.publication
            if not entry.returned and (one.message_id, one.exchange, one.routing_key) == (
                properties.message_id,
                method.exchange,
                method.routing_key,
            ):
                entry.returned = True
                return
        log.error("publisher.return_not_understood", message_id=properties.message_id)
        self.connection.drop()

    def _read(self, kind: int, buffer: bytes, begin: int, end: int) -> bool:
        """Read a frame of the channel if it is a confirm."""
        if kind != FRAME_METHOD or (ack := read_ack(buffer, begin, end)) is None:
            return False
        self._confirmed(*ack)
        return True

    def _confirmed(self, tag: int, multiple: bool) -> None:
        self._failures = 0
        for entry in self._answered(tag, multiple):
            _taken(entry)
            self._queue.taken(entry)
        self._fill()

    def _answered(self, tag: int, multiple: bool) -> list[Entry]:
        """Return the publications that a confirm or a refusal is for; they are under way no more."""
        self._highest, self._confirmed_at = max(self._highest, tag), monotonic()
        if not multiple:
            entry = self._sent.pop(tag, None) or self._late.pop(tag, None)
            return [entry] if entry is not None else []
        late = [one for one in self._late if one <= tag] if self._late else []
        found = [self._late.pop(one) for one in late]
        sent = []
        for one in self._sent:
            if one > tag:
                break
            sent.append(one)
        return found + [self._sent.pop(one) for one in sent]

    def _nacked(self, frame: Any) -> None:
        """Retry nacked publications later and later: their queue is full or has lost its leader."""
        entries = self._answered(frame.method.delivery_tag, frame.method.multiple)
        log.warning("publisher.nacked", messages=len(entries))
        for entry in entries:
            entry.returned = False
            self._queue.refused(entry)
        self._fill()

    def _settle(self) -> None:
        if self._sent or self._queue.is_waited_for:
            return
        if not self._late or all(one.future.done() for one in self._late.values()):
            self._empty.set()

    # From here on: what is tried apart.

    def _try_apart(self, entry: Entry) -> None:
        self._trials.send(entry, self)

    def trial_taken(self, entry: Entry) -> None:
        """End a trial that the broker has confirmed or returned."""
        _taken(entry)
        self._queue.taken(entry)
        self._fill()

    def trial_refused(self, entry: Entry) -> None:
        """Let the queue try a refused trial again later."""
        self._queue.refused(entry)
        self._settle()

    def trial_unwritable(self, entry: Entry, error: Exception) -> None:
        """End a trial that cannot be written as AMQP."""
        if not entry.future.done():
            entry.future.set_exception(error)
        self._queue.ended(entry)
        self._fill()

    def watch(self) -> None:
        """Look for confirms that are overdue, and end what has waited for its queue for as long as
        it may.
        """
        if self._trials.is_up:  # or they wait for the broker, and for no queue
            self._queue.give_up(self._late.values())
        self._queue.forget_cancelled()
        self._settle()
        if self.connection.is_blocked:
            return
        # A broker that blocks publishers says so; its silence then is no failure, nor what it has
        # to make up for.
        now, unblocked = monotonic(), self.connection.unblocked_at
        limit = self._limits.deadline

        def is_overdue(sent: tuple[int, Entry]) -> bool:
            return now - max(sent[1].sent_at, unblocked) > limit

        overdue = list(takewhile(is_overdue, self._sent.items()))
        if not overdue:
            return
        if now - max(self._confirmed_at, unblocked) > limit:
            # Nothing at all is confirmed: one of them holds up all others. What was sent may yet
            # arrive, and arrives twice then, with the same message id.
            log.error(
                "publisher.confirm_overdue", connection=self._name, unconfirmed=len(self._sent)
            )
            self._queue.be_careful()
            self._suspect_unconfirmed()
            self.connection.abandon()
            return
        # DANGER: not where confirms only come late, in order, for the broker has much to do: each
        # trial would be one message more.
        for tag, entry in overdue:
            if tag < self._highest:
                self._late[tag] = self._sent.pop(tag)
                self._queue.unanswered(entry)


def _taken(entry: Entry) -> None:
    if not entry.future.done():
        entry.future.set_result(Published.RETURNED if entry.returned else Published.CONFIRMED)

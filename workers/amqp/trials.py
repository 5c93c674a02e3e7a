"""Publications that may keep the broker from answering, each on a channel of its own.

RabbitMQ stops at a quorum queue without a leader: the channel answers nothing for 65 seconds and
then refuses, or, where the queue had a leader before, holds back what comes after some dozens of
messages until there is a leader again. In both, the whole connection stands still after some
hundred messages more. One message on a channel holds up nobody.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Protocol

import structlog
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.spec import Basic

from workers.amqp.broker import Where
from workers.amqp.connection import CoalescingConnection, RecoveringConnection
from workers.amqp.frames import publication_frames
from workers.amqp.send_queue import Entry

log = structlog.get_logger()

#: Publications that are tried at once; the others wait.
MOST_TRIALS = 1000
_NOT_FOUND = 404


class TrialOwner(Protocol):
    """The publisher's lane, which is told what became of a trial."""

    def trial_taken(self, entry: Entry) -> None:
        """End a trial that the broker has confirmed or returned (`entry.returned`)."""

    def trial_refused(self, entry: Entry) -> None:
        """Go on after the broker has refused a trial."""

    def trial_unwritable(self, entry: Entry, error: Exception) -> None:
        """End a trial that cannot be written as AMQP."""


@dataclass(slots=True, eq=False)
class _Trial:
    entry: Entry
    owner: TrialOwner


class Trials:
    """One connection, made when it is first needed. `on_missing` is called when an exchange is not
    there. A trial without an answer is refused after `deadline` seconds.
    """

    def __init__(
        self, where: Where, on_missing: Callable[[], None] | None, deadline: float
    ) -> None:
        self._recovering = RecoveringConnection(
            where, "ecs-worker publish apart", self._connected, self._lost
        )
        self._on_missing = on_missing
        self._deadline = deadline
        self._is_used = False
        self._connection: CoalescingConnection | None = None
        self._pending: deque[_Trial] = deque()
        #: Channels that are being opened, that have nothing to do, and that wait for an answer.
        self._opening = 0
        self._idle: list[Channel] = []
        self._busy: dict[Channel, _Trial] = {}
        #: Channels that the broker was asked to close: it counts them until it answers.
        self._closing: set[Channel] = set()
        #: When the broker last opened or closed a channel, or was first asked to, in monotonic time.
        self._heard_at = 0.0

    @property
    def is_up(self) -> bool:
        """False while the connection is needed and not open."""
        return self._recovering.is_up or not self._is_used

    @property
    def reconnects(self) -> int:
        """Times that the connection was lost or not made."""
        return self._recovering.reconnects

    def send(self, entry: Entry, owner: TrialOwner) -> None:
        """Publish on a channel of its own, again after the connection was lost."""
        self._pending.append(_Trial(entry, owner))
        if not self._is_used:
            self._is_used = True
            self._recovering.open()
        self._fill()

    def watch(self) -> None:
        """Refuse those whose answer is overdue, so that they are tried anew. Where the broker does
        not even open or close a channel, all are sent again on a new connection.
        """
        if self._recovering.is_blocked:
            return
        now, unblocked = monotonic(), self._recovering.unblocked_at
        is_awaited = self._opening or self._closing
        if is_awaited and now - max(self._heard_at, unblocked) > self._deadline:
            log.error("publisher.trials_stand_still", waiting=len(self._pending))
            self._recovering.drop()
            return
        for channel, trial in list(self._busy.items()):
            if now - max(trial.entry.sent_at, unblocked) > self._deadline:
                del self._busy[channel]
                self._ask()
                with suppress(AMQPError):
                    channel.close()
                    self._closing.add(channel)
                trial.owner.trial_refused(trial.entry)

    async def close(self) -> None:
        """Close the connection."""
        if self._is_used:
            await self._recovering.close()

    def _connected(self, connection: CoalescingConnection) -> None:
        self._connection = connection
        self._fill()

    def _lost(self) -> None:
        self._connection, self._opening = None, 0
        self._idle.clear()
        self._closing.clear()
        self._pending.extendleft(reversed(self._busy.values()))
        self._busy.clear()

    def _fill(self) -> None:
        while self._pending and self._idle:
            if (channel := self._idle.pop()).is_open:
                self._send(channel, self._pending.popleft())
        if (connection := self._connection) is None or not connection.is_open:
            return
        most = min(MOST_TRIALS, connection.params.channel_max - 1)
        there = self._opening + len(self._busy) + len(self._idle) + len(self._closing)
        for _ in range(min(len(self._pending) - self._opening, most - there)):
            self._ask()
            self._opening += 1
            connection.channel(on_open_callback=self._opened)

    def _ask(self) -> None:
        if not self._opening and not self._closing:
            self._heard_at = monotonic()

    def _opened(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._closed)
        channel.add_on_return_callback(self._returned)
        channel.confirm_delivery(
            partial(self._answered, channel), callback=lambda _: self._ready(channel)
        )

    def _ready(self, channel: Channel) -> None:
        self._opening -= 1
        self._heard_at = monotonic()
        self._idle.append(channel)
        self._fill()

    def _send(self, channel: Channel, trial: _Trial) -> None:
        entry, connection = trial.entry, channel.connection
        if entry.future.done():  # given up before it was sent
            self._idle.append(channel)
            trial.owner.trial_refused(entry)
            return
        entry.returned = False
        try:
            frames = publication_frames(
                entry.publication, channel.channel_number, connection.params.frame_max
            )
        except Exception as error:
            self._idle.append(channel)
            trial.owner.trial_unwritable(entry, error)
            return
        self._busy[channel] = trial
        entry.sent_at = monotonic()
        connection.send(frames)

    def _returned(self, channel: Channel, *_: object) -> None:
        if (trial := self._busy.get(channel)) is not None:
            trial.entry.returned = True

    def _answered(self, channel: Channel, frame: Any) -> None:
        if (trial := self._busy.pop(channel, None)) is None:
            return
        self._idle.append(channel)
        if isinstance(frame.method, Basic.Ack):
            trial.owner.trial_taken(trial.entry)
        else:
            trial.owner.trial_refused(trial.entry)
        self._fill()

    def _closed(self, channel: Channel, error: Exception) -> None:
        if not channel.connection.is_open:
            return  # `_lost` follows
        self._closing.discard(channel)
        self._heard_at = monotonic()
        if channel in self._idle:
            self._idle.remove(channel)
        trial = self._busy.pop(channel, None)
        if trial is not None:
            log.warning(
                "publisher.channel_closed",
                why=str(error)[:300],
                exchange=trial.entry.publication.exchange,
                routing_key=trial.entry.publication.routing_key,
            )
            if getattr(error, "reply_code", None) == _NOT_FOUND and self._on_missing is not None:
                self._on_missing()
            trial.owner.trial_refused(trial.entry)
        self._fill()

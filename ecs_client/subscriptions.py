"""Consumes status updates and order results, on a connection that a blocked publisher's does not
share: acks go through while the broker is short of memory.
"""

import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import field
from typing import Any

from ecs_client.address import Brokers
from ecs_client.errors import BrokerRefused, BrokerUnavailable, ClientClosed, EcsError
from ecs_client.link import Link
from messages.record import record

#: Milliseconds for which a queue of updates outlives its connection.
_OUTLIVES = 60_000
#: Updates that wait in it at most; the oldest are dropped.
_LONGEST = 100_000
#: The consumer of a channel: each has one.
_CONSUMER = "ecs-client"
#: Bytes of a routing key.
_LONGEST_BINDING = 255


@record
class Delivery:
    """A message of a subscription. `epoch` is that of the channel that its tag belongs to."""

    body: bytes = field(repr=False)
    message_id: str | None
    correlation_id: str | None
    headers: dict[str, Any]
    routing_key: str
    is_redelivered: bool
    tag: int
    epoch: int


@record
class Source:
    """The origin of a subscription's messages: a queue that is there, or one of its own that is
    bound to `exchange` by `binding`. `prefetch` messages come before the first is acked.
    """

    queue: str
    prefetch: int
    exchange: str | None = None
    binding: str = "#"


def own_queue(exchange: str, binding: str, prefetch: int) -> Source:
    """Return a source with a queue of its own, which outlives a broken connection by a minute.

    Raises `ValueError` for a binding that AMQP cannot say: it would break the connection, again and
    again.
    """
    if len(binding.encode()) > _LONGEST_BINDING:
        raise ValueError(f"what is subscribed to is longer than {_LONGEST_BINDING} bytes")
    return Source(f"ecs-client.{uuid.uuid4().hex}", prefetch, exchange, binding)


class Subscription:
    """Messages of one source, taken by one reader. `on_ready` is called from the link's thread when
    there is something new to `take`, or `error` is set.
    """

    def __init__(self, link: "Subscriptions", source: Source, on_ready: Callable[[], None]) -> None:
        self.source = source
        self.error: EcsError | None = None
        #: Counts the channels: each connection has a new one. 0: it consumes not yet.
        self.epoch = 0
        self.is_closed = False
        self.channel: Any = None
        self._link = link
        self._ready = on_ready
        self._deliveries: deque[Delivery] = deque()

    def take(self) -> Delivery | None:
        """Return the next message; None where there is none yet. Raises the `error`."""
        try:
            return self._deliveries.popleft()
        except IndexError:
            if self.error is not None:
                raise self.error from None
            return None

    def ack(self, delivery: Delivery, *, multiple: bool = False) -> None:
        """Settle a message (all up to it); of a channel that is gone it comes again."""

        def send() -> None:
            if self.channel is not None and delivery.epoch == self.epoch:
                self.channel.basic_ack(delivery.tag, multiple)

        self._link.post(lambda: self._link.attempt(send))

    def close(self) -> None:
        """End the subscription: what is not acked goes back to the queue, or away with a queue of its own."""
        if not self.is_closed:
            self.is_closed = True
            self._link.post(lambda: self._link.remove(self))

    # The link's thread.

    def deliver(self, message: Any) -> None:
        """Note a message that came."""
        if self.is_closed:
            return
        body, properties, info = message.body, message.properties, message.delivery_info
        self._deliveries.append(
            Delivery(
                body=body if isinstance(body, bytes) else bytes(body, "utf-8"),
                message_id=properties.get("message_id"),
                correlation_id=properties.get("correlation_id"),
                headers=properties.get("application_headers") or {},
                routing_key=info["routing_key"],
                is_redelivered=info["redelivered"],
                tag=info["delivery_tag"],
                epoch=self.epoch,
            )
        )
        self._ready()

    def begun(self, channel: Any) -> None:
        """Note that it consumes on a channel."""
        self.channel = channel
        self._ready()

    def ended(self) -> None:
        """Drop what belongs to a channel that is gone: the broker delivers it again."""
        self.channel = None
        self._deliveries.clear()

    def fail(self, error: EcsError) -> None:
        """End the subscription with an error."""
        self.error = error
        self._ready()


class Subscriptions(Link):
    """The link for whatever is consumed until it is told to stop."""

    def __init__(self, brokers: Brokers) -> None:
        super().__init__(brokers)
        self._all: list[Subscription] = []

    def subscribe(
        self, source: Source, on_ready: Callable[[], None] = lambda: None
    ) -> Subscription:
        """Begin to consume; from any thread."""
        found = Subscription(self, source, on_ready)
        self.start()
        self.post(lambda: self._add(found))
        return found

    # The link's thread.

    def attempt(self, action: Callable[[], None]) -> None:
        """Do something on the connection; where it fails the connection is made anew."""
        self._guard(action)

    def connected(self, prepared: Any) -> None:
        for one in list(self._all):
            self._consume(one)

    def lost(self) -> None:
        for one in self._all:
            one.ended()

    def refused(self) -> None:
        """End what has never consumed; the rest goes on when the broker takes the client again."""
        for one in [one for one in self._all if not one.epoch]:
            self._all.remove(one)
            one.fail(BrokerRefused(self.problem))

    def channel_failed(self, channel: int, error: Exception) -> None:
        raise error

    def stopped(self) -> None:
        for one in self._all:
            one.fail(ClientClosed("the client was closed"))
        self._all.clear()

    def remove(self, one: Subscription) -> None:
        """End a subscription."""
        if one not in self._all:
            return
        self._all.remove(one)
        channel = one.channel
        one.ended()
        if channel is not None and self.connection is not None:

            def close() -> None:
                # First: what comes for a channel that closes, py-amqp complains about; and whoever
                # consumes is told of a queue's end.
                channel.basic_cancel(_CONSUMER)
                if one.source.exchange is not None:
                    channel.queue_delete(one.source.queue)
                channel.close()

            self._guard(lambda: self.rpc(channel, close))

    def _add(self, one: Subscription) -> None:
        if self.is_stopped:
            one.fail(ClientClosed("the client is closed"))
            return
        if self.is_refused:
            one.fail(BrokerRefused(self.problem))
            return
        self._all.append(one)
        if self.connection is not None:
            self._guard(lambda: self._consume(one))

    def _consume(self, one: Subscription) -> None:
        if one not in self._all or one.channel is not None:
            return
        one.epoch += 1
        channel = self.rpc(None, self.connection.channel)
        channel.auto_decode = False
        try:
            self.rpc(channel, lambda: self._begin(one, channel))
        except self.connection.channel_errors as error:
            # There is no such exchange or queue, or it is not for us: trying again does not help.
            self._all.remove(one)
            text = str(getattr(error, "reply_text", error))
            one.fail(BrokerUnavailable(f"the broker refused it: {text}"))
            self.rpc(channel, channel.close)
        else:
            one.begun(channel)

    def _begin(self, one: Subscription, channel: Any) -> None:
        source = one.source
        if source.exchange is not None:
            limits = {"x-expires": _OUTLIVES, "x-max-length": _LONGEST}
            channel.queue_declare(source.queue, durable=True, auto_delete=False, arguments=limits)
            channel.queue_bind(source.queue, source.exchange, source.binding)
        channel.basic_qos(0, source.prefetch, False)

        def cancelled(_: str) -> None:
            raise ConnectionError(f"the broker took the queue {source.queue} away")

        channel.basic_consume(source.queue, _CONSUMER, callback=one.deliver, on_cancel=cancelled)

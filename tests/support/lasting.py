"""A requester that outlives its broker's failures: lasting queues, confirmed publications, both
tried again.
"""

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pika
from pika.exceptions import AMQPError

from sandbox.requester import Heard, Requester, Source

#: Seconds for which publishing is tried.
_PATIENCE = 60.0


class LastingRequester(Requester):
    """As `Requester`, by a connection that is made anew whenever it is gone. It takes no order
    results from others.
    """

    #: The exchanges that it must be bound to before something is published there.
    BOUND_TO = ("ecs.status", "ecs.results")

    def __init__(self, *urls: str, namespace: str = "ecs", hears_all: bool = True) -> None:
        """Connect to one of the brokers; with several, its queues are a cluster's quorum queues.

        Without `hears_all` it has its replies alone: a queue of another kind that has no leader yet
        keeps it from none of them.
        """
        self._parameters = [pika.URLParameters(url) for url in urls]
        for one in self._parameters:
            # A node that is cut off must be found out; one broker is waited for.
            one.heartbeat = 4 if len(urls) > 1 else 0
            one.socket_timeout = one.stack_timeout = 2 if len(urls) > 1 else 5
            one.virtual_host = one.virtual_host or "/"  # pika reads // otherwise than all others
        self._arguments = {"x-queue-type": "quorum"} if len(urls) > 1 else None
        self._broker: Any = None
        self._namespace = namespace
        self._on_heard = lambda _: None
        self._name = f"lasting-{uuid.uuid4().hex[:8]}"
        self._queues = {f"{self._name}-replies": Source.REPLY}
        if hears_all:
            self._queues[f"{self._name}-status"] = Source.STATUS
            self._queues[f"{self._name}-results"] = Source.ORDER_RESULT
        self.heard: list[Heard] = []
        self._until_done(self.declare)

    @property
    def reply_to(self) -> str:
        """The name of the reply queue."""
        return f"{self._name}-replies"

    def declare(self) -> None:
        """Declare its queues, again where they are gone."""
        with self._channel() as channel:
            for queue in self._queues:
                channel.queue_declare(queue, durable=True, arguments=self._arguments)
            bindings = {Source.STATUS: ("status", "#"), Source.ORDER_RESULT: ("results", "order.#")}
            for queue, source in self._queues.items():
                if source in bindings:
                    exchange, key = bindings[source]
                    channel.queue_bind(queue, f"{self._namespace}.{exchange}", key)

    def publish(self, exchange: str, routing_key: str, body: Any, **options: Any) -> str:
        """As `Requester.publish`, until the broker has confirmed it; a confirm that was lost makes
        two of it.
        """
        message_id: str = options.pop("message_id", None) or uuid.uuid4().hex
        payload = body if isinstance(body, str | bytes) else json.dumps(body)
        properties = pika.BasicProperties(
            message_id=message_id,
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            timestamp=int(time.time()),
            **options,
        )

        def once() -> None:
            with self._channel() as channel:
                channel.confirm_delivery()
                channel.basic_publish(exchange, routing_key, payload, properties, mandatory=True)

        self._until_done(once)
        return message_id

    def depth(self, queue: str) -> int:
        """Return how many messages wait in a queue."""
        return int(self._counts(queue).message_count)

    def consumers(self, queue: str) -> int:
        """Return how many consumers a queue has."""
        return int(self._counts(queue).consumer_count)

    def _counts(self, queue: str) -> Any:
        found: list[Any] = []

        def ask() -> None:
            with self._channel() as channel:
                found.append(channel.queue_declare(queue, passive=True).method)

        self._until_done(ask)
        return found[-1]

    def take(self, queue: str) -> set[str]:
        """The ids of all messages in a queue, taken out."""
        found: set[str] = set()

        def take_all() -> None:
            with self._channel() as channel:
                while True:
                    method, properties, _ = channel.basic_get(queue, auto_ack=True)
                    if method is None:
                        return
                    found.add(properties.message_id)

        self._until_done(take_all)
        return found

    def leave(self) -> None:
        """Let go of its connection without a word: the next one is to whichever broker answers."""
        self._broker = None

    def close(self) -> None:
        """Delete its queues and close the connection."""
        with suppress(AMQPError, OSError), self._channel() as channel:
            for queue in self._queues:
                channel.queue_delete(queue)
        with suppress(AMQPError, OSError):
            self._broker.close()

    def _listen_once(self, seconds: float) -> None:
        """Take what has come; a broker that is away is looked at the next time."""
        before = len(self.heard)
        with suppress(AMQPError, OSError), self._channel() as channel:
            for queue, source in self._queues.items():
                while True:
                    method, properties, body = channel.basic_get(queue)
                    if method is None:
                        break
                    self._take(source, method, properties, body)
                    channel.basic_ack(method.delivery_tag)
        if len(self.heard) == before:
            time.sleep(min(seconds, 0.1))

    def _take(self, source: Source, method: Any, properties: Any, body: bytes) -> None:
        told = {"message_id": properties.message_id, "correlation_id": properties.correlation_id}
        self.heard.append(
            Heard(
                source,
                json.loads(body),
                body,
                told,
                properties.headers,
                method.routing_key,
                time.monotonic(),
            )
        )

    @contextmanager
    def _channel(self) -> Iterator[Any]:
        if self._broker is None or self._broker.is_closed:
            several = random.sample(self._parameters, len(self._parameters))
            self._broker = pika.BlockingConnection(several)
        channel = self._broker.channel()
        try:
            yield channel
        finally:
            with suppress(AMQPError, OSError):
                channel.close()

    @staticmethod
    def _until_done(act: Callable[[], None]) -> None:
        limit = time.monotonic() + _PATIENCE
        while True:
            try:
                return act()
            except (AMQPError, OSError):
                if time.monotonic() > limit:
                    raise
                time.sleep(0.2)

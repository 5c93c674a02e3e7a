"""A console backend and a billing system in one: publishes requests, hears the results and status
updates.
"""

import json
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any

from kombu import Connection, Consumer, Exchange, Message, Queue

_PROPERTIES = ("message_id", "reply_to", "headers", "correlation_id", "expiration")


class Source(StrEnum):
    """The queue on which something was heard."""

    REPLY = "reply"
    ORDER_RESULT = "order result"
    STATUS = "status"


@dataclass(frozen=True, slots=True)
class Heard:
    """A message that came back. `raw` is its body as it came; `at` is monotonic time."""

    source: Source
    body: dict[str, Any]
    raw: bytes
    properties: Mapping[str, Any]
    headers: Mapping[str, Any]
    routing_key: str
    at: float

    @property
    def correlation_id(self) -> str | None:
        """The request's correlation id, else its message id."""
        found: str | None = self.properties.get("correlation_id")
        return found

    @property
    def is_final(self) -> bool:
        """True for the last status update of its resource."""
        return self.source is Source.STATUS and bool(self.body.get("final"))


class Requester:
    """One AMQP connection with a reply queue of its own; a context manager. The worker's topology
    must be there.
    """

    def __init__(
        self,
        url: str,
        *,
        order_results: bool = True,
        on_heard: Callable[[Heard], None] = lambda _: None,
        namespace: str = "ecs",
    ) -> None:
        """Connect; `url` may be several, separated by commas, of which the first that answers is
        taken; `on_heard` is called with each message that comes back; `namespace` is the worker's.
        """
        self._namespace = namespace
        self._on_heard = on_heard
        urls = [one.strip() for one in url.split(",")]
        self._connection = Connection(urls, heartbeat=0, connect_timeout=5)
        self._connection.ensure_connection(max_retries=len(urls), interval_start=0)
        self._channel = self._connection.channel()
        self._producer = self._connection.Producer()
        name = f"requester-{uuid.uuid4().hex}"
        self._reply = Queue(f"{name}-replies", exclusive=True, durable=False, auto_delete=True)(
            self._channel
        )
        told = Exchange(f"{namespace}.status", "topic", no_declare=True)
        status = Queue(
            f"{name}-status", told, "#", exclusive=True, durable=False, auto_delete=True
        )(self._channel)
        self.heard: list[Heard] = []
        self._consumers = [
            self._listen(self._reply, Source.REPLY),
            self._listen(status, Source.STATUS),
        ]
        if order_results:
            self._consumers.append(
                self._listen(
                    Queue(f"{namespace}.order-results", no_declare=True), Source.ORDER_RESULT
                )
            )

    @property
    def reply_to(self) -> str:
        """The name of the reply queue."""
        name: str = self._reply.name
        return name

    def command(self, operation: str, *, tenant: str = "tenant-a", **fields: Any) -> str:
        """Publish a command and return its message id. Fields of `publish` may be given, too."""
        options = {name: fields.pop(name) for name in _PROPERTIES if name in fields}
        body = {"operation": operation, "tenant_id": tenant, **fields}
        return self.publish(
            f"{self._namespace}.commands", operation, body, **{"reply_to": self.reply_to} | options
        )

    def order(self, text: str, routing_key: str = "order.changeConfigure", **options: Any) -> str:
        """Publish an order as it is and return its message id."""
        return self.publish(f"{self._namespace}.orders", routing_key, text, **options)

    def publish(self, exchange: str, routing_key: str, body: Any, **options: Any) -> str:
        """Publish anything: bytes and text as they are, all else as JSON."""
        message_id: str = options.pop("message_id", None) or uuid.uuid4().hex
        payload = body if isinstance(body, str | bytes) else json.dumps(body)
        properties = {"content_type": "application/json", "content_encoding": "utf-8", **options}
        self._producer.publish(
            payload,
            exchange=exchange,
            routing_key=routing_key,
            message_id=message_id,
            delivery_mode=2,
            timestamp=int(time.time()),
            **properties,
        )
        return message_id

    def wait(
        self, wanted: Callable[[Heard], bool], seconds: float = 30.0, *, after: int = 0
    ) -> Heard:
        """The first of what was heard (from the index `after` on) that is wanted; TimeoutError if
        it does not come.
        """
        limit = time.monotonic() + seconds
        while True:
            for one in self.heard[after:]:
                if wanted(one):
                    return one
            after = len(self.heard)
            if time.monotonic() > limit:
                raise TimeoutError(
                    f"not heard in {seconds} s; heard: {[one.body for one in self.heard[-5:]]}"
                )
            self._listen_once(0.1)

    def listen(self, seconds: float) -> None:
        """Hear what comes within so many seconds, at least once."""
        limit = time.monotonic() + seconds
        while True:
            self._listen_once(max(0.01, limit - time.monotonic()))
            if time.monotonic() >= limit:
                return

    def result_of(self, message_id: str, seconds: float = 30.0) -> Heard:
        """The reply to a command."""
        return self.wait(
            lambda one: one.source is Source.REPLY and one.correlation_id == message_id, seconds
        )

    def order_result_of(self, message_id: str, seconds: float = 60.0) -> Heard:
        """The result of an order on the queue of order results."""
        return self.wait(
            lambda one: one.source is Source.ORDER_RESULT and one.correlation_id == message_id,
            seconds,
        )

    def last_update_of(
        self,
        resource: str,
        message_id: str,
        seconds: float = 60.0,
        *,
        resource_id: str | None = None,
    ) -> Heard:
        """The final status update of a request about a resource (server, order), or about one of
        several.
        """

        def is_meant(one: Heard) -> bool:
            about = (
                one.is_final
                and one.body["resource"] == resource
                and one.body["message_id"] == message_id
            )
            return about and resource_id in (None, one.body["id"])

        return self.wait(is_meant, seconds)

    def updates_of(self, message_id: str) -> list[Heard]:
        """Every status update of a request so far, in order."""
        return [
            one
            for one in self.heard
            if one.source is Source.STATUS and one.body["message_id"] == message_id
        ]

    def depth(self, queue: str) -> int:
        """Return the number of messages that wait in a queue."""
        return int(self._channel.queue_declare(queue, passive=True).message_count)

    def consumers(self, queue: str) -> int:
        """Return the number of a queue's consumers."""
        return int(self._channel.queue_declare(queue, passive=True).consumer_count)

    def take_all(self, queue: str) -> list[Any]:
        """Take everything out of a queue; the bodies, which are JSON."""
        taken = []
        while (
            message := Queue(queue, no_declare=True)(self._channel).get(no_ack=True)
        ) is not None:
            taken.append(json.loads(message.body))
        return taken

    def dead_letters_of(self, message_ids: Collection[str], seconds: float = 30.0) -> list[Any]:
        """Take the dead letters of these messages out of the queue, which others may use, too; the
        bodies, in the order of the ids. What is there of others is dropped; TimeoutError if one
        does not come: a message is parked after it was answered.
        """
        dead, found = Queue(f"{self._namespace}.dead", no_declare=True)(self._channel), {}
        limit = time.monotonic() + seconds
        while missing := [one for one in message_ids if one not in found]:
            if (message := dead.get(no_ack=True)) is not None:
                found[message.properties["message_id"]] = json.loads(message.body)
            elif time.monotonic() > limit:
                raise TimeoutError(f"not parked in {seconds} s: {missing}")
            else:
                self._listen_once(0.1)
        return [found[one] for one in message_ids]

    def close(self) -> None:
        """Close the connection; the reply queue goes with it."""
        self._connection.release()

    def __enter__(self) -> "Requester":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _listen_once(self, seconds: float) -> None:
        with suppress(TimeoutError):
            self._connection.drain_events(timeout=seconds)

    def _listen(self, queue: Queue, source: Source) -> Consumer:
        consumer = Consumer(
            self._channel, [queue], on_message=lambda message: self._hear(message, source)
        )
        consumer.consume()
        return consumer

    def _hear(self, message: Message, source: Source) -> None:
        raw = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
        routing_key = message.delivery_info["routing_key"]
        heard = Heard(
            source,
            json.loads(raw),
            raw,
            message.properties,
            message.headers,
            routing_key,
            time.monotonic(),
        )
        message.ack()
        self.heard.append(heard)
        self._on_heard(heard)

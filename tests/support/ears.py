"""Hears all that comes of hostile messages: replies, results, dead letters."""

import json
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil

from sandbox.worker import WorkerProcess
from tests.support import amqp
from tests.support.corpus import command, order
from tests.support.names import (
    IMAGES_QUEUE,
    INPUT_QUEUES,
    ORDERS_QUEUE,
    READS_QUEUE,
    SERVERS_QUEUE,
    UNDELIVERED_QUEUE,
)

#: Seconds for one answer; a loaded machine is slow.
PATIENCE = 60.0
#: MiB by which the worker may have grown.
GROWTH = 50
CONSUMED = (*INPUT_QUEUES, UNDELIVERED_QUEUE)


@dataclass(slots=True)
class Outcome:
    """Holds what came of a message: results to its `reply_to` and on `ecs.results`, copies in
    `ecs.dead`.
    """

    replies: list[tuple[Any, str, int]] = field(default_factory=list)
    results: list[tuple[Any, str, int, str]] = field(default_factory=list)
    parked: list[str] = field(default_factory=list)

    @property
    def is_any(self) -> bool:
        """Tell whether anything came."""
        return bool(self.replies or self.results or self.parked)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message from `ecs.dead`."""

    tag: str
    headers: dict[str, Any]
    body: bytes


class Ears(amqp.Hostile):
    """Publishes anything and hears all that comes of it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        #: Called with the properties and the body of each result on `ecs.results`.
        self.on_result: Callable[[Any, bytes], Any] = lambda _properties, _body: None
        self.outcomes: dict[str, Outcome] = defaultdict(Outcome)
        name = f"ears-{uuid.uuid4().hex[:8]}"
        self.reply_to = f"{name}-replies"
        for queue, hear in (
            (self.reply_to, self._hear_reply),
            (f"{name}-results", self._hear_result),
        ):
            self.channel.queue_declare(queue, exclusive=True)
            self.channel.basic_consume(queue, hear, auto_ack=True)
        self.channel.queue_bind(f"{name}-results", "ecs.results", "#")

    def _hear_reply(self, _channel: Any, _method: Any, properties: Any, body: bytes) -> None:
        found = json.loads(body)
        heard = found["code"], found["message"], properties.headers["x-ecs-http-status"]
        self.outcomes[properties.correlation_id].replies.append(heard)

    def _hear_result(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        found = json.loads(body)
        heard = (
            found["code"],
            found["message"],
            properties.headers["x-ecs-http-status"],
            method.routing_key,
        )
        self.on_result(properties, body)
        self.outcomes[properties.correlation_id].results.append(heard)

    def await_reply(self, tag: str, seconds: float = PATIENCE) -> Any:
        """The code of the reply that goes by this correlation id."""
        limit = time.monotonic() + seconds
        while not self.outcomes[tag].replies:
            assert time.monotonic() < limit, f"no answer to {tag}"
            self._connection.process_data_events(0.05)
        return self.outcomes[tag].replies[0][0]

    def listen(self, seconds: float) -> None:
        """Hear what comes within so many seconds."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            self._connection.process_data_events(max(0.0, limit - time.monotonic()))

    def take_parked(self) -> list[DeadLetter]:
        """Everything in `ecs.dead`, taken out."""
        found = []
        while True:
            method, properties, body = self.channel.basic_get("ecs.dead", auto_ack=True)
            if method is None:
                return found
            found.append(
                DeadLetter(properties.correlation_id, dict(properties.headers), bytes(body))
            )
            self.outcomes[properties.correlation_id].parked.append(
                properties.headers["x-ecs-error-code"]
            )

    def depth(self, queue: str) -> int:
        """Return how many messages wait in a queue."""
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)


def memory(worker: WorkerProcess) -> float:
    """MiB."""
    return float(psutil.Process(worker.pid).memory_info().rss / 1024 / 1024)


#: A message that is right, for each queue: about a server or an image that there is not.
_GOOD = {
    READS_QUEUE: ("server.show", {}),
    SERVERS_QUEUE: ("server.tags.update", {"tags": "web"}),
    IMAGES_QUEUE: ("image.delete", {}),
}


def ask_something_good(ears: Ears, queue: str, tag: str) -> str:
    """Publish a message that is right, behind a bad one in its queue; a read behind any other.
    Returns the code that it will be answered with.
    """
    properties = {
        "content_type": "application/json",
        "correlation_id": tag,
        "message_id": tag,
        "reply_to": ears.reply_to,
    }
    if queue == ORDERS_QUEUE:
        exchange, key, message = "ecs.orders", "order.changeConfigure", order()
    else:
        key, fields = _GOOD.get(queue, _GOOD[READS_QUEUE])
        name = "image_id" if queue == IMAGES_QUEUE else "server_id"
        exchange, message = "ecs.commands", command(key, **fields, **{name: str(uuid.uuid4())})
    ears.publish(exchange, key, json.dumps(message).encode(), properties)
    return "101.003033" if queue == IMAGES_QUEUE else "101.001033"

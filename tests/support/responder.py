"""Answers commands as a worker would, without one: what is shown is what the client makes of it."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType

from kombu import Connection, Consumer, Message, Producer, Queue

#: What is answered to a request: bodies, each with its own correlation id (None: the request's).
Answers = list[tuple[bytes, str | None]]
OK = b'{"code":200,"message":"OK","data":null}'


class Responder:
    """Takes what is in queues, such as the commands of `ecs.reads` and `ecs.servers`, and answers
    each message by `answer`; a context manager. `requests` are what it took.
    """

    def __init__(
        self,
        url: str,
        answer: Callable[[Message], Answers] = lambda _: [(OK, None)],
        queues: Sequence[str] = ("reads", "servers"),
    ) -> None:
        self.requests: list[Message] = []
        self._url, self._answer, self._queues = url, answer, queues
        self._is_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Responder":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_ended.set()
        self._thread.join(10)

    def _run(self) -> None:
        with Connection(self._url) as connection, connection.channel() as channel:
            producer, came = Producer(connection.channel()), deque[Message]()
            queues = [Queue(f"ecs.{one}", no_declare=True) for one in self._queues]
            with Consumer(channel, queues, on_message=came.append):
                while not self._is_ended.is_set():
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=0.1)
                    # Not in the callback: kombu reads while it publishes, and would call it again.
                    while came:
                        self._handle(came.popleft(), producer)

    def _handle(self, message: Message, producer: Producer) -> None:
        self.requests.append(message)
        asked = message.properties
        for body, correlation_id in self._answer(message):
            producer.publish(
                body,
                exchange="",
                routing_key=asked["reply_to"],
                correlation_id=correlation_id or asked["correlation_id"],
                content_type="application/json",
                content_encoding="utf-8",
                headers={"x-ecs-http-status": 200},
            )
        message.ack()

"""Time from publishing a request to its result: of single requests, and at half of a worker's load."""

import http.client
import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import amqp
from kombu import Connection

from tests.bench.measure import Figures, percentile
from tests.bench.site import CONSOLE, REBOOT, Bench, action

#: Requests a second, and the seconds that the handler of each takes.
RATE, TAKES = 2000, 0.1


@dataclass
class Caller:
    """Publishes requests by one connection and takes their results by another. Not thread-safe, but
    for one thread that publishes and one that takes.
    """

    url: str
    sent: dict[str, float] = field(default_factory=dict)
    #: Seconds from publishing to the result, by the request's id.
    took: dict[str, float] = field(default_factory=dict)

    def __enter__(self) -> "Caller":
        self._publishing = Connection(self.url, heartbeat=0)
        self._taking = Connection(self.url, heartbeat=0)
        self._channel = self._publishing.channel()
        channel = self._taking.channel()
        self._reply_to, *_ = channel.queue_declare("", exclusive=True, auto_delete=True)
        channel.basic_consume(self._reply_to, no_ack=True, callback=self._taken)
        return self

    def __exit__(self, *_: object) -> None:
        self._publishing.release()
        self._taking.release()

    def publish(self, operation: str, body: Mapping[str, object]) -> str:
        """Publish a command; returns its id."""
        name = uuid.uuid4().hex
        message = amqp.Message(
            json.dumps(body),
            content_type="application/json",
            delivery_mode=2,
            message_id=name,
            reply_to=self._reply_to,
        )
        self.sent[name] = time.monotonic()
        self._channel.basic_publish(message, "ecs.commands", operation)
        return name

    def take(self, number: int, seconds: float) -> None:
        """Take results until there are so many; `TimeoutError` when none comes for so long."""
        while len(self.took) < number:
            self._taking.drain_events(timeout=seconds)

    def _taken(self, message: Any) -> None:
        now = time.monotonic()
        if json.loads(message.body)["code"] != 200:
            raise RuntimeError(f"a request failed: {message.body}")
        self.took[message.correlation_id] = now - self.sent[message.correlation_id]


def half_load(bench: Bench) -> Figures:
    """Offer half of what is possible with 400 in flight, evenly; the first second does not count."""
    number = int(RATE * max(10 * bench.scale, 3))
    url = bench.vhost()
    settings = bench.settings(url) | {"BENCH_SECONDS": str(TAKES), "ECS_PREFETCH": "400"}
    with bench.worker("tests.bench.echo_worker", settings), Caller(url) as caller:
        names: list[str] = []
        late: list[float] = []

        def offer() -> None:
            begun = time.monotonic()
            for one in range(number):
                due = begun + one / RATE
                time.sleep(max(0.0, due - time.monotonic()))
                late.append(time.monotonic() - due)
                names.append(caller.publish("server.action", action(str(uuid.uuid4()), CONSOLE)))

        offering = threading.Thread(target=offer)
        offering.start()
        caller.take(number, 30)
        offering.join()
    counted = names[RATE:]
    took = [(caller.took[one] - TAKES) * 1000 for one in counted]
    return {
        "median": median(took),
        "p99": percentile(took, 0.99),
        "publisher_late": percentile(late[RATE:], 0.99) * 1000,
    }


def single(bench: Bench) -> Figures:
    """Ask one thing after the other of an idle worker, a read and a command in turns.

    What counts is the time above that of the same calls to Nova, made bare.
    """
    number = max(int(500 * bench.scale), 100)
    url = bench.vhost()
    with bench.worker("workers run", bench.settings(url)), Caller(url) as caller:

        def ask(operation: str, body: Mapping[str, object]) -> float:
            name = caller.publish(operation, body)
            caller.take(len(caller.sent), 30)
            return caller.took[name]

        def read() -> float:
            body = {"tenant_id": "tenant-a", "server_id": str(uuid.uuid4())}
            return ask("server.tags.list", {"operation": "server.tags.list", **body})

        def command() -> float:
            return ask("server.action", action(str(uuid.uuid4()), REBOOT))

        bare = _bare_calls(bench.nova_url, number)
        for _ in range(20):
            read(), command()
        reads, commands = _in_turns(number, read, command)
    above_read = [(one - bare[0]) * 1000 for one in reads]
    above_command = [(one - bare[0] - bare[1]) * 1000 for one in commands]
    return {
        "read_median": median(above_read),
        "read_p99": percentile(above_read, 0.99),
        "command_median": median(above_command),
        "command_p99": percentile(above_command, 0.99),
        "bare_get": bare[0] * 1000,
        "bare_post": bare[1] * 1000,
    }


def _in_turns(number: int, *ask: Callable[[], float]) -> list[list[float]]:
    """Ask each so many times, with pauses in which the worker is idle again."""
    found: list[list[float]] = [[] for _ in ask]
    for _ in range(number):
        for one, listed in zip(ask, found, strict=True):
            listed.append(one())
            time.sleep(0.01)
    return found


def _bare_calls(nova_url: str, number: int) -> tuple[float, float]:
    """Return the median seconds of a GET of a server, and of a POST of its reboot."""
    connection = http.client.HTTPConnection(urlsplit(nova_url).netloc)
    connection.connect()
    path = f"/compute/v2.1/servers/{uuid.uuid4()}"

    def call(method: str, path: str, body: str | None) -> float:
        begun = time.monotonic()
        connection.request(method, path, body, {"Content-Type": "application/json"})
        connection.getresponse().read()
        return time.monotonic() - begun

    gets, posts = _in_turns(
        number,
        lambda: call("GET", path, None),
        lambda: call("POST", f"{path}/action", json.dumps(REBOOT)),
    )
    connection.close()
    return median(gets), median(posts)

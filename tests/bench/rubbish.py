"""Rubbish at full speed beside lists of servers, four a second: their waits, as a ratio in one run.

The broker and the machine have work with rubbish, too, whoever takes it. So the same rubbish is
sent a second time to a queue that is not the worker's: what the lists wait then is not the worker's
doing.
"""

import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

import pika
import psutil

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.bench.measure import Figures, percentile
from tests.bench.site import Bench
from tests.support.workshop import Workshop

#: Rubbish by name: bodies and how many of each.
KINDS: dict[str, tuple[Callable[[], bytes], int]] = {
    "10 x 3.9 MiB": (lambda: json.dumps({"pad": ["y" * 60_000] * 67}).encode(), 10),
    "40 x 64 MiB": (lambda: b"x" * (64 * 1024 * 1024), 40),
    "1,000 x 1 MiB": (lambda: b'{"a":"' + b"token " * 174_000 + b'"}', 1000),
}
#: Lists without rubbish, and at least so many beside it.
LISTS = 40


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds that lists waited: the median, and what one in a hundred exceeds."""

    median: float
    p99: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Waits":
        """Of these."""
        return cls(median(seconds), percentile(seconds, 0.99))


def rubbish(bench: Bench) -> Figures:
    """Return for every kind and queue: how often longer the lists waited (p99), their median and p99
    in milliseconds beside rubbish, and the most memory in MB.
    """
    found: Figures = {}
    with ExitStack() as stack:
        cloud = stack.enter_context(SimulatedOpenStack(pace=0.3))
        url = bench.vhost()
        workshop = stack.enter_context(Workshop(url, cloud, bench.folder))
        worker = workshop.worker()
        requester = stack.enter_context(Requester(url, order_results=False))
        _lists(requester, lambda number: number < 5)
        for name, (make, number) in KINDS.items():
            body = make()
            alone = _lists(requester, lambda one: one < LISTS)
            for queue, exchange, key in (
                ("another's", "", _others_queue(url)),
                ("images", "ecs.commands", "image.delete"),
                ("reads, as the lists", "ecs.commands", "server.list"),
            ):
                beside, most = _beside(requester, url, exchange, key, body, number, worker.pid)
                kind = f"{name} to {queue}"
                found |= {
                    f"{kind}: p99, ratio": beside.p99 / alone.p99,
                    f"{kind}: p99, ms": beside.p99 * 1000,
                    f"{kind}: median, ms": beside.median * 1000,
                    f"{kind}: most memory, MB": most,
                }
    return found


def _lists(requester: Requester, more: Callable[[int], bool]) -> Waits:
    """Ask for four lists a second as long as `more` (the number of those that were asked) says."""
    found: list[float] = []
    while more(len(found)):
        began = time.monotonic()
        requester.result_of(requester.command("server.list"), 300)
        found.append(time.monotonic() - began)
        time.sleep(max(0.0, 0.25 - found[-1]))
    return Waits.of(found)


def _beside(
    requester: Requester, url: str, exchange: str, key: str, body: bytes, number: int, pid: int
) -> tuple[Waits, float]:
    """The waits while so many bodies are published as fast as the broker takes them, and are worked
    through.
    """
    sending = threading.Thread(target=_send, args=(url, exchange, key, body, number))
    sending.start()
    most = 0.0

    def more(asked: int) -> bool:
        nonlocal most
        most = max(most, psutil.Process(pid).memory_info().rss / 1e6)
        return sending.is_alive() or asked < LISTS

    found = _lists(requester, more)
    sending.join()
    return found, most


def _send(url: str, exchange: str, key: str, body: bytes, number: int) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel: Any = connection.channel()
    channel.confirm_delivery()
    for one in range(number):
        properties = pika.BasicProperties(content_type="application/json", correlation_id=str(one))
        channel.basic_publish(exchange, key, body, properties)
    connection.close()


def _others_queue(url: str) -> str:
    """A queue that keeps nothing for long: rubbish that the broker alone has work with."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    arguments = {"x-queue-type": "quorum", "x-max-length": 1}
    connection.channel().queue_declare("others", durable=True, arguments=arguments)
    connection.close()
    return "others"

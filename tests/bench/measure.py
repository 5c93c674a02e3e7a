"""Measures a run: messages wait in the queue, a process is let loose on them, replies are
counted.
"""

import asyncio
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from kombu import Connection

from sandbox.processes import Server
from workers.amqp.envelope import Publication
from workers.amqp.publisher import Publisher

#: The process that is measured has one core to itself; broker and all others share the rest.
CORE = "0"
#: Seconds without an answer after which a run has failed.
PATIENCE = 60.0


#: What a measurement has found, by name.
Figures = dict[str, float]


@dataclass(frozen=True)
class Cost:
    """Messages a second, CPU microseconds a message (all threads, the kernel's part included), MB
    (10^6) of memory.
    """

    rate: float
    cpu: float
    memory: float


def preload(
    url: str,
    exchange: str,
    routing_key: str,
    messages: Iterable[Mapping[str, object]],
    reply_to: str | None = None,
) -> None:
    """Publish them all, confirmed."""

    async def publish() -> None:
        publisher = Publisher(url)
        publisher.open()
        publications = [
            Publication(
                exchange,
                routing_key,
                json.dumps(one).encode(),
                message_id=uuid.uuid4().hex,
                reply_to=reply_to,
            )
            for one in messages
        ]
        await asyncio.gather(*(publisher.publish(one) for one in publications))
        await publisher.close()

    asyncio.run(publish())


@contextmanager
def replies(url: str) -> Iterator[tuple[str, Callable[[], int]]]:
    """A queue for replies, and a function that counts them."""
    with Connection(url, heartbeat=0) as connection:
        channel = connection.channel()
        name = f"bench-{uuid.uuid4().hex}"
        channel.queue_declare(name, exclusive=True, durable=False, auto_delete=False)
        yield name, lambda: int(channel.queue_declare(name, passive=True).message_count)
        channel.queue_delete(name)


def run(
    command: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    count: Callable[[], int],
    number: int,
) -> Cost:
    """Start the process, wait until it has answered `number` messages; the first fifth is for
    warming up.
    """
    log = folder / f"{uuid.uuid4().hex}.log"
    server = Server(["taskset", "-c", CORE, *command], log, env=env, cwd=folder)
    try:
        process = psutil.Process(server.pid)
        # Before it is warm nothing counts: imports, the first log-in, the first connection.
        begun, at_begin = _reached(server, process, count, 1)
        begun, at_begin = _reached(server, process, count, at_begin.answered + number // 10)
        ended, at_end = _reached(server, process, count, number)
        answered = at_end.answered - at_begin.answered
        return Cost(
            rate=answered / (ended - begun),
            cpu=(at_end.cpu - at_begin.cpu) / answered * 1e6,
            memory=process.memory_info().rss / 1e6,
        )
    finally:
        server.stop()


@dataclass(frozen=True)
class _Mark:
    answered: int
    cpu: float


def _reached(
    server: Server, process: psutil.Process, count: Callable[[], int], number: int
) -> tuple[float, _Mark]:
    last, limit = 0, time.monotonic() + PATIENCE
    while (answered := count()) < number:
        if answered > last:
            last, limit = answered, time.monotonic() + PATIENCE
        if not server.alive or time.monotonic() > limit:
            raise RuntimeError(
                f"only {answered} of {number} were answered: {server.log.read_text()[-2000:]}"
            )
        time.sleep(0.02)
    times = process.cpu_times()
    return time.monotonic(), _Mark(answered, times.user + times.system)


def figures(cost: Cost) -> Figures:
    """Return a cost as figures by name."""
    return {"rate": cost.rate, "cpu": cost.cpu, "memory": cost.memory}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of all does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def leave_core() -> None:
    """Ourselves, and whom we start, out of the way of what is measured."""
    others = os.sched_getaffinity(0) - {int(CORE)}
    if others:
        os.sched_setaffinity(0, others)

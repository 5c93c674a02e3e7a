"""CPU that a call costs the Python client, in both directions:

    python -m tests.bench.client [CALLS]

A process of its own answers; what is measured is this process alone, its loop and threads included.
"""

import asyncio
import multiprocessing
import resource
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from multiprocessing.synchronize import Event

from ecs_client import AsyncEcsClient, EcsClient
from sandbox.broker import PrivateBroker
from workers.amqp.topology import declare, topology

_VHOST = "bench"
_FIELDS = {
    "server_id": "616fb98f-46ca-475e-917e-2563e5a8cd19",
    "body": {"reboot": {"type": "SOFT"}},
}
_ANSWER = b'{"code":200,"message":"OK","data":null}'
_THREADS = 16


def answer(url: str, ready: Event) -> None:
    """Answer every command of ecs.servers until the process is killed."""
    import pika  # noqa: PLC0415 - of the other process

    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    channel.basic_qos(prefetch_count=1000)

    def reply(
        _: object, method: pika.spec.Basic.Deliver, asked: pika.BasicProperties, __: bytes
    ) -> None:
        properties = pika.BasicProperties(
            correlation_id=asked.correlation_id,
            headers={"x-ecs-http-status": 200},
            content_type="application/json",
            delivery_mode=2,
        )
        channel.basic_publish("", asked.reply_to, _ANSWER, properties)
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume("ecs.servers", reply)
    ready.set()
    channel.start_consuming()


def cpu() -> float:
    """Return the seconds of CPU that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measured(name: str, calls: int, work: Callable[[], None]) -> None:
    """Do the work, and print its cost."""
    began, used = time.perf_counter(), cpu()
    work()
    took, used = time.perf_counter() - began, cpu() - used
    print(
        f"{name:24} {calls / took:8,.0f} calls a second  {used / calls * 1e6:6.0f} us of CPU each"
    )


async def at_once(url: str, calls: int, width: int) -> None:
    """Call with so many calls under way."""
    async with AsyncEcsClient(url, tenant="tenant-a") as client:
        places = asyncio.Semaphore(width)

        async def one() -> None:
            async with places:
                await client.call("server.action", _FIELDS)

        await asyncio.gather(*(one() for _ in range(calls)))


def _run(work: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(work())


def by_threads(url: str, calls: int) -> None:
    """Call from several threads, each one call after another."""
    with EcsClient(url, tenant="tenant-a") as client:

        def work() -> None:
            for _ in range(calls // _THREADS):
                client.call("server.action", _FIELDS)

        threads = [threading.Thread(target=work) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def main(calls: int) -> None:
    """Measure, and print a line for each way to call."""
    with PrivateBroker() as broker:
        url = broker.add_vhost(_VHOST)
        declare(url, topology())
        context = multiprocessing.get_context("spawn")
        ready = context.Event()
        answering = context.Process(target=answer, args=(url, ready), daemon=True)
        answering.start()
        ready.wait(30)
        for width in (1000, 64):
            work = partial(at_once, url, calls, width)
            measured(f"asyncio, {width} at once", calls, partial(_run, work))
        measured(f"{_THREADS} threads", calls, lambda: by_threads(url, calls))
        answering.kill()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)

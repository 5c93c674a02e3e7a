"""The rate of replays, beside publishing the same messages with the same publisher."""

import asyncio
import json
import os
import subprocess
import sys
import time
import uuid

from messages.codes import Code
from messages.errors import Refused
from tests.bench.measure import Figures
from tests.bench.site import Bench
from tests.support import REPOSITORY
from tests.support.names import NAMES, SERVERS_QUEUE
from workers.amqp.envelope import Envelope
from workers.amqp.publisher import Publisher
from workers.metrics import Metrics
from workers.pipeline.replies import Replies, again


def replay(bench: Bench) -> Figures:
    """Dead-letter commands, and have the command replay all of them.

    Messages a second: `plain` published and confirmed by the same publisher; `again` replayed;
    `command` by the whole command, its start included.
    """
    number = bench.number(10000)
    url, beside = bench.vhost(), bench.vhost()
    commands = [unhandled_command() for _ in range(number)]
    asyncio.run(dead_letter(url, commands))
    # In a virtual host of its own: nobody consumes in either.
    plain = asyncio.run(_publish(beside, commands))
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "workers", "dead", "replay", "--all", "--yes", "-o", "json"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **bench.settings(url)},
        cwd=bench.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.monotonic() - started
    (row,) = json.loads(done.stdout)
    if row["done"] != number:
        raise RuntimeError(f"only {row['done']} of {number} were replayed: {done.stderr}")
    return {"plain": plain, "again": number / row["seconds"], "command": number / seconds}


def unhandled_command() -> Envelope:
    body = {
        "operation": "server.action",
        "tenant_id": "tenant-a",
        "server_id": str(uuid.uuid4()),
        "token": "***",
        "body": {"reboot": {"type": "HARD"}},
    }
    return Envelope(
        SERVERS_QUEUE,
        "ecs.commands",
        "server.action",
        False,
        json.dumps(body).encode(),
        uuid.uuid4().hex,
        None,
        "somebody",
        None,
        int(time.time()),
        "application/json",
        None,
        None,
        {},
        names=NAMES,
        arrived=time.time(),
    )


async def dead_letter(url: str, commands: list[Envelope]) -> None:
    publisher = Publisher(url)
    publisher.open()
    outbox = Replies(publisher, NAMES, Metrics(), on_returned=lambda: None)
    refused = Refused(Code.FAILED, reason="internal", detail="KeyError")
    await asyncio.gather(*(outbox.dead_letter(one, refused) for one in commands))
    await publisher.close()


async def _publish(url: str, commands: list[Envelope]) -> float:
    publisher = Publisher(url)
    publisher.open()
    publications = [again(one, "", SERVERS_QUEUE, one.body, {}) for one in commands]
    await publisher.publish(publications[0])  # connected
    started = time.monotonic()
    await asyncio.gather(*(publisher.publish(one) for one in publications))
    seconds = time.monotonic() - started
    await publisher.close()
    return len(commands) / seconds

"""The gateway: requests by wrk beside a bare FastAPI application, and a thousand streams of updates."""

import asyncio
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from messages.updates import StatusUpdate
from messages.wire import encode
from sandbox.processes import Server, free_ports, install_debian, listens
from tests.bench.measure import CORE, Figures
from tests.bench.site import PYTHON, Bench
from workers.amqp.envelope import Publication
from workers.amqp.publisher import Publisher

#: Connections of wrk, each with one request under way: for the rate, and for the times, which
#: would tell of nothing but waiting where it is as fast as it can be.
MANY, FEW = 64, 4
#: Of each run of wrk; streams of updates.
SECONDS, STREAMS = 10, 1000
#: The project's id of `tenant-a` in the stub of Keystone.
_PROJECT = f"{1:032d}"
_ASK = """
wrk.method = "POST"
wrk.body = '{"os-getVNCConsole": {"type": "novnc"}}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-Tenant-Id"] = "tenant-a"
"""
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def gateway(bench: Bench) -> Figures:
    """Ask the gateway, behind which a worker answers at once, and a bare application in turns.

    `rate`, `cpu`, `median` and `p99` (ms) are the gateway's, `bare_*` the other's. `streams_*` tell of
    streams of updates: kB of memory each, and seconds until all have heard of one update.
    """
    install_debian(["wrk"], lambda: shutil.which("wrk") is not None, "wrk")
    url = bench.vhost()
    settings = bench.settings(url)
    with (
        _served(bench, ["tests.bench.bare_fastapi"], {}, port_as_word=True) as bare,
        _served(bench, ["workers", "gateway"], settings) as ours,
        _worker(bench, settings),
    ):
        found = {f"bare_{name}": value for name, value in _asked(bench, *bare).items()}
        found |= _asked(bench, *ours)
        server, port = ours
        number = int(STREAMS * max(bench.scale, 0.1))
        return found | asyncio.run(_streams(url, server.pid, port, number))


@contextmanager
def _served(
    bench: Bench, words: list[str], settings: dict[str, str], *, port_as_word: bool = False
) -> Iterator[tuple[Server, int]]:
    """Run what listens on a port, on the core of what is measured."""
    (port,) = free_ports(1)
    command = ["taskset", "-c", CORE, PYTHON, "-m", *words, *([str(port)] if port_as_word else [])]
    listen = {"ECS_GATEWAY_LISTEN": f"127.0.0.1:{port}", "ECS_LOG_LEVEL": "warning"}
    log = bench.folder / f"{uuid.uuid4().hex}.log"
    server = Server(command, log, env=settings | listen, cwd=bench.folder)
    try:
        server.wait_until(lambda: listens(port), 30, words[-1])
        yield server, port
    finally:
        server.stop()


@contextmanager
def _worker(bench: Bench, settings: dict[str, str]) -> Iterator[None]:
    """Run a worker that answers at once, beside the broker."""
    log = bench.folder / f"{uuid.uuid4().hex}.log"
    env = settings | {"ECS_LOG_LEVEL": "warning"}
    server = Server([PYTHON, "-m", "tests.bench.echo_worker"], log, env=env, cwd=bench.folder)
    try:
        yield
    finally:
        server.stop()


def _asked(bench: Bench, server: Server, port: int) -> Figures:
    """Let wrk ask: to warm up, by many connections, by few."""
    script = bench.folder / "ask.lua"
    script.write_text(_ASK, encoding="utf-8")
    seconds = max(int(SECONDS * bench.scale), 2)
    _wrk(script, port, MANY, 2)
    process = psutil.Process(server.pid)
    before = process.cpu_times()
    said = _wrk(script, port, MANY, seconds)
    after = process.cpu_times()
    (answered,) = re.findall(r"(\d+) requests in", said)
    cpu = after.user + after.system - before.user - before.system
    said_of_few = _wrk(script, port, FEW, seconds)
    if failed := re.findall(r"Non-2xx.*|Socket errors.*", said + said_of_few):
        raise RuntimeError(f"{failed}: {server.log.read_text()[-1000:]}")
    times = dict(re.findall(r"^\s+(50|99)%\s+(\S+)$", said_of_few, re.MULTILINE))
    return {
        "rate": float(re.findall(r"Requests/sec:\s+(\S+)", said)[0]),
        "cpu": cpu / int(answered) * 1e6,
        "median": _milliseconds(times["50"]),
        "p99": _milliseconds(times["99"]),
        "memory": process.memory_info().rss / 1e6,
    }


def _wrk(script: Path, port: int, connections: int, seconds: int) -> str:
    address = f"http://127.0.0.1:{port}/v1/servers/{uuid.uuid4()}/action"
    return subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--latency",
            "-s",
            str(script),
            address,
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]


async def _streams(url: str, pid: int, port: int, number: int) -> Figures:
    """Open streams of one tenant's updates, publish one, and await it in all of them."""
    process = psutil.Process(pid)
    before = process.memory_info().rss
    request = "GET /v1/events HTTP/1.1\r\nHost: localhost\r\nX-Tenant-Id: tenant-a\r\n\r\n"
    opened = []
    for _ in range(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request.encode())
        status = await asyncio.wait_for(reader.readline(), 30)
        if b"200" not in status:
            raise RuntimeError(f"no stream: {status!r}")
        opened.append((reader, writer))
    await asyncio.sleep(1)
    memory = process.memory_info().rss - before
    publisher = Publisher(url)
    publisher.open()
    server_id, begun = str(uuid.uuid4()), time.monotonic()
    await publisher.publish(_update(server_id))
    heard = (reader.readuntil(server_id.encode()) for reader, _ in opened)
    await asyncio.wait_for(asyncio.gather(*heard), 60)
    seconds = time.monotonic() - begun
    await publisher.close()
    for _, writer in opened:
        writer.close()
    return {"streams_kB": memory / number / 1000, "streams_heard_seconds": seconds}


def _update(server_id: str) -> Publication:
    body = StatusUpdate(
        resource="server",
        id=server_id,
        operation="server.action",
        action="os-start",
        status="ACTIVE",
        translation=None,
        final=True,
        message_id="m",
        tenant_id=_PROJECT,
        user_id=None,
        time="2026-11-23T10:00:00.000Z",
    )
    encoded = encode(body.model_dump(by_alias=True))
    return Publication(
        "ecs.status", f"server.{server_id}", encoded, message_id=uuid.uuid4().hex, mandatory=False
    )

"""Runs everything and prints a table; `--quick` with a tenth of the messages."""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from sandbox.broker import PrivateBroker
from sandbox.processes import Server, free_ports, listens
from tests.bench.measure import Cost, leave_core, preload, replies, run
from tests.bench.replays import replayed
from tests.bench.rubbish import rubbish
from tests.support.workshop import REPOSITORY
from workers.amqp.topology import declare, topology
from workers.telemetry import configure_logs

PYTHON = sys.executable
CONSOLE = {"os-getVNCConsole": {"type": "novnc"}}
REBOOT = {"reboot": {"type": "HARD"}}


@dataclass
class Bench:
    """Where it runs, and how large."""

    broker: PrivateBroker
    folder: Path
    scale: float
    clouds_yaml: Path

    def number(self, full: int) -> int:
        """Never less than a few prefetch windows: within one, all answers may come in one burst."""
        return max(int(full * self.scale), 1500)

    def ours(self, module: str, number: int, body: dict[str, object], **settings: str) -> Cost:
        """Our worker, with so many actions waiting."""
        url = self._vhost()
        declare(url, topology())
        # Seconds for what the journal keeps: a file of its own for each run.
        env = {
            "ECS_BROKER_URL": url,
            "ECS_JOURNAL_URL": f"sqlite:///{self.folder}/{uuid.uuid4().hex}.db",
            "OS_CLOUD": "ecs-worker",
            "OS_CLIENT_CONFIG_FILE": str(self.clouds_yaml),
            "ECS_TRUST_PUBLISHERS": "true",
            "ECS_HTTP_PORT": "0",
            **settings,
        }
        messages = [
            {
                "operation": "server.action",
                "tenant_id": "tenant-a",
                "server_id": str(uuid.uuid4()),
                "body": body,
            }
            for _ in range(number)
        ]
        with replies(url) as (name, count):
            preload(url, "ecs.commands", "server.action", messages, reply_to=name)
            return run([PYTHON, "-m", *module.split()], self.folder, env, count, number)

    def celery(self, task: str, number: int, threads: int, **env: str) -> Cost:
        """Celery, with the same jobs waiting."""
        url = self._vhost()
        command = [
            PYTHON,
            "-m",
            "celery",
            "-A",
            "tests.bench.celery_app",
            "worker",
            "-P",
            "threads",
            "-c",
            str(threads),
            "-l",
            "INFO",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
        env |= {
            "BENCH_BROKER": url,
            "OS_CLOUD": "ecs-worker",
            "OS_CLIENT_CONFIG_FILE": str(self.clouds_yaml),
            "BENCH_SECONDS": env.get("BENCH_SECONDS", "0"),
        }
        with replies(url) as (name, count):
            self._send(url, task, number, name)
            return run(command, self.folder, env, count, number)

    def _send(self, url: str, task: str, number: int, reply_to: str) -> None:
        """Tasks as Celery's own producer writes them, in the queue that its worker declares."""
        from celery import Celery  # noqa: PLC0415
        from kombu import Connection, Exchange, Queue  # noqa: PLC0415

        app = Celery("producer", broker=url)
        with Connection(url) as connection:
            queue = Queue(
                "bench",
                Exchange("bench", "direct"),
                "bench",
                queue_arguments={"x-queue-type": "quorum"},
            )
            queue(connection.channel()).declare()
            producer = connection.Producer()
            for _ in range(number):
                message = {
                    "operation": "server.action",
                    "tenant_id": "tenant-a",
                    "server_id": str(uuid.uuid4()),
                    "body": REBOOT,
                }
                app.send_task(
                    task,
                    args=[message],
                    exchange="bench",
                    routing_key="bench",
                    reply_to=reply_to,
                    producer=producer,
                )
        app.close()

    def _vhost(self) -> str:
        return self.broker.add_vhost(f"bench-{uuid.uuid4().hex[:8]}")


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the messages: shows that it runs"
    )
    parser.add_argument("--replays", action="store_true", help="only the rate of replays")
    parser.add_argument(
        "--rubbish", action="store_true", help="only what lists wait beside rubbish"
    )
    wanted = parser.parse_args()
    configure_logs("console", "warning")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ecs-bench-")))
        if wanted.rubbish:
            rubbish(folder)
            return
        leave_core()
        broker = stack.enter_context(PrivateBroker())
        bench = Bench(
            broker, folder, 0.1 if wanted.quick else 1.0, stack.enter_context(stub_nova(folder))
        )
        if not wanted.replays:
            show(bench)
        show_replays(bench)


def show_replays(bench: Bench) -> None:
    """Ten thousand dead letters, replayed by the command."""
    number = bench.number(10000)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
    rates = replayed(bench.broker, bench.folder, number, env)
    print(
        f"\n{number:,} dead letters replayed: {rates.again:,.0f}/s, {rates.again / rates.plain:.0%} of the"
    )
    print(
        f"{rates.plain:,.0f}/s of the same publisher alone; with the command's start {rates.command:,.0f}/s"
    )


def show(bench: Bench) -> None:
    """Each job in our worker and in Celery, one after the other."""
    print(f"{platform.platform()}, Python {platform.python_version()}, {psutil.cpu_count()} cores;")
    print("the measured process has one of them to itself\n", flush=True)
    echo = bench.celery("echo", bench.number(6000), 8)
    line("echo, Celery (8 threads)", echo)
    plain = bench.ours("tests.bench.echo_worker", bench.number(40000), CONSOLE)
    line("echo, ecs-worker without journal", plain, echo, "aim 8 times the rate, 100 µs")
    kept = bench.ours("tests.bench.echo_worker", bench.number(20000), REBOOT)
    line("echo, ecs-worker with journal (SQLite)", kept, echo, "aim 5 times the rate")
    sdk = bench.celery("server.action", int(1500 * max(bench.scale, 0.2)), 32)
    line("server.action, Celery (32 threads, SDK helpers)", sdk)
    action = bench.ours("workers run", bench.number(3000), REBOOT)
    line("server.action, ecs-worker, journal and updates", action, sdk, "aim 2,500 µs")
    slow = bench.ours(
        "tests.bench.echo_worker",
        bench.number(40000),
        CONSOLE,
        BENCH_SECONDS="0.1",
        ECS_PREFETCH="400",
    )
    line(
        "400 in flight, 100 ms each, ecs-worker",
        slow,
        note=f"{slow.rate / 4000:.0%} of 4,000/s; aim 90 %",
    )
    print(
        f"\nmemory of a worker before openstacksdk is imported: {memory(bench, '0'):.1f} MB (aim 45), "
        f"{memory(bench, '1'):.1f} MB with the HTTP port"
    )


def line(what: str, cost: Cost, beside: Cost | None = None, note: str = "") -> None:
    """A row of the table."""
    ratio = (
        f"{cost.rate / beside.rate:5.1f} x rate, {beside.cpu / cost.cpu:5.1f} x less CPU"
        if beside
        else ""
    )
    print(
        f"{what:<50} {cost.rate:8,.0f}/s {cost.cpu:8,.0f} µs {cost.memory:6.0f} MiB  {ratio}  {note}",
        flush=True,
    )


def memory(bench: Bench, http_port: str) -> float:
    """MB (10^6) of a worker that consumes and has nothing to do."""
    url = bench.broker.add_vhost(f"bench-{uuid.uuid4().hex[:8]}")
    declare(url, topology())
    (port,) = free_ports(1)
    env = {
        "ECS_BROKER_URL": url,
        "ECS_JOURNAL_URL": f"sqlite:///{bench.folder}/{uuid.uuid4().hex}.db",
        "OS_CLOUD": "ecs-worker",
        "OS_CLIENT_CONFIG_FILE": str(bench.clouds_yaml),
        "ECS_TRUST_PUBLISHERS": "true",
        "ECS_HTTP_PORT": str(port) if http_port == "1" else "0",
    }
    # The first start migrates the journal, which takes memory once in a version's life; the second
    # is everyday.
    _idle(bench, env)
    return _idle(bench, env)


def _idle(bench: Bench, env: dict[str, str]) -> float:
    log = bench.folder / f"{uuid.uuid4().hex}.log"
    server = Server([PYTHON, "-m", "workers", "run"], log, env=env, cwd=bench.folder)
    try:
        server.wait_until(
            lambda: log.exists() and "worker.started" in log.read_text(), 30, "the worker"
        )
        time.sleep(2)
        return psutil.Process(server.pid).memory_info().rss / 1e6
    finally:
        server.stop()


@contextmanager
def stub_nova(folder: Path) -> Iterator[Path]:
    """Its clouds.yaml, while it runs."""
    (port,) = free_ports(1)
    server = Server([PYTHON, "-m", "tests.bench.stub_nova", str(port)], folder / "nova.log")
    server.wait_until(lambda: listens(port), 20, "the stub of Nova")
    auth = {
        "auth_url": f"http://127.0.0.1:{port}/identity/v3",
        "username": "ecs-worker",
        "password": "none",
        "project_name": "tenant-a",
        "user_domain_id": "default",
        "project_domain_id": "default",
    }
    path = folder / "clouds.yaml"
    path.write_text(
        json.dumps({"clouds": {"ecs-worker": {"auth": auth, "region_name": "RegionOne"}}})
    )
    yield path
    server.stop()


if __name__ == "__main__":
    main()

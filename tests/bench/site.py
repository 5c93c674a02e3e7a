"""Makes the place where the benchmark runs, and the processes that it measures there."""

import json
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from kombu import Connection

from sandbox.broker import PrivateBroker
from sandbox.processes import Server, free_ports, listens
from tests.bench.measure import CORE, Cost, preload, replies, run
from tests.support.names import INPUT_QUEUES, SERVERS_QUEUE
from workers.amqp.topology import declare, topology

PYTHON = sys.executable
#: Bodies of `server.action`: a console leaves no entry in the journal, a reboot does.
CONSOLE = {"os-getVNCConsole": {"type": "novnc"}}
REBOOT = {"reboot": {"type": "HARD"}}


@dataclass(frozen=True)
class Bench:
    """A broker and a stub of Nova; `scale` is the part of the messages that a run has."""

    broker: PrivateBroker
    folder: Path
    scale: float
    clouds_yaml: Path
    nova_url: str

    def number(self, full: int) -> int:
        """Never less than a few prefetch windows: within one, all answers may come in one burst."""
        return max(int(full * self.scale), min(full, 1500))

    def vhost(self) -> str:
        """Make a virtual host with the worker's topology; returns its URL."""
        url = self.broker.add_vhost(f"bench-{uuid.uuid4().hex[:8]}")
        declare(url, topology())
        return url

    def settings(self, url: str) -> dict[str, str]:
        """Return a worker's settings, with a journal of its own."""
        return {
            "ECS_BROKER_URL": url,
            "ECS_JOURNAL_URL": f"sqlite:///{self.folder}/{uuid.uuid4().hex}.db",
            "OS_CLOUD": "ecs-worker",
            "OS_CLIENT_CONFIG_FILE": str(self.clouds_yaml),
            "ECS_TRUST_PUBLISHERS": "true",
            "ECS_HTTP_PORT": "0",
        }

    def ours(self, module: str, number: int, body: Mapping[str, object], **settings: str) -> Cost:
        """Run our worker with so many actions waiting. `module` may have arguments."""
        url = self.vhost()
        words = [PYTHON, "-m", *module.split()]
        return self._answered(url, words, number, body, self.settings(url) | settings)

    def bare(self, number: int) -> Cost:
        """Run the bare client with so many actions waiting."""
        url = self.vhost()
        env = {"BENCH_BROKER": url, "BENCH_QUEUE": SERVERS_QUEUE}
        return self._answered(url, [PYTHON, "-m", "tests.bench.bare_echo"], number, CONSOLE, env)

    def celery(self, task: str, number: int, threads: int) -> Cost:
        """Run Celery with as many jobs waiting."""
        url = self.broker.add_vhost(f"bench-{uuid.uuid4().hex[:8]}")
        application = ["-m", "celery", "-A", "tests.bench.celery_app", "worker"]
        pool = ["-P", "threads", "-c", str(threads)]
        quiet = ["-l", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        env = {
            "BENCH_BROKER": url,
            "OS_CLOUD": "ecs-worker",
            "OS_CLIENT_CONFIG_FILE": str(self.clouds_yaml),
        }
        with replies(url) as (name, count):
            _send_tasks(url, task, number, name)
            return run([PYTHON, *application, *pool, *quiet], self.folder, env, count, number)

    @contextmanager
    def worker(self, module: str, settings: Mapping[str, str]) -> Iterator[tuple[Server, float]]:
        """Run a worker; yields it with the seconds from its start until it consumed all queues."""
        command = ["taskset", "-c", CORE, PYTHON, "-m", *module.split()]
        with Connection(settings["ECS_BROKER_URL"], heartbeat=0) as connection:
            channel = connection.channel()

            def consumes() -> bool:
                found = [channel.queue_declare(one, passive=True) for one in INPUT_QUEUES]
                return all(one.consumer_count for one in found)

            log = self.folder / f"{uuid.uuid4().hex}.log"
            server = Server(command, log, env=settings, cwd=self.folder)
            try:
                limit = time.monotonic() + 60
                while not consumes():
                    if not server.alive or time.monotonic() > limit:
                        raise RuntimeError(f"no worker consumes: {log.read_text()[-2000:]}")
                    time.sleep(0.005)
                # By the wall clock, in which the kernel says when the process began.
                seconds = time.time() - psutil.Process(server.pid).create_time()
                yield server, seconds
            finally:
                server.stop()

    def _answered(
        self,
        url: str,
        command: Sequence[str],
        number: int,
        body: Mapping[str, object],
        env: dict[str, str],
    ) -> Cost:
        messages = [action(str(uuid.uuid4()), body) for _ in range(number)]
        with replies(url) as (name, count):
            preload(url, "ecs.commands", "server.action", messages, reply_to=name)
            return run(command, self.folder, env, count, number)


def action(server_id: str, body: Mapping[str, object]) -> dict[str, object]:
    """Return a `server.action` as it goes over the wire."""
    return {
        "operation": "server.action",
        "tenant_id": "tenant-a",
        "server_id": server_id,
        "body": body,
    }


def _send_tasks(url: str, task: str, number: int, reply_to: str) -> None:
    """Send tasks as Celery's own producer writes them, to the queue that its worker declares."""
    from celery import Celery  # noqa: PLC0415
    from kombu import Exchange, Queue  # noqa: PLC0415

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
            app.send_task(
                task,
                args=[action(str(uuid.uuid4()), REBOOT)],
                exchange="bench",
                routing_key="bench",
                reply_to=reply_to,
                producer=producer,
            )
    app.close()


@contextmanager
def stub_nova(folder: Path, *words: str) -> Iterator[tuple[str, Path]]:
    """Run the stub of Nova; yields its URL and a clouds.yaml for it. `words` are more arguments."""
    (port,) = free_ports(1)
    name = f"nova-{uuid.uuid4().hex[:8]}"
    command = [PYTHON, "-m", "tests.bench.stub_nova", str(port), *words]
    server = Server(command, folder / f"{name}.log")
    try:
        server.wait_until(lambda: listens(port), 20, "the stub of Nova")
        url = f"http://127.0.0.1:{port}"
        auth = {
            "auth_url": f"{url}/identity/v3",
            "username": "ecs-worker",
            "password": "none",
            "project_name": "tenant-a",
            "user_domain_id": "default",
            "project_domain_id": "default",
        }
        path = folder / f"{name}.yaml"
        path.write_text(
            json.dumps({"clouds": {"ecs-worker": {"auth": auth, "region_name": "RegionOne"}}})
        )
        yield url, path
    finally:
        server.stop()

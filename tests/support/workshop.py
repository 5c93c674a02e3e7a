"""A worker with everything around it: what an end-to-end test works with."""

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from sandbox.control_plane import ControlPlane
from sandbox.documents import REGION
from sandbox.openstack import SimulatedOpenStack
from sandbox.worker import WorkerProcess
from tests.support import REPOSITORY
from tests.support.fork_server import FORK_SERVER
from tests.support.tenant import Tenant
from tests.support.waiting import eventually


class Workshop:
    """Starts workers and requesters and ends them; a context manager."""

    def __init__(
        self, broker_url: str, cloud: SimulatedOpenStack | ControlPlane, folder: Path
    ) -> None:
        self.broker_url = broker_url
        self.cloud = cloud
        self.folder = folder
        self.settings = {
            "ECS_BROKER_URL": broker_url,
            "ECS_JOURNAL_URL": f"sqlite:///{folder}/journal.db",
            "OS_CLIENT_CONFIG_FILE": str(cloud.clouds_yaml),
            "OS_CLOUD": "ecs-worker",
            "ECS_ADMIN_CLOUD": "admin",
            "ECS_TRUST_PUBLISHERS": "true",
            "ECS_REGION": REGION,
        }
        self._stack = ExitStack()
        self._tenants: dict[str, Tenant] = {}
        self._workers: list[WorkerProcess] = []

    def worker(
        self, *, wait: bool = True, module: str = "workers", **settings: str
    ) -> WorkerProcess:
        """One more worker, ready unless it is not waited for."""
        worker = WorkerProcess(
            self.settings | settings, self.folder, f"worker-{len(self._workers) + 1}", module
        )
        self._workers.append(worker)
        self._stack.callback(worker.stop)
        return worker.start(wait=wait)

    @property
    def running(self) -> WorkerProcess:
        """The worker that was started last."""
        return self._workers[-1]

    def tenant(self, name: str = "tenant-a") -> Tenant:
        """A tenant's own view of the cloud."""
        if name not in self._tenants:
            self._tenants[name] = Tenant(self.cloud.clouds_yaml, name)
            self._stack.callback(self._tenants[name].close)
        return self._tenants[name]

    def command(self, *words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run `ecs-worker` with these words."""
        environment = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(self.folder),
        }
        command = [sys.executable, "-m", "workers", *words]
        return FORK_SERVER.run(command, self.folder, environment | self.settings | settings, 60)

    def logs(self) -> str:
        """Return what all workers have logged."""
        return "".join(
            path.read_text(errors="replace") for path in sorted(self.folder.glob("worker-*.log"))
        )

    def calls_of(self, message_id: str) -> Counter[str]:
        """The OpenStack calls that a request cost, by HTTP method, as the worker logs them at its
        end.
        """
        found: list[Counter[str]] = []

        def is_told() -> bool:
            lines = (
                json.loads(line) for line in self.logs().splitlines() if f'"{message_id}"' in line
            )
            found.extend(
                Counter(line["openstack_calls"])
                for line in lines
                if line.get("event") == "request.done"
            )
            return bool(found)

        eventually(is_told)
        return found[0]

    def journal_dump(self) -> str:
        """Everything in the SQLite journal, as SQL."""
        with sqlite3.connect(f"file:{self.folder}/journal.db?mode=ro", uri=True) as journal:
            return "\n".join(journal.iterdump())

    def __enter__(self) -> "Workshop":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

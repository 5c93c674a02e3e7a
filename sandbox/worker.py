"""The worker as a process of its own."""

import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from sandbox.processes import Server, free_ports


class WorkerProcess:
    """`ecs-worker run` with these settings, in an empty folder; logs go to `log`."""

    def __init__(
        self,
        settings: Mapping[str, str],
        folder: Path,
        name: str = "worker",
        module: str = "workers",
    ) -> None:
        """`module` is what is run with the word `run`."""
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / f"{name}.log"
        self._folder = folder
        self._command = [sys.executable, "-m", module, "run"]
        # What the machine's own environment says about clouds and workers is not meant for this
        # one.
        inherited: dict[str, str | None] = {
            key: None for key in os.environ if key.startswith(("OS_", "ECS_"))
        }
        self._settings = inherited | {"ECS_HTTP_PORT": str(port)} | dict(settings)
        self._server: Server | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._server is not None
        return self._server.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._server is not None and self._server.alive

    def start(self, *, wait: bool = True) -> "WorkerProcess":
        """Start it, and wait until it is ready."""
        self._server = Server(self._command, self.log, env=self._settings, cwd=self._folder)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, seconds: float = 30.0) -> None:
        """Wait until it consumes."""
        assert self._server is not None
        self._server.wait_until(lambda: not self.problems(), seconds, "the worker")

    def problems(self) -> list[str]:
        """What keeps it from working, as it says."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:
                found: list[str] = json.loads(answer.read())["problems"]
        except urllib.error.HTTPError as error:
            return list(json.loads(error.read())["problems"]) or ["not ready"]
        except OSError as error:
            return [str(error)]
        return found

    def metrics(self) -> str:
        """Its metrics in Prometheus' text format."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def kill(self) -> None:
        """SIGKILL."""
        assert self._server is not None
        self._server.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._server is not None
        self._server.signal(number)

    def terminate(self) -> int:
        """SIGTERM; the exit status once it has drained."""
        assert self._server is not None
        self._server.signal(signal.SIGTERM)
        return self._server.wait(60)

    def stop(self) -> None:
        """End it, however."""
        if self._server is not None:
            self._server.stop()

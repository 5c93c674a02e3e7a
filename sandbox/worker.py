"""The worker, and whatever answers as it does over HTTP, as a process of its own."""

import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from sandbox.processes import Server, free_ports


class ReadyProcess:
    """A command of ecs-worker's that says at `url` whether it is ready, run in a folder that is
    there; logs go to `log`.
    """

    #: What it is called where it does not become ready.
    what: str

    def __init__(
        self, command: list[str], url: str, log: Path, settings: Mapping[str, str]
    ) -> None:
        self.url = url
        self.log = log
        self._command = [sys.executable, "-m", *command]
        # What the machine's own environment says about clouds and workers is not meant for this
        # one.
        inherited: dict[str, str | None] = {
            key: None for key in os.environ if key.startswith(("OS_", "ECS_"))
        }
        self._settings = inherited | dict(settings)
        self._server: Server | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._server is not None
        return self._server.pid

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._server is not None and self._server.alive

    def start(self, *, wait: bool = True) -> Self:
        """Start it, and wait until it is ready."""
        self._server = Server(self._command, self.log, env=self._settings, cwd=self.log.parent)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, seconds: float = 60.0) -> None:
        """Wait until it is ready: a worker consumes then, a gateway serves with a broker."""
        assert self._server is not None
        self._server.wait_until(lambda: not self.problems(), seconds, self.what)

    def problems(self) -> list[str]:
        """Return what keeps it from working, by its own health check."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:
                found: list[str] = json.loads(answer.read())["problems"]
        except urllib.error.HTTPError as error:
            return list(json.loads(error.read())["problems"]) or ["not ready"]
        except OSError as error:
            return [str(error)]
        return found

    def metrics(self) -> str:
        """Return its metrics in Prometheus' text format."""
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

    def wait(self, seconds: float = 60.0) -> int:
        """The exit status once it has ended by itself."""
        assert self._server is not None
        return self._server.wait(seconds)

    def terminate(self) -> int:
        """SIGTERM; the exit status once it has drained."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def stop(self) -> None:
        """Stop it, by SIGKILL where it does not end by itself."""
        if self._server is not None:
            self._server.stop()


class WorkerProcess(ReadyProcess):
    """`ecs-worker run` with these settings."""

    what = "the worker"

    def __init__(
        self,
        settings: Mapping[str, str],
        folder: Path,
        name: str = "worker",
        module: str = "workers",
    ) -> None:
        """`module` is what is run with the word `run`."""
        (port,) = free_ports(1)
        super().__init__(
            [module, "run"],
            f"http://127.0.0.1:{port}",
            folder / f"{name}.log",
            {"ECS_HTTP_PORT": str(port)} | dict(settings),
        )

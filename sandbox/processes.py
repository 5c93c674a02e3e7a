"""Starting and stopping servers of our own."""

import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import IO, Protocol, Self

_PORTS = range(12000, 32000)


class SandboxError(Exception):
    """A private server cannot be had; the text says what to do."""


class PrivateServer(ABC):
    """Anything that runs from `start` to `stop`; a context manager."""

    @abstractmethod
    def start(self) -> Self:
        """Start it and wait until it can be used."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_ports(number: int) -> list[int]:
    """So many ports of 127.0.0.1 that nobody uses.

    Below those that the kernel gives to outgoing connections: one of them must not sit on a
    server's port in the second in which the server is restarted.
    """
    found: list[int] = []
    candidates = iter(random.sample(_PORTS, len(_PORTS)))
    with ExitStack() as stack:
        while len(found) < number:
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", port := next(candidates)))
                found.append(port)
    return found


def install_debian(packages: Iterable[str], found: Callable[[], bool], what: str) -> None:
    """Install Debian packages unless what they give is there; their services are kept from
    starting.

    Raises `SandboxError` naming the packages where we may not install.
    """
    if not found():
        with one_at_a_time("install"):
            if not found():
                _install(list(packages), found, what)


@contextlib.contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """A block in which no other process of this user does the same."""
    with Path(tempfile.gettempdir(), f"ecs-worker-{what}-{os.geteuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(names: list[str], found: Callable[[], bool], what: str) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SandboxError(
            f"{what} is missing: install {' '.join(names)} (as root: apt-get install {' '.join(names)})"
        )
    print(f"installing {' '.join(names)} ...", file=sys.stderr, flush=True)
    policy = Path("/usr/sbin/policy-rc.d")
    guard = not policy.exists()
    if guard:  # Debian's scripts ask it whether they may start the service
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *names],
        ):
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise SandboxError(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")
    finally:
        if guard:
            policy.unlink()
    if not found():
        raise SandboxError(f"{what} is still missing after installing {' '.join(names)}")


class Guardian(Protocol):
    """A process that runs `sandbox.guardian`, as `subprocess.Popen` has it."""

    stdin: IO[bytes] | None
    stdout: IO[bytes] | None

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status at the end; raises `subprocess.TimeoutExpired`."""


def start_guardian(arguments: list[str], cwd: Path, env: Mapping[str, str]) -> Guardian:
    """Start a guardian: the log, and the command."""
    return subprocess.Popen(
        [sys.executable, "-m", "sandbox.guardian", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=cwd,
        env=env,
        start_new_session=True,
    )


class Server:
    """A server process and its group, ended with us however we end."""

    #: Starts the guardian; tests have one that forks (`tests.support.fork_server`).
    start_guardian = staticmethod(start_guardian)

    def __init__(
        self,
        command: list[str],
        log: Path,
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start it. `env` is added to our own environment; None takes a variable away."""
        self.log = log
        wanted = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **(env or {})}
        self._guardian = self.start_guardian(
            [str(log), *command],
            cwd or Path(__file__).parents[1],
            {name: value for name, value in wanted.items() if value is not None},
        )
        assert self._guardian.stdout is not None
        line = self._guardian.stdout.readline()
        if not line:
            raise SandboxError(f"{command[0]} does not start; see {log}")
        #: The process id, and its group's.
        self.pid = int(line)

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._guardian.poll() is None

    def wait_until(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until it answers, or `SandboxError` with the end of its log."""
        limit = time.monotonic() + seconds
        while not ready():
            if not self.alive or time.monotonic() > limit:
                tail = self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""
                raise SandboxError(
                    f"{what} {'is not ready' if self.alive else 'has ended'}: {tail}"
                )
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, unless it has ended."""
        # Its number may be another's by now: where many processes come and go, it is within
        # minutes. Only where the guardian itself was killed is the group without anybody who has
        # seen to its end.
        ended = self._guardian.poll()
        if ended is not None and ended >= 0:
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        self.signal(signal.SIGKILL)
        self._guardian.wait(10)

    def wait(self, seconds: float) -> int:
        """The exit status once it has ended by itself (128 + N after signal N)."""
        return self._guardian.wait(seconds)

    def stop(self) -> None:
        """SIGTERM, after a grace SIGKILL, to the whole group."""
        assert self._guardian.stdin is not None
        if self.alive:
            self._guardian.stdin.close()
            self._guardian.wait(30)
        self.signal(signal.SIGKILL)


@contextlib.contextmanager
def until_stopped() -> Iterator[None]:
    """A block that Ctrl-C, SIGTERM or the end of the terminal leaves, as if it had come to its end.

    A second signal does not interrupt what the first one has begun to stop. For the main thread.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(_number: int, _frame: FrameType | None) -> None:
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = [signal.signal(one, stop) for one in numbers]
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether somebody accepts connections on a port."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True

"""A process that has imported ecs-worker and forks: most of what tests start begins in it.

The suite starts thousands of workers, gateways, and commands, and an interpreter that starts with
their imports takes more CPU time than most of them take afterwards. Here a process imports once,
and a fork of it goes on as `python -m MODULE` would. What is asked for with an environment that an
interpreter reads at its start is started anew. `pytest --no-fork-server` starts everything anew.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from sandbox import guardian
from tests.support import REPOSITORY

#: Packages whose modules are imported beforehand, and modules of others that are imported late.
_PACKAGES = ("messages", "handlers", "workers", "ecs_client", "gateway", "sandbox.openstack")
_LATE = ("openstack.connection", "alembic.command", "uvicorn", "rich.console", "rich.table")
#: Beginnings of names of variables that an interpreter or a library reads at its start.
_READ_AT_START = (
    *("PYTHON", "LD_", "LC_", "LANG", "MALLOC_"),
    *("TYPER_", "TERMINAL_WIDTH", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"),
)
_LARGEST_REQUEST, _MOST_FILES = 1 << 20, 1024


class Forked:
    """A process of the fork server's, as `subprocess.Popen` has it."""

    def __init__(self, status: int, stdin: IO[bytes] | None, stdout: IO[bytes] | None) -> None:
        """`status`: a pipe with the process id in a line, and in another the exit status."""
        self.stdin, self.stdout = stdin, stdout
        self._status = os.fdopen(status, "rb")
        self.pid = int(self._status.readline() or b"0")
        assert self.pid, "the fork server has ended"
        self.returncode: int | None = None
        self._once = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status at the end; raises `subprocess.TimeoutExpired`."""
        with self._once:
            if self.returncode is None:
                if not select.select([self._status], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired("a forked process", timeout or 0)
                self.returncode = int(self._status.readline() or -signal.SIGKILL)
                self._status.close()
            return self.returncode


class ForkServer:
    """The client's side: starts the process when it is first needed; it ends with us."""

    def __init__(self) -> None:
        #: False: everything is started anew.
        self.is_used = True
        self._lock = threading.Lock()
        self._control: socket.socket | None = None

    def guardian(self, arguments: list[str], cwd: Path, env: Mapping[str, str]) -> Forked:
        """Start a guardian (`sandbox.processes.start_guardian`)."""
        stdin, our_stdin = os.pipe()
        our_stdout, stdout = os.pipe()
        # Without anything that must be started anew, it forks the server, too.
        what = "guardian and server" if can_fork(arguments[1:], env) else "guardian"
        status = self._fork(what, arguments, cwd, env, (stdin, stdout, 2))
        os.close(stdin)
        os.close(stdout)
        return Forked(status, os.fdopen(our_stdin, "wb", 0), os.fdopen(our_stdout, "rb"))

    def run(
        self, command: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, as `subprocess.run` does."""
        if not (self.is_used and can_fork(command, env)):
            return subprocess.run(
                command,
                cwd=cwd,
                env=env,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        with (
            Path(os.devnull).open("rb") as nothing,
            tempfile.TemporaryFile() as said,
            tempfile.TemporaryFile() as wrong,
        ):
            files = (nothing.fileno(), said.fileno(), wrong.fileno())
            process = Forked(self._fork("command", list(command), cwd, env, files), None, None)
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                raise
            told = []
            for file in (said, wrong):
                file.seek(0)
                told.append(file.read().decode())
            return subprocess.CompletedProcess(command, code, *told)

    def _fork(
        self, what: str, words: list[str], cwd: Path, env: Mapping[str, str], files: Sequence[int]
    ) -> int:
        """Return a pipe that tells of the process (see `Forked`)."""
        told, status = os.pipe()
        request = {"what": what, "words": words, "cwd": str(cwd), "env": dict(env)}
        with self._lock:
            if self._control is None:
                self._control = self._start()
            socket.send_fds(self._control, [json.dumps(request).encode()], [*files, status])
        os.close(status)
        return told

    @staticmethod
    def _start() -> socket.socket:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.fork_server", str(its.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                cwd=REPOSITORY,
                env={
                    name: value
                    for name, value in os.environ.items()
                    if not name.startswith(("OS_", "ECS_"))
                }
                | {"PYTHONPATH": str(REPOSITORY)},
                start_new_session=True,
            )
        return ours


#: The one of this process.
FORK_SERVER = ForkServer()


def can_fork(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Tell whether a fork of a process of ours is as good as a process of its own."""
    if list(command[:2]) != [sys.executable, "-m"]:
        return False
    special = {
        name: value
        for name, value in env.items()
        if name.startswith(_READ_AT_START) and os.environ.get(name) != value
    }
    # Nothing but the module search path of every test.
    return special.pop("PYTHONPATH", str(REPOSITORY)) == str(REPOSITORY) and not special


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; return None at the end, and in a fork what it is to do."""
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    #: Process ids and pipes by a descriptor of the process.
    forks: dict[int, tuple[int, int]] = {}
    while True:
        for key, _ in selector.select():
            if key.fd in forks:
                pid, status = forks.pop(key.fd)
                selector.unregister(key.fd)
                os.close(key.fd)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(BrokenPipeError):
                    os.write(status, f"{code}\n".encode())
                os.close(status)
                continue
            data, files, _, _ = socket.recv_fds(control, _LARGEST_REQUEST, 4)
            if not data:
                return None
            pid = os.fork()
            if pid == 0:
                selector.close()
                control.close()
                for number, one in enumerate(files[:3]):
                    os.dup2(one, number)
                os.closerange(3, _MOST_FILES)
                request: dict[str, Any] = json.loads(data)
                return request
            status = files[3]
            os.write(status, f"{pid}\n".encode())
            for one in files[:3]:
                os.close(one)
            descriptor = os.pidfd_open(pid)
            forks[descriptor] = (pid, status)
            selector.register(descriptor, selectors.EVENT_READ)


def _import_all() -> None:
    """Import what is forked for. No module of ours begins anything when it is imported."""
    for name in _PACKAGES:
        package = importlib.import_module(name)
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            # Alembic runs its files itself.
            if ".migrations" not in found.name and not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    for name in _LATE:
        importlib.import_module(name)
    # What is here stays: a fork that collects garbage need not copy it.
    gc.collect()
    gc.freeze()


def _become(request: dict[str, Any]) -> None:
    """Be the process that was asked for."""
    os.setsid()
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["cwd"])
    words: list[str] = request["words"]
    match request["what"]:
        case "guardian":
            sys.argv = ["guardian", *words]
            guardian.main()
        case "guardian and server":
            guardian.become_reaper()
            if pid := os.fork():
                sys.exit(guardian.guard(pid))
            os.setsid()
            log = os.open(words.pop(0), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            for number, one in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
                os.dup2(one, number)
            os.closerange(3, _MOST_FILES)
    module, sys.argv = words[2], words[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main() -> None:
    """Import, serve, and in each fork be what is asked for."""
    _import_all()
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        _become(request)


if __name__ == "__main__":
    main()

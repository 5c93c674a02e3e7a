"""What tests fork behaves as what is started anew."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.processes import Server, free_ports, listens
from tests.support import REPOSITORY
from tests.support.fork_server import ForkServer
from tests.support.waiting import eventually

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)}


#: One for all of this file: each imports for seconds.
FORKING, ANEW = ForkServer(), ForkServer()
ANEW.is_used = False


@pytest.fixture(params=[FORKING, ANEW], ids=["forked", "anew"])
def start(request: pytest.FixtureRequest) -> ForkServer:
    found: ForkServer = request.param
    return found


def run(start: ForkServer, folder: Path, *words: str, **more: str) -> tuple[int, str, str]:
    done = start.run([sys.executable, "-m", "workers", *words], folder, ENVIRONMENT | more, 60)
    return done.returncode, done.stdout, done.stderr


def test_output_and_exit_status_are_those_of_the_command(start: ForkServer, tmp_path: Path) -> None:
    code, out, err = run(start, tmp_path, "topology", "show", "-o", "json")
    assert (code, err) == (0, "")
    assert '"ecs.dead"' in out
    code, out, err = run(start, tmp_path, "no-such-command")
    assert (code, out) == (2, "")
    assert "no-such-command" in err


def test_folder_and_environment_are_its_own(start: ForkServer, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ECS_NAMESPACE=north\n")
    assert '"north.dead"' in run(start, tmp_path, "topology", "show", "-o", "json")[1]
    told = run(start, tmp_path, "topology", "show", "-o", "json", ECS_NAMESPACE="south")[1]
    assert '"south.dead"' in told
    assert '"north.dead"' not in told


def test_a_command_that_does_not_end_is_killed(start: ForkServer, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "http.server", str(free_ports(1)[0])]
    with pytest.raises(subprocess.TimeoutExpired):
        start.run(command, tmp_path, ENVIRONMENT, 3)
    assert not listens(int(command[-1]))


@pytest.fixture(params=[True, False], ids=["forked", "anew"])
def server(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Server]:
    """A Python server whose guardian, and itself, are forked, or only its guardian."""
    monkeypatch.setattr(Server, "start_guardian", staticmethod(FORKING.guardian))
    env = {} if request.param else {"PYTHONUTF8": "1"}
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    found = Server(command, tmp_path / "log", env=env, cwd=tmp_path)
    found.wait_until(lambda: listens(port), 30, "the server")
    yield found
    found.stop()
    assert not listens(port)


def test_a_server_is_killed_with_its_status(server: Server) -> None:
    assert server.alive
    server.signal(signal.SIGKILL)
    assert server.wait(20) == 128 + signal.SIGKILL
    assert not server.alive


def test_a_server_ends_with_its_guardians_input(server: Server) -> None:
    server.stop()
    eventually(lambda: not server.alive)
    assert server.log.exists()

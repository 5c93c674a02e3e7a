"""`ecs-worker probe`: what it says of a worker and a gateway, and that it is light."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.gateway import GatewayProcess
from sandbox.processes import free_ports
from tests.support.waiting import eventually
from tests.support.workshop import Workshop


def probed(folder: Path, *words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """A probe in a folder, in which there may be a `.env`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("ECS_")}
    return subprocess.run(
        [sys.executable, "-m", "workers", "probe", *words],
        cwd=folder,
        env=env | settings,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_worker_lives_without_a_broker_but_is_not_ready(workshop: Workshop) -> None:
    ready = workshop.worker()
    port = {"ECS_HTTP_PORT": ready.url.rpartition(":")[2]}
    for words in ((), ("live",), ("ready",), ("ready", "--timeout", "5")):
        done = probed(workshop.folder, *words, **port)
        said = f"{words[0] if words else 'live'}: ok\n"
        assert (done.returncode, done.stdout, done.stderr) == (0, said, "")

    lost = workshop.worker(wait=False, ECS_BROKER_URL="amqp://someone:secret-word@127.0.0.1:1//")
    port = {"ECS_HTTP_PORT": lost.url.rpartition(":")[2]}
    eventually(lambda: probed(workshop.folder, **port).returncode == 0, 60)
    eventually(lambda: "broker" in probed(workshop.folder, "ready", **port).stdout, 60)
    done = probed(workshop.folder, "ready", **port)
    assert done.returncode == 5
    assert done.stdout.startswith("ready: no: ")
    assert "secret-word" not in done.stdout
    as_json = probed(workshop.folder, "ready", "-o", "json", **port)
    (found,) = json.loads(as_json.stdout)
    assert (as_json.returncode, found["probe"], found["ok"]) == (5, "ready", False)
    assert found["problems"]


def test_a_gateway_is_asked_where_it_listens(workshop: Workshop) -> None:
    gateway = GatewayProcess(workshop.settings, workshop.folder)
    try:
        gateway.start()
        listen = gateway.url.removeprefix("http://")
        (workshop.folder / ".env").write_text(f"ECS_GATEWAY_LISTEN={listen}\n", encoding="utf-8")
        for what in ("live", "ready"):
            done = probed(workshop.folder, what, "--gateway")
            assert (done.returncode, done.stdout) == (0, f"{what}: ok\n")
    finally:
        gateway.stop()
    done = probed(workshop.folder, "--gateway")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(f"no gateway answers at {listen} (Connection refused)")


def test_the_address_is_read_as_the_worker_reads_it(tmp_path: Path) -> None:
    (first, second) = free_ports(2)
    (tmp_path / ".env").write_text(
        f"ECS_HTTP_PORT={first}\nECS_HTTP_HOST=0.0.0.0 # all\n", encoding="utf-8"
    )
    assert f"127.0.0.1:{first} " in probed(tmp_path).stderr
    assert f"127.0.0.1:{second} " in probed(tmp_path, ECS_HTTP_PORT=f" {second} ").stderr
    # Empty counts as unset, and hides the one in `.env`.
    assert "127.0.0.1:8080 " in probed(tmp_path, ECS_HTTP_PORT="", ECS_HTTP_HOST="").stderr
    assert f"[::1]:{first} " in probed(tmp_path, ECS_HTTP_HOST="::").stderr
    off = probed(tmp_path, ECS_HTTP_PORT="0")
    assert (off.returncode, "ECS_HTTP_PORT is 0" in off.stderr) == (3, True)
    for variable, words in (("ECS_HTTP_PORT", ()), ("ECS_GATEWAY_LISTEN", ("--gateway",))):
        done = probed(tmp_path, *words, **{variable: "127.0.0.1:many"})
        assert (done.returncode, done.stderr.startswith(f"{variable}: ")) == (3, True)


def test_what_hangs_or_speaks_no_http_is_no_life(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = {"ECS_HTTP_PORT": str(silent.getsockname()[1])}
        done = probed(tmp_path, "--timeout", "0.3", **port)
        assert (done.returncode, "within 0.3 s" in done.stderr) == (4, True)
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        subprocess.Popen(
            [sys.executable, "-m", "workers", "probe"],
            cwd=tmp_path,
            env=os.environ | {"ECS_HTTP_PORT": str(other.getsockname()[1])},
            stderr=subprocess.PIPE,
            text=True,
        ) as asking,
    ):
        connection, _ = other.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"220 mail.example ESMTP\r\n")
        _, said = asking.communicate(timeout=30)
        assert (asking.returncode, "speaks no HTTP" in said) == (4, True)


@pytest.mark.parametrize("words", [("maybe",), ("live", "ready"), ("--gateway", "live", "now")])
def test_other_words_are_usage(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert probed(tmp_path, *words).returncode == 2


def test_a_probe_imports_nothing_heavy(tmp_path: Path) -> None:
    # Each of these would be several times what the probe itself takes.
    script = (
        "import sys\nsys.argv = ['ecs-worker', 'probe']\n"
        "from workers.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'typer', 'structlog', 'pydantic', 'rich', 'asyncio', 'ssl', 'http', 'dotenv'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "[]\n"

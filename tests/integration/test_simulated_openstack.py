"""`ecs-worker simulated-openstack`, and the page that shows it."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sandbox.processes import free_ports
from tests.support import REPOSITORY
from tests.support.consoles import Names, Terminal, run_page
from tests.support.tenant import Tenant

PAGE = REPOSITORY / "docs" / "how-to" / "simulated-openstack.md"


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "workers", "simulated-openstack", *words]


def test_the_page_shows_what_its_commands_print(tmp_path: Path, vhost: str) -> None:
    (port,) = free_ports(1)
    tools = str(Path(sys.executable).parent)
    env = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(tmp_path), "ECS_BROKER_URL": vhost}
    with Terminal(tmp_path, env) as first, Terminal(tmp_path, env) as second:

        def answer(line: str) -> str:
            line = line.replace("15000", str(port))
            if "simulated-openstack" in line:
                return first.run(line, until="Ctrl-C")
            return second.run(line)

        try:
            run_page(PAGE, Names((15000,)), answer)
        finally:
            (cloud,) = psutil.Process(first.pid).children()
            cloud.send_signal(signal.SIGINT)
        assert first.hear() == ""


def test_it_serves_until_sigterm_and_nothing_is_left() -> None:
    (port,) = free_ports(1)
    fault = {"point": "api.nova", "match": "POST .*/servers", "error": "no", "status": 403}
    fault |= {"times": 1}
    words = ("--port", str(port), "--pace", "0.1", "-o", "jsonl", "--fault", json.dumps(fault))
    process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        clouds_yaml = Path(told["clouds_yaml"])
        assert told["url"] == f"http://127.0.0.1:{port}"
        children = psutil.Process(process.pid).children(recursive=True)
        tenant = Tenant(clouds_yaml, "tenant-a")
        with pytest.raises(AssertionError, match="403"):
            tenant.make_server(disk=None)
        server_id = tenant.make_server(disk=None)
        assert tenant.actions(server_id) == ["create"]
        tenant.close()
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()
    assert not [one for one in children if one.is_running()]
    assert not clouds_yaml.parent.exists()


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("{", "no JSON object"),
        ("[]", "no JSON object"),
        ('{"point": "api.heat"}', "point is api.SERVICE"),
        ('{"point": "api.nova", "colour": "red"}', "unknown: colour; known: "),
        ('{"point": "api.nova", "answer": "blue"}', "answer is one of another, html"),
    ],
)
def test_a_fault_that_is_none_is_refused_before_anything_is_started(fault: str, why: str) -> None:
    done = subprocess.run(
        command("--fault", fault), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            command("--port", port), capture_output=True, text=True, timeout=30, check=False
        )
    assert done.returncode == 7
    assert done.stderr == f"port {port} is in use; choose another one\n"

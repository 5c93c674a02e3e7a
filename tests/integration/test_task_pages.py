"""docs/operations: the commands that a page shows with their output are run, and print that."""

import json
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from sandbox.processes import free_ports
from tests.support import REPOSITORY
from tests.support.consoles import Names, Terminal, need_curl, run_page
from tests.support.orders import paid
from tests.support.tenant import Tenant

OPERATIONS = REPOSITORY / "docs" / "operations"
pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine as the pages have it: a broker, a cloud, and a folder with `.env`."""

    folder: Path
    env: dict[str, str]
    port: int
    broker: PrivateBroker
    cloud: SimulatedOpenStack

    def names(self) -> Names:
        """Return the names by which the pages call the ports."""
        found = Names((5672, 8080, 15000))
        for port in (self.broker.port, self.port, self.cloud.port):
            found.shown(f"127.0.0.1:{port}")
        return found


def known(text: str) -> str:
    """Return an output with the versions that the pages were made with."""
    text = re.sub(r"RabbitMQ \d[\d.]*", "RabbitMQ 3.10.8", text)
    return re.sub(r"revision none, \d{4}", "revision none, 0012", text)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    need_curl()
    folder, tools = tmp_path / "ecs-worker", tmp_path / "tools"
    folder.mkdir(mode=0o700)
    tools.mkdir()
    (port,) = free_ports(1)
    with PrivateBroker() as broker, SimulatedOpenStack(pace=0.2) as cloud:
        # The administrator's tool finds this node, not one of the machine's own.
        wrapper = tools / "rabbitmqctl"
        wrapper.write_text(broker.shell_of_rabbitmqctl())
        wrapper.chmod(stat.S_IRWXU)
        shutil.copy(cloud.clouds_yaml, folder / "clouds.yaml")
        settings = {
            "ECS_BROKER_URL_FILE": "broker-url",
            "ECS_JOURNAL_URL": "sqlite:///journal.db",
            "ECS_TRUST_PUBLISHERS": "true",
            "ECS_REGION": "cn-north-3",
            "OS_CLOUD": "ecs-worker",
            "OS_CLIENT_CONFIG_FILE": "clouds.yaml",
            "ECS_HTTP_PORT": str(port),
        }
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        (folder / ".env").write_text(text)
        path = f"{tools}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        env = {"PATH": path, "HOME": str(tmp_path), "LANG": "C.UTF-8", "COLUMNS": "80"}
        yield Machine(folder, env, port, broker, cloud)


@contextmanager
def at_work(machine: Machine) -> Iterator[Terminal]:
    """A worker runs, and a shell in its folder."""
    machine.broker.rabbitmqctl("add_user", "ecs", "a-long-password")
    machine.broker.rabbitmqctl("set_permissions", "-p", "/", "ecs", ".*", ".*", ".*")
    url = f"amqp://ecs:a-long-password@127.0.0.1:{machine.broker.port}//"
    (machine.folder / "broker-url").write_text(url)
    with Terminal(machine.folder, machine.env) as terminal:
        terminal.run("ecs-worker run 2> worker.log &")
        ready = f"until curl -sf http://127.0.0.1:{machine.port}/readyz; do sleep 0.5; done"
        terminal.run(ready)
        try:
            yield terminal
            terminal.run(ready)
        finally:
            terminal.run("kill -TERM $!; wait")


def test_a_worker_is_installed_as_the_page_says(machine: Machine) -> None:
    with Terminal(machine.folder, machine.env) as terminal:
        try:
            run_page(OPERATIONS / "install.md", machine.names(), terminal.run, known)
        finally:
            # The worker that the page starts, and ends, where it was not run to its end.
            for one in psutil.Process(terminal.pid).children(recursive=True):
                one.terminate()


@pytest.mark.parametrize("page", ["rotate.md", "regions.md"])
def test_commands_beside_a_running_worker(machine: Machine, page: str) -> None:
    with at_work(machine) as terminal:
        run_page(OPERATIONS / page, machine.names(), terminal.run, known)


def test_each_question_of_the_index_has_its_answer(machine: Machine) -> None:
    """Each command of docs/operations/README.md is run, and shows what was asked."""
    tenant = Tenant(machine.cloud.clouds_yaml, "tenant-a")
    order = paid("renew", tenant.make_server(disk=None), duration="1", durationUnit="M")
    key = order["orderId"]
    (machine.folder / "order.json").write_text(json.dumps(order))
    conflicting = {**order, "userId": "00000000-0000-4000-8000-000000000000"}
    (machine.folder / "again.json").write_text(json.dumps(conflicting))
    with at_work(machine) as terminal:
        terminal.run("ecs-worker order order.json")
        terminal.run("ecs-worker order again.json || test $? = 5")
        (letter,) = json.loads(terminal.run("ecs-worker dead list -o json"))
        message = letter["id"]
        discarded = "ecs-worker dead discard --all --yes --operator night-shift"
        # What each prints, in this sequence; KEY and the like are what the page leaves open.
        answers = {
            "ecs-worker show X": [key, "200"],
            "ecs-worker status": ["ecs.orders", "ecs.dead"],
            "ecs-worker status -o wide": ["ecs.orders", "ecs.dead"],
            "ecs-worker check": ["keystone", "ok"],
            "ecs-worker dead list --summary": ["conflicting_duplicate"],
            "ecs-worker dead list --summary -o wide": ["conflicting_duplicate", "tenant-a 1"],
            "ecs-worker dead show KEY": [key],
            "ecs-worker dead replay --code CODE --dry-run": [message, "would be refused"],
            "ecs-worker pause orders --reason TEXT --for 2h": ["orders"],
            "ecs-worker resume orders": [],
            "ecs-worker audit": ["pause", "resume"],
            "ecs-worker dead replays": ["night-shift"],
            "ecs-worker dead replays NAME": [message],
            "ecs-worker cancel KEY": [],
            "ecs-worker plan FILE": [key],
        }
        text = (OPERATIONS / "README.md").read_text(encoding="utf-8")
        assert set(re.findall(r"`(ecs-worker [^`]+)`", text)) == set(answers)
        stands_for = {
            "X": key,
            "KEY": key,
            "CODE": "101.001002",
            "TEXT": "test",
            "FILE": "order.json",
        }
        for command, expected in answers.items():
            if command == "ecs-worker dead replays":
                terminal.run(discarded)
            if command.endswith("NAME"):
                (batch,) = json.loads(terminal.run("ecs-worker dead replays -o json"))
                stands_for["NAME"] = batch["batch"]
            words = [stands_for.get(one, one) for one in command.split()]
            # An order that has ended is neither cancelled nor planned anew.
            may_refuse = command.startswith(("ecs-worker cancel", "ecs-worker plan"))
            run = " ".join(words) + (" 2>&1 || test $? -ge 5" if may_refuse else "")
            said = terminal.run(run)
            assert [one for one in expected if one not in said] == [], said

"""docs/how-to/http.md: its commands are run, and print what it shows."""

import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from sandbox.broker import PrivateBroker
from sandbox.documents import REGION, change_configure
from sandbox.openstack import SimulatedOpenStack
from sandbox.processes import free_ports
from tests.support import REPOSITORY
from tests.support.consoles import Names, Terminal, need_curl, run_page
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

PAGE = REPOSITORY / "docs" / "how-to" / "http.md"

pytestmark = pytest.mark.slow


def test_the_page_shows_what_its_commands_print(broker: PrivateBroker, tmp_path: Path) -> None:
    need_curl()
    url = broker.add_vhost(tmp_path.name)
    declare(url, topology())
    (port,) = free_ports(1)
    # A cloud of its own: nothing but what is made here is in it.
    with SimulatedOpenStack(pace=0.3) as cloud, Workshop(url, cloud, tmp_path) as workshop:
        workshop.worker()
        tenant = workshop.tenant()
        server = tenant.make_server(name="web", disk=40)
        order = json.loads(change_configure(server, tenant.image))
        order |= {"productList": [{**order["productList"][0], "region": REGION}]}
        del order["token"]
        (tmp_path / "order.json").write_text(json.dumps(order), encoding="utf-8")
        tools = str(Path(sys.executable).parent)
        env = {
            "PATH": f"{tools}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "PYTHONPATH": os.getcwd(),
        }
        env |= workshop.settings | {"ECS_GATEWAY_LISTEN": f"127.0.0.1:{port}"}
        with Terminal(tmp_path, env) as first, Terminal(tmp_path, env) as second:
            names = Names((8081,))

            def answer(line: str) -> str:
                line = line.replace("8081", str(port))
                line = line.replace("178549870045495296", order["orderId"])
                if line == "ecs-worker gateway":
                    return first.run(line, until="gateway.started")
                return second.run(line)

            try:
                run_page(PAGE, names, answer)
            finally:
                for child in psutil.Process(first.pid).children():
                    child.send_signal(signal.SIGTERM)

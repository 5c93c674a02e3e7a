"""`ecs-worker demo --stay`: everything runs until it is stopped, for whoever wants to try it."""

import json
import shlex
import sys
import time
from pathlib import Path

from sandbox.documents import change_configure
from sandbox.processes import SandboxError, until_stopped
from workers.demo.environment import TENANT, Environment, environment
from workers.demo.screen import Screen


def stay(openstack: str) -> None:
    """Run the environment on a `simulated` or the `real` cloud until SIGINT or SIGTERM.

    Raises `SandboxError` where a part cannot be started, or has ended by itself.
    """
    with until_stopped():
        screen = Screen()
        with environment(openstack, screen) as running:
            screen.text(_guide(running))
            while running.worker.alive:
                time.sleep(0.2)
            raise SandboxError(f"the worker has ended: {running.worker.log.read_text()[-1500:]}")
    print("Everything is stopped.", flush=True)


def _guide(running: Environment) -> str:
    """Return what a person needs in another terminal; writes the files that it names."""
    servers, folder = running.servers, running.folder
    env = "".join(f"{name}={value}\n" for name, value in running.settings.items())
    (folder / ".env").write_text(env, encoding="utf-8")
    order = json.loads(change_configure(servers.web, servers.image))
    del order["token"]
    order = {"tenant_id": TENANT, **order}
    text = json.dumps(order, ensure_ascii=False, indent=2)
    (folder / "order.json").write_text(f"{text}\n", encoding="utf-8")
    commands = Path(sys.executable).parent
    return f"""
Everything runs until Ctrl-C. The settings are in {folder}/.env:

{_indented(env)}
Servers of the tenant {TENANT}, all of flavor S1.small.1:

  web       {servers.web}  system disk of 40 GiB on a volume
  database  {servers.database}  local disk
  unpaid    {servers.unpaid}  without billing information
  image     {servers.image}

In another terminal, first of all:

  cd {shlex.quote(str(folder))} && PATH={shlex.quote(str(commands))}:$PATH

Preview an order, which makes web larger:

  ecs-worker plan order.json

List the requests that the worker knows:

  ecs-worker journal list
"""


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())

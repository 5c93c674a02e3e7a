"""`ecs-worker demo --stay`: everything runs until it is stopped, for whoever wants to try it."""

import json
import shlex
import sys
import time
from pathlib import Path

from sandbox.documents import change_configure
from sandbox.gateway import GatewayProcess
from sandbox.processes import SandboxError, listens, until_stopped
from workers.demo.environment import TENANT, Environment, environment
from workers.demo.screen import Screen

#: Where the gateway listens, as it does by default, unless something else does.
_GATEWAY_PORT = 8081


def stay(openstack: str) -> None:
    """Run the environment on a `simulated` or the `real` cloud until SIGINT or SIGTERM.

    Raises `SandboxError` where a part cannot be started, or has ended by itself.
    """
    with until_stopped():
        screen = Screen()
        with environment(openstack, screen) as running:
            port = None if listens(_GATEWAY_PORT) else _GATEWAY_PORT
            gateway = GatewayProcess(running.settings, running.folder, port=port)
            try:
                with screen.step("ecs-worker's gateway"):
                    gateway.start()
                screen.text(_guide(running, gateway.url))
                while running.worker.alive and gateway.alive:
                    time.sleep(0.2)
                ended = gateway if running.worker.alive else running.worker
                said = ended.log.read_text(errors="replace")[-1500:]
                raise SandboxError(f"{ended.log.stem} has ended: {said}")
            finally:
                gateway.stop()
    print("Everything is stopped.", flush=True)


def _guide(running: Environment, url: str) -> str:
    """Return what a person needs in another terminal; writes the files that it names."""
    servers, folder = running.servers, running.folder
    settings = {**running.settings, "ECS_GATEWAY_LISTEN": url.removeprefix("http://")}
    env = "".join(f"{name}={value}\n" for name, value in settings.items())
    (folder / ".env").write_text(env, encoding="utf-8")
    order = json.loads(change_configure(servers.web, servers.image))
    del order["token"]
    order = {"tenant_id": TENANT, **order}
    text = json.dumps(order, ensure_ascii=False, indent=2)
    (folder / "order.json").write_text(f"{text}\n", encoding="utf-8")
    tools = Path(sys.executable).parent
    ask = f"curl -s -H 'X-Tenant-Id: {TENANT}'"
    send = f"{ask} -H 'Content-Type: application/json'"
    return f"""
Everything runs until Ctrl-C. The settings are in {folder}/.env:

{_indented(env)}
Servers of the tenant {TENANT}, all of flavor S1.small.1:

  web       {servers.web}  system disk of 40 GiB on a volume
  database  {servers.database}  local disk
  unpaid    {servers.unpaid}  without billing information

Their image is {servers.image}.

In another terminal, to begin with:

  cd {shlex.quote(str(folder))} && PATH={shlex.quote(str(tools))}:$PATH

List the servers, over HTTP (the API's pages are at {url}/docs) and by a message:

  {ask} {url}/v1/servers/1/10
  ecs-worker call server.list --tenant {TENANT}

Stop a server, and start it again:

  {send} {url}/v1/servers/{servers.web}/action -d '{{"os-stop": null}}'
  ecs-worker call server.action --tenant {TENANT} -p server_id={servers.web} --body '{{"os-start": null}}'

Listen to status updates:

  curl -sN -H 'X-Tenant-Id: {TENANT}' {url}/v1/events

{_faults(running.simulated_url)}\
See what stands still; the operations console shows the same in a browser, at the address that
{folder}/gateway.log has:

  ecs-worker status

Preview an order, which makes web larger; send it and follow it; see what it waits for, or what
became of it:

  ecs-worker plan order.json
  ecs-worker order order.json
  {ask} {url}/v1/orders/{order["orderId"]}
  ecs-worker show {order["orderId"]}
"""


def _faults(url: str | None) -> str:
    """Return how a simulated cloud is made to fail."""
    if url is None:
        return ""
    hang = '{"point": "virt.finish_migration", "held": true}'
    return f"""\
Let the simulated cloud at {url} fail (a resize hangs until the faults are deleted):

  curl -s -X POST {url}/_sandbox/faults -d '{hang}'
  curl -s -X DELETE {url}/_sandbox/faults

"""


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())

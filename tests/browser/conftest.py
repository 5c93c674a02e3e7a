"""A console to look at: a real gateway, worker, broker and journal, before a simulated cloud."""

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from sandbox.broker import PrivateBroker
from sandbox.documents import change_configure, new_order_id
from sandbox.gateway import GatewayProcess
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.browser.chromium import Window, chromium
from tests.support.http import Site, gateways
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

HERE = Path(__file__).parent
_ADDRESS = re.compile(r"^operations console, .*: (http://\S+)$", re.MULTILINE)


def addresses(gateway: GatewayProcess) -> list[str]:
    """The one-time addresses that a gateway has printed; one that is being forked has no log yet."""
    return _ADDRESS.findall(gateway.log.read_text()) if gateway.log.exists() else []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # DANGER: while Playwright runs, its event loop counts as the running one of this thread, and
    # no asynchronous test of another module can run. So not for the session.
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def site(
    broker: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A worker and a gateway that trust publishers."""
    folder = tmp_path_factory.mktemp("console")
    url = broker.add_vhost(folder.name)
    declare(url, topology())
    with Workshop(url, simulated, folder) as workshop, gateways(workshop) as start:
        workshop.worker()
        yield Site(workshop, start())


class Furnished:
    """A site with something to see: a command, an order, a batch."""

    def __init__(self, site: Site) -> None:
        self.site = site
        server = site.tenant.make_server()
        done = site.ask("POST", f"/v1/servers/{server}/action", json={"os-stop": {}})
        self.command = done.headers["X-Request-Id"]
        site.tenant.wait(server, lambda one: one["status"] == "SHUTOFF")
        self.order = new_order_id()
        order = change_configure(server, site.tenant.image, order_id=self.order)
        site.ask("POST", "/v1/orders", json=json.loads(order.encode()))
        eventually(lambda: self._is_done(self.order), 60)
        (sent,) = self.park(1)
        replayed = site.workshop.command("dead", "replay", "--id", sent, "--yes", "-o", "json")
        assert replayed.returncode == 0, replayed.stderr
        self.batch = json.loads(replayed.stdout)[0]["batch"]
        site.workshop.command("pause", "images", "--reason", "a look", "--for", "1s")

    def park(self, number: int) -> list[str]:
        """Dead-letter commands that nobody has read: they expired in a queue without a consumer."""
        workshop = self.site.workshop
        workshop.running.terminate()
        with Requester(workshop.broker_url) as requester:
            depth = requester.depth("ecs.dead")
            sent = [
                requester.command(
                    "server.action",
                    server_id=str(uuid.uuid4()),
                    body={"os-start": None},
                    expiration=0.001,
                )
                for _ in range(number)
            ]
            workshop.worker()
            eventually(lambda: requester.depth("ecs.dead") == depth + number, 60)
        return sent

    def dead(self) -> list[dict[str, Any]]:
        """The dead letters, as the command line lists them."""
        done = self.site.workshop.command("dead", "list", "-o", "json")
        rows: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        return rows

    def _is_done(self, key: str) -> bool:
        shown = self.site.ask("GET", f"/v1/orders/{key}").json()["data"]
        return shown is not None and shown.get("state") == "done"


@pytest.fixture(scope="module")
def furnished(site: Site) -> Furnished:
    return Furnished(site)


@contextmanager
def entered(
    browser: Browser, gateway: GatewayProcess, name: str, **options: object
) -> Iterator[Window]:
    """A window of an operator who has come in by the newest address."""
    window = Window(browser, gateway.url, **options)
    eventually(lambda: bool(addresses(gateway)))
    window.page.goto(addresses(gateway)[-1])
    window.page.get_by_role("textbox").fill(name)
    window.page.get_by_role("button", name=re.compile("Enter|进入")).click()
    yield window
    window.close()

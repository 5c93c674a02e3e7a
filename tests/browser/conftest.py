"""A console to look at: a real gateway, worker, broker and journal, before a simulated cloud."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser

from sandbox.broker import PrivateBroker
from sandbox.gateway import GatewayProcess
from sandbox.openstack import SimulatedOpenStack
from tests.browser.chromium import Window, chromium
from tests.support.http import Site, gateways
from tests.support.workshop import Workshop, eventually
from workers.amqp.topology import declare, topology

_ADDRESS = re.compile(r"^operations console, .*: (http://\S+)$", re.MULTILINE)


def addresses(gateway: GatewayProcess) -> list[str]:
    """The one-time addresses that a gateway has printed."""
    return _ADDRESS.findall(gateway.log.read_text())


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
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

"""Broker, worker or gateway dies while 200 requests are under way over HTTP: each ends in its result
or a clear 503 or 504, the same key gets the one result, and nothing is done twice.
"""

import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from sandbox.broker import PrivateBroker
from sandbox.gateway import GatewayProcess
from sandbox.openstack import SimulatedOpenStack
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

pytestmark = pytest.mark.slow

NUMBER = 200
#: Seconds that the cloud takes for a reboot: with 32 calls at once, all take ten times as long.
TAKES = 1.0


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateBroker]:
    with PrivateBroker() as found:
        yield found


@dataclass
class Scene:
    """A worker and a gateway, and servers that are to be rebooted, each by one request."""

    node: PrivateBroker
    shop: Workshop
    gateway: GatewayProcess
    servers: list[str]
    #: The idempotency key of each server's request.
    keys: dict[str, str]

    def reboot(self, server_id: str) -> requests.Response:
        """Ask for a server's reboot, by its key."""
        headers = {"X-Tenant-Id": "tenant-a", "Idempotency-Key": self.keys[server_id]}
        url = f"{self.gateway.url}/v1/servers/{server_id}/action"
        body = {"reboot": {"type": "HARD"}}
        return requests.post(url, json=body, headers=headers, timeout=60)

    def executed(self) -> Counter[str]:
        """Return how often each server was rebooted."""
        found = (re.search(r"/servers/([^/]+)/action", one) for one in self.shop.cloud.executed())
        wanted = set(self.servers)
        return Counter(one[1] for one in found if one is not None and one[1] in wanted)


@pytest.fixture
def scene(node: PrivateBroker, simulated: SimulatedOpenStack, tmp_path: Path) -> Iterator[Scene]:
    url = node.add_vhost(f"gateway-{uuid.uuid4().hex[:8]}")
    declare(url, topology())
    with Workshop(url, simulated, tmp_path) as shop:
        servers = shop.tenant().make_servers(NUMBER)
        shop.worker()
        gateway = GatewayProcess(shop.settings, tmp_path).start()
        keys = {one: uuid.uuid4().hex for one in servers}
        simulated.fault("api.nova", match="POST .*/action", delay=TAKES)
        try:
            yield Scene(node, shop, gateway, servers, keys)
        finally:
            simulated.clear_faults()
            gateway.stop()


def broker_killed(scene: Scene) -> None:
    scene.node.kill()
    eventually(lambda: scene.gateway.problems() != [])
    refused = scene.reboot(scene.servers[-1])
    assert (refused.status_code, refused.json()["code"]) == (503, "101.001040")
    assert int(refused.headers["Retry-After"]) > 0
    scene.node.restart()


def worker_killed(scene: Scene) -> None:
    scene.shop.running.kill()
    scene.shop.worker()


def gateway_killed(scene: Scene) -> None:
    scene.gateway.kill()
    scene.gateway.start()


@pytest.mark.parametrize("fault", [broker_killed, worker_killed, gateway_killed])
def test_each_request_ends_and_its_key_gets_the_one_result(
    scene: Scene, fault: Callable[[Scene], None]
) -> None:
    with ThreadPoolExecutor(NUMBER) as pool:
        asked = {one: pool.submit(scene.reboot, one) for one in scene.servers}
        eventually(lambda: scene.executed().total() >= 20, 30)
        assert scene.executed().total() < NUMBER, "all was done before the fault"
        fault(scene)
        first = {one: ending(future) for one, future in asked.items()}
    told = Counter(answer.status_code if answer is not None else None for answer in first.values())
    print(f"{fault.__name__}: {dict(told)}")
    # Only a gateway that dies itself leaves its clients without an answer.
    allowed = {200, 503, 504} | ({None} if fault is gateway_killed else set())
    assert set(told) <= allowed
    for answer in first.values():
        if answer is not None and answer.status_code != 200:
            envelope = answer.json()
            assert envelope["code"] == "101.001040"
            assert envelope["data"]["reason"] in ("no_answer", "broker_unavailable")
            assert answer.status_code != 503 or int(answer.headers["Retry-After"]) > 0
    again = asked_again(scene)
    for one, answer in first.items():
        if answer is not None and answer.status_code == 200:
            assert (again[one].content, again[one].status_code) == (answer.content, 200)
    assert {one.status_code for one in again.values()} == {200}
    assert scene.executed() == dict.fromkeys(scene.servers, 1)


def ending(future: Future[requests.Response]) -> requests.Response | None:
    """The answer; None where the connection was lost."""
    try:
        return future.result()
    except requests.ConnectionError:
        return None


def asked_again(scene: Scene) -> dict[str, requests.Response]:
    """Ask for everything again, as a client does: once more where it is told to."""
    eventually(lambda: scene.gateway.problems() == [], 30)
    eventually(lambda: scene.shop.running.problems() == [], 30)
    with ThreadPoolExecutor(NUMBER) as pool:
        found = dict(zip(scene.servers, pool.map(scene.reboot, scene.servers), strict=True))
        late = [one for one, answer in found.items() if answer.status_code in (503, 504)]
        return found | dict(zip(late, pool.map(scene.reboot, late), strict=True))

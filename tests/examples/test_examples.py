"""The examples for publishers in other languages, run against a real broker and a real worker: what
docs/how-to shows is what runs here.
"""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

from sandbox.broker import PrivateBroker
from sandbox.documents import change_configure, new_order_id
from sandbox.requester import Requester
from tests.asyncapi.node import INSTALL_LIMIT, TOOL_LIMIT
from tests.examples.programs import LANGUAGES, Program, lines_of
from tests.support.proxy import ACK, Proxy, Reset, Way
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

pytestmark = [pytest.mark.slow, pytest.mark.timeout(INSTALL_LIMIT + TOOL_LIMIT)]


@pytest.fixture(scope="session", params=LANGUAGES)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The example in one language after the other."""
    return LANGUAGES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def proxy(broker: PrivateBroker) -> Iterator[Proxy]:
    """A network that can be cut, before the broker."""
    with Proxy(broker.port) as found:
        yield found


def paid_order(workshop: Workshop, server_id: str, order_id: str) -> Path:
    """The API document's order as a file."""
    order = json.loads(change_configure(server_id, workshop.tenant().image, order_id=order_id))
    path = workshop.folder / "order.json"
    path.write_text(json.dumps(order | {"tenant_id": "tenant-a"}), encoding="utf-8")
    return path


def test_a_server_is_listed_ordered_larger_and_stopped_once(
    workshop: Workshop, program: Program
) -> None:
    workshop.worker()
    tenant = workshop.tenant()
    server_id, order_id = tenant.make_server(name=uuid.uuid4().hex, disk=40), new_order_id()

    def run(*words: str, wait: float = 60) -> list[dict[str, Any]]:
        return lines_of(program.start(workshop.broker_url, *words, wait=wait))

    (page,) = run("servers")
    assert page["code"] == 200
    assert tenant.server(server_id)["name"] in page["names"]

    updates = run("order", str(paid_order(workshop, server_id, order_id)))
    assert [updates[0]["status"], updates[-1]["status"]] == ["accepted", "succeeded"]
    assert [one["final"] for one in updates] == [False] * (len(updates) - 1) + [True]
    assert run("results", "1") == [{"code": 200, "orderId": order_id}]

    first = run("stop", server_id, "stop-1")
    assert {"code": 200, "message": "OK", "data": None} in first
    assert {"status": "SHUTOFF", "final": True} in first
    # The same message id again: the same answer, and nothing is done.
    assert run("stop", server_id, "stop-1", wait=1) == [
        {"code": 200, "message": "OK", "data": None}
    ]
    assert tenant.actions(server_id).count("stop") == 1


def test_a_command_that_loses_its_connection_is_published_again_and_done_once(
    workshop: Workshop, program: Program, proxy: Proxy
) -> None:
    server_id = workshop.tenant().make_server()
    with Requester(workshop.broker_url) as requester:
        process = program.start(proxy.url_of(workshop.broker_url), "stop", server_id)
        eventually(lambda: requester.depth("ecs.servers") == 1, 30)
        assert proxy.reset() > 0
        eventually(lambda: requester.depth("ecs.servers") == 2, 30)
        workshop.worker()
        said = lines_of(process)
    assert {"code": 200, "message": "OK", "data": None} in said
    assert {"status": "SHUTOFF", "final": True} in said
    assert workshop.tenant().actions(server_id).count("stop") == 1


def test_a_result_whose_ack_is_lost_comes_again(
    declared: str, program: Program, proxy: Proxy
) -> None:
    acks: list[bytes] = []

    async def cut_the_first_ack(way: Way, data: bytes) -> bytes:
        if way is Way.UP and ACK.search(data):
            acks.append(data)
            if len(acks) == 1:
                raise Reset
        return data

    proxy.tamper = cut_the_first_ack
    result = {"code": 200, "message": "OK", "data": {"orderId": "178549870045495296"}}
    with Requester(declared, order_results=False) as requester:
        requester.publish("ecs.results", "order.changeConfigure", result)
        said = lines_of(program.start(proxy.url_of(declared), "results", "2"))
        assert said == [{"code": 200, "orderId": "178549870045495296"}] * 2
        eventually(lambda: requester.depth("ecs.order-results") == 0)


def test_an_order_that_no_queue_takes_is_an_error(
    broker: PrivateBroker, program: Program, tmp_path: Path
) -> None:
    url = broker.url_of("/")  # the virtual host "/", as `ecs-worker demo` prints it
    declare(url, topology())
    with Connection(url) as connection:
        connection.channel().queue_delete("ecs.orders")
    order = tmp_path / "order.json"
    order.write_text(change_configure(str(uuid.uuid4()), str(uuid.uuid4())), encoding="utf-8")
    process = program.start(url, "order", str(order))
    out, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert out == ""
    assert "Unroutable" in said

"""Several brokers, and one name with several addresses (fault 73): every connection that the program
makes tries each address in turn, and one that hangs costs at most its time-out.
"""

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

from ecs_client import EcsClient
from ecs_client.address import targets
from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support.proxy import Proxy
from tests.support.responder import OK, Responder
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.broker import Broker, read_urls
from workers.amqp.connection import RecoveringConnection
from workers.amqp.topology import declare, depth, topology

pytestmark = pytest.mark.slow

#: A name with three addresses; only the last is the broker's.
NAME, ADDRESSES = "brokers.example", ("127.0.0.2", "127.0.0.3", "127.0.0.1")
SHORT = "socket_timeout=1&stack_timeout=2"


@pytest.fixture
def hanging(broker: PrivateBroker) -> Iterator[None]:
    """Nodes on the first two addresses that stand still: the kernel accepts, and nobody answers."""
    with ExitStack() as stack:
        for address in ADDRESSES[:2]:
            node = stack.enter_context(socket.socket())
            node.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            node.bind((address, broker.port))
            node.listen(100)
        yield


@pytest.fixture
def one_name(vhost: str, hanging: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of the virtual host by the name, of whose addresses the broker's is the last."""
    look_up = socket.getaddrinfo

    def looked_up(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        if host != NAME:
            return look_up(host, port, *more, **options)
        return [found for one in ADDRESSES for found in look_up(one, port, *more, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    parts = urlsplit(vhost)
    url = f"amqp://guest:guest@{NAME}:{parts.port}{parts.path}?{SHORT}"
    for one in targets(read_urls(url)):
        if one.ip == ADDRESSES[-1]:
            one.failed()  # not at random: the worst case
    return url


async def until_up(url: str, seconds: float = 60.0) -> RecoveringConnection:
    """Return the worker's own kind of connection once it is up."""
    link = RecoveringConnection(Broker(url), "test", lambda _: None, lambda: None)
    link.open()
    async with asyncio.timeout(seconds):
        while not link.is_up:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
    return link


def test_a_name_whose_first_addresses_hang_costs_the_worker_their_time_outs(one_name: str) -> None:
    async def connect() -> None:
        link = await until_up(one_name)
        await link.close()

    asyncio.run(connect())


def test_a_name_whose_first_addresses_hang_costs_a_command_their_time_outs(one_name: str) -> None:
    declare(one_name, topology())
    assert depth(one_name, "ecs.dead") == (0, 0)


def test_a_name_whose_first_addresses_hang_costs_a_client_their_time_outs(
    one_name: str, vhost: str
) -> None:
    declare(vhost, topology())
    with Responder(vhost), EcsClient(one_name, tenant="t", broker_timeout=60) as client:
        assert client.call("server.list").body == OK


@pytest.fixture
def nodes(broker: PrivateBroker) -> Iterator[tuple[Proxy, Proxy]]:
    """Two ways to the broker, which stand for two nodes of its cluster."""
    with Proxy(broker.port) as first, Proxy(broker.port) as second:
        yield first, second


def by_both(url: str, nodes: tuple[Proxy, Proxy]) -> str:
    return ",".join(f"{one.url_of(url)}?heartbeat=2&{SHORT}" for one in nodes)


def lose(nodes: tuple[Proxy, Proxy], is_used: Callable[[Proxy], bool]) -> Proxy:
    """Have the node that is used stand still, and return the other."""
    used, other = nodes if is_used(nodes[0]) else nodes[::-1]
    assert is_used(used)
    assert not is_used(other)
    used.blackhole()
    return other


def test_a_worker_whose_node_stands_still_goes_to_the_next(
    vhost: str, nodes: tuple[Proxy, Proxy]
) -> None:
    async def lose_one() -> None:
        link = await until_up(by_both(vhost, nodes))
        other = lose(nodes, lambda one: one.connections == 1)
        async with asyncio.timeout(30):
            while not other.connections or not link.is_up:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
        await link.close()

    asyncio.run(lose_one())


def test_a_client_whose_node_stands_still_goes_to_the_next(
    vhost: str, nodes: tuple[Proxy, Proxy]
) -> None:
    declare(vhost, topology())
    with (
        Responder(vhost),
        EcsClient(by_both(vhost, nodes), tenant="t", broker_timeout=60) as client,
    ):
        assert client.call("server.list").body == OK
        lose(nodes, lambda one: one.connections == 1)
        eventually(lambda: client.call("server.list").body == OK, 60)


def test_a_worker_and_every_command_live_on_the_one_node_of_three_that_answers(
    vhost: str, hanging: None, simulated: SimulatedOpenStack, tmp_path: Path, broker: PrivateBroker
) -> None:
    with socket.socket() as unused, Workshop(vhost, simulated, tmp_path) as shop:
        unused.bind(("127.0.0.1", 0))  # not listened on
        path = urlsplit(vhost).path
        others = f"127.0.0.2:{broker.port}", f"127.0.0.1:{unused.getsockname()[1]}"
        urls = [f"amqp://guest:hidden@{one}{path}?{SHORT}" for one in others]
        shop.settings["ECS_BROKER_URL"] = " , ".join([*urls, f"{vhost}?{SHORT}"])
        for words in (("topology", "apply"), ("dead", "list")):
            done = shop.command(*words)
            assert done.returncode == 0, done.stdout + done.stderr
        done = shop.command("check", "-o", "json")
        assert done.returncode == 0, done.stdout + done.stderr
        lines = [one for one in json.loads(done.stdout) if one["check"] == "broker"]
        assert [one["result"] for one in lines] == ["ok", "warning", "warning"]
        for address in others:
            assert sum(one["found"].startswith(f"{address}: ") for one in lines) == 1
        assert "hidden" not in done.stdout + done.stderr
        shop.worker()
        with Requester(f"{urls[1].partition('?')[0]},{vhost}") as requester:
            assert requester.result_of(requester.command("server.list")).body["code"] == 200
        for words in (("status",), ("call", "server.list", "--tenant", "tenant-a")):
            done = shop.command(*words)
            assert done.returncode == 0, done.stdout + done.stderr
        assert "hidden" not in shop.logs()


def test_a_node_that_stops_within_a_frame_costs_a_time_out(
    vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.amqp.topology._SECONDS", 1)
    parts = urlsplit(vhost)
    queue = "a.queue.that.is.asked.for"
    outcome: list[BaseException] = []

    def relay(source: socket.socket, sink: socket.socket, asked: Event, *, of_node: bool) -> None:
        while data := source.recv(65536):
            if not of_node and queue.encode() in data:
                asked.set()
            # The head of the frame, and a byte of what is in it.
            sink.sendall(data[:8] if of_node and asked.is_set() else data)
            if of_node and asked.is_set():
                return

    def look() -> None:
        try:
            depth(f"amqp://guest:guest@127.0.0.1:{gate.getsockname()[1]}{parts.path}", queue)
        except OSError as error:
            outcome.append(error)

    with socket.create_server(("127.0.0.1", 0)) as gate:
        looking = Thread(target=look, daemon=True)
        looking.start()
        client, _ = gate.accept()
        with client, socket.create_connection(("127.0.0.1", parts.port or 5672)) as node:
            asked = Event()
            for one, other, of_node in ((client, node, False), (node, client, True)):
                Thread(
                    target=relay, args=(one, other, asked), kwargs={"of_node": of_node}, daemon=True
                ).start()
            looking.join(20)
            assert not looking.is_alive()
            for one in (client, node):  # wakes the threads
                one.shutdown(socket.SHUT_RDWR)
    assert asked.is_set()
    assert "timed out" in str(outcome)

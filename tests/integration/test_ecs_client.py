"""The Python client before a real broker, a real worker and the simulated cloud."""

import asyncio
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import uuid
import venv
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

from ecs_client import (
    AsyncEcsClient,
    EcsClient,
    InvalidParameter,
    NoAnswer,
    ServerNotFound,
    WrongServerState,
)
from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from tests.support.orders import paid
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology


@pytest.fixture(scope="module")
def shop(
    broker: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    """One worker for all tests of this module."""
    folder = tmp_path_factory.mktemp("client")
    url = broker.add_vhost(folder.name)
    declare(url, topology())
    with Workshop(url, simulated, folder) as found:
        found.worker()
        yield found


@pytest.fixture
def client(shop: Workshop) -> Iterator[EcsClient]:
    with EcsClient(shop.broker_url, tenant="tenant-a", user="user-1") as found:
        yield found


def test_servers_are_typed_from_their_list_to_their_console(
    client: EcsClient, shop: Workshop
) -> None:
    server_id = shop.tenant().make_server(disk=None, name="typed")
    page = client.servers.list(search=server_id)
    assert [one.id for one in page.servers] == [server_id]
    assert page.total_count == 1
    assert client.servers.show(server_id).flavor.vcpus == 1
    client.servers.set_tags(server_id, ["web", "生产"])
    assert sorted(client.servers.tags(server_id)) == ["web", "生产"]
    assert client.servers.console(server_id).url.startswith("http")
    with client.updates(resource="server", id=server_id) as updates:
        assert updates.wait_until_consuming(10)
        stopped = client.servers.stop(server_id, message_id=uuid.uuid4().hex)
        last = next(one for one in updates if one.final)
        assert (last.status, last.message_id) == ("SHUTOFF", stopped.message_id)
        assert last.tenant_id == shop.tenant().project_id
        assert json.loads(last.body)["id"] == server_id
    with pytest.raises(WrongServerState) as caught:
        client.servers.stop(server_id)
    assert caught.value.http_status == 400
    (outcome,) = client.servers.start_all([server_id])
    assert (outcome.id, outcome.code) == (server_id, 200)


def test_images_are_typed_from_their_making_to_their_deletion(
    client: EcsClient, shop: Workshop
) -> None:
    server_id = shop.tenant().make_server(disk=None)
    with client.updates(resource="image") as updates:
        assert updates.wait_until_consuming(10)
        image_id = client.servers.create_image(server_id, "mine", "a description", {"a": "b"})
        assert next(one for one in updates if one.final and one.id == image_id).status == "active"
    client.images.update(image_id, [{"op": "replace", "path": "/name", "value": "renamed"}])
    assert client.images.show(image_id).name == "renamed"
    assert image_id in [one.id for one in client.images.private("ECS").images]
    assert client.images.list(search=image_id).total_count == 1
    assert client.images.delete_all([image_id]).images[0].code == 200


def test_a_failure_is_raised_by_its_code_with_what_the_answer_says(client: EcsClient) -> None:
    server_id = str(uuid.uuid4())
    reply = client.call("server.show", {"server_id": server_id})
    assert reply.http_status == 400
    with pytest.raises(ServerNotFound) as caught:
        reply.result()
    assert (caught.value.code, caught.value.message_id) == ("101.001033", reply.message_id)
    assert server_id in caught.value.message
    with pytest.raises(InvalidParameter):
        client.servers.list(size=1000)


def test_a_body_given_as_bytes_is_taken(client: EcsClient, shop: Workshop) -> None:
    body = json.dumps({"operation": "server.list", "tenant_id": "tenant-a"}).encode()
    assert client.call("server.list", body).result()["servers"] is not None
    order = paid("renew", str(uuid.uuid4()))
    assert client.orders.submit(json.dumps(order).encode()) == order["orderId"]
    # The same by kombu itself, which says `content_encoding: binary` of bytes.
    key = uuid.uuid4().hex
    with Connection(shop.broker_url) as connection:
        connection.Producer().publish(
            json.dumps({**order, "orderId": key}).encode(),
            exchange="ecs.orders",
            routing_key="order.renew",
            content_type="application/json",
            message_id=key,
        )
    last = list(client.orders.follow(key, timeout=30))[-1]
    assert (last.id, last.final) == (key, True)
    last = list(client.orders.follow(order["orderId"], timeout=30))[-1]
    assert (last.final, last.status) == (True, "failed")


def test_an_order_is_previewed_submitted_followed_and_its_result_fetched(
    client: EcsClient, shop: Workshop
) -> None:
    server_id = shop.tenant().make_server(disk=None)
    order = paid("renew", server_id)
    assert client.orders.plan(order).order_id == order["orderId"]
    key = uuid.uuid4().hex
    order_id = client.orders.submit(order, message_id=key)
    followed = list(client.orders.follow(order_id, timeout=60))
    assert [one.final for one in followed] == [False] * (len(followed) - 1) + [True]
    # What has ended already ends at once.
    (again,) = client.orders.follow(order_id, timeout=10)
    assert (again.status, again.final) == (followed[-1].status, True)
    assert client.orders.show(order_id).result is not None
    with client.results() as results:
        result = next(one for one in results if order_id in str(one.envelope))
        results.ack()
    assert (result.operation, result.correlation_id) == ("order.renew", key)
    with pytest.raises(NoAnswer):
        list(client.orders.follow("nothing-known", timeout=0.5))


def test_threads_share_a_client(client: EcsClient) -> None:
    found: list[int] = []

    def work() -> None:
        found.extend(client.call("server.list").http_status for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == [200] * 80


async def test_asyncio_has_the_same_methods_and_many_requests_under_way(shop: Workshop) -> None:
    server_id = await asyncio.to_thread(shop.tenant().make_server, disk=None)
    async with AsyncEcsClient(shop.broker_url, tenant="tenant-a") as client:
        async with client.updates(resource="server", id=server_id) as updates:
            assert await updates.wait_until_consuming(10)
            await client.servers.reboot(server_id)
            async for one in updates:
                if one.final:
                    break
        assert (await client.servers.show(server_id)).status == "active"
        replies = await asyncio.gather(*(client.call("image.list") for _ in range(300)))
        assert {one.http_status for one in replies} == {200}
        order = paid("renew", str(uuid.uuid4()))
        order_id = await client.orders.submit(order)
        statuses = [one.status async for one in client.orders.follow(order_id, timeout=30)]
        assert statuses[-1] == "failed"
        async with client.results() as results:
            async for result in results:
                if order_id in str(result.envelope):
                    break


def test_two_requests_with_one_message_id_at_once_are_one(
    client: EcsClient, shop: Workshop
) -> None:
    server_id = shop.tenant().make_server(disk=None)
    key, bodies = uuid.uuid4().hex, list[bytes]()

    def work() -> None:
        body = {"server_id": server_id, "body": {"reboot": {"type": "SOFT"}}}
        bodies.append(client.call("server.action", body, message_id=key).body)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]
    assert shop.tenant().actions(server_id).count("reboot") == 1


ROOT = Path(__file__).parents[2]


def test_the_examples_of_the_page_run_and_print_what_it_shows(
    broker: PrivateBroker,
    simulated: SimulatedOpenStack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    page = (ROOT / "docs" / "how-to" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(python|text|console)\n(.*?)```", page, re.DOTALL)
    url = broker.add_vhost("page")
    declare(url, topology())
    monkeypatch.chdir(tmp_path)
    with Workshop(url, simulated, tmp_path) as shop:
        shop.worker()
        tenant = shop.tenant("tenant-b")  # nobody else's servers are there
        server_id = tenant.make_server(disk=None, name="web")
        order = paid("changeConfigure", server_id, tenant="tenant-b")
        flavor = {"code": "std_2C4G", "value": "S1.medium.2", "name": "S1.medium.2"}
        order["productList"][0]["itemList"] = [flavor]
        (tmp_path / "order.json").write_text(json.dumps(order))
        scope: dict[str, Any] = {}
        for (kind, text), (following, shown) in pairwise([*blocks, ("end", "")]):
            mine = text.replace("amqp://guest:guest@127.0.0.1:5672/", url)
            mine = mine.replace("tenant-a", "tenant-b")
            if kind == "python":
                exec(compile(mine, "python.md", "exec"), scope)
                assert capsys.readouterr().out == (shown if following == "text" else "")
            elif "ecs-worker call" in text:
                for words, printed in re.findall(
                    r"^\$ ecs-worker (.*)\n((?:[^$].*\n)+)", mine, re.M
                ):
                    done = shop.command(*shlex.split(words))
                    key = r"[0-9a-f]{32}"
                    assert re.sub(key, "KEY", done.stdout) == re.sub(key, "KEY", printed)
        scope["client"].close()
    assert [one.getMessage() for one in caplog.records if one.name == "amqp"] == []


#: What a program does that has the client alone.
PROGRAM = """
import importlib, pkgutil, sys
import ecs_client, messages
for package in (ecs_client, messages):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
with ecs_client.EcsClient(sys.argv[1], tenant="tenant-a") as client:
    print(len(client.servers.list(search="no such server").servers))
    try:
        client.servers.start("0d4e3c5c-3f3e-4c36-8a5b-0f2f0c8f3a11")
    except ecs_client.ServerNotFound as error:
        print(error.code)
print(sorted({"orjson", "pika", "openstack", "workers", "handlers"} & set(sys.modules)))
"""


def needed(requirements: Iterable[str]) -> set[str]:
    """The distributions that are installed for these requirements, and for what they require."""
    found: set[str] = set()
    waiting = list(requirements)
    while waiting:
        one = waiting.pop()
        name = re.split(r"[^\w.-]", one, maxsplit=1)[0]
        if "extra ==" in one or name in found:
            continue
        try:
            waiting += distribution(name).requires or []
        except PackageNotFoundError:  # for another platform
            continue
        found.add(name)
    return found


def test_the_clients_own_wheel_needs_kombu_and_pydantic_alone(
    shop: Workshop, tmp_path: Path
) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    tree = tmp_path / "tree"
    for name in ("ecs_client", "messages"):
        left_out = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
        shutil.copytree(ROOT / name, tree / name, ignore=left_out)
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, str(tree / "ecs_client")], check=True)
    (wheel,) = tmp_path.glob("ecs_client-*.whl")
    venv.create(tmp_path / "venv", symlinks=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    (metadata,) = site.glob("ecs_client-*.dist-info/METADATA")
    required = re.findall(r"^Requires-Dist: (.*)$", metadata.read_text(), re.MULTILINE)
    assert {re.split(r"\W", one)[0] for one in required} == {"kombu", "pydantic"}
    for name in needed(required):
        for file in distribution(name).files or []:
            if ".." not in file.parts:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), site / file)
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", "-I", "-c", PROGRAM, shop.broker_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split("\n") == ["0", "101.001033", "[]", ""], done.stderr

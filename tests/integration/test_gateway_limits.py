"""The gateway under way: no worker, no broker, too much at once, its start and its end."""

import concurrent.futures
import json
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil
import pytest
import requests
from kombu import Connection

from messages.updates import StatusUpdate
from sandbox.broker import PrivateBroker
from sandbox.gateway import GatewayProcess
from sandbox.processes import free_ports
from tests.support.http import FAILED, EventReader, Site, as_json, gateways, port_of
from tests.support.proxy import Proxy
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow
Start = Callable[..., GatewayProcess]


@pytest.fixture
def start(workshop: Workshop) -> Iterator[Start]:
    with gateways(workshop) as found:
        yield found


def reason(answer: requests.Response) -> str:
    assert answer.json()["code"] == FAILED
    return str(answer.json()["data"]["reason"])


def test_a_result_that_comes_too_late_is_kept_for_the_same_key(
    workshop: Workshop, start: Start
) -> None:
    server = workshop.tenant().make_server()
    # No worker: the commands wait in their queue.
    site = Site(workshop, start(ECS_COMMAND_TIMEOUT="0.5", ECS_GATEWAY_MAX_IN_FLIGHT="4"))
    key = as_json(**{"Idempotency-Key": f"late-{uuid.uuid4()}"})
    path, body = f"/v1/servers/{server}/action", json.dumps({"os-stop": {}})

    def stop(**headers: str) -> requests.Response:
        return site.ask("POST", path, data=body, headers={**key, **headers})

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        begun = time.monotonic()
        first = [threads.submit(stop) for _ in range(2)]
        time.sleep(1)
        # A tenant has as many places as are free, and another one still has its own.
        crowded = stop()
        assert (crowded.status_code, reason(crowded)) == (503, "too_many_requests")
        assert int(crowded.headers["Retry-After"]) >= 1
        other = threads.submit(site.ask, "GET", "/v1/images", headers={"X-Tenant-Id": "tenant-b"})
        for answer in (one.result() for one in [*first, other]):
            assert (answer.status_code, reason(answer)) == (504, "no_answer")
        assert 5 <= time.monotonic() - begun < 12
    workshop.worker()
    answered = [stop() for _ in range(2)]
    assert {one.status_code for one in answered} == {200}
    assert len({one.content for one in answered}) == 1
    assert workshop.calls_of(key["Idempotency-Key"])["POST"] == 1


def test_without_a_broker_requests_are_503_and_streams_are_told_of_the_gap(
    workshop: Workshop, start: Start
) -> None:
    broker = int(workshop.broker_url.rpartition("@")[2].partition(":")[2].partition("/")[0])
    workshop.worker()
    server = workshop.tenant().make_server()
    with Proxy(broker) as proxy:
        site = Site(workshop, start(ECS_BROKER_URL=proxy.url_of(workshop.broker_url)))
        stream = EventReader(f"{site.gateway.url}/v1/events", {**site.own})
        key = as_json(**{"Idempotency-Key": uuid.uuid4().hex})
        path = f"/v1/servers/{server}/action"
        proxy.blackhole()
        proxy.reset()
        away = site.ask("POST", path, data=json.dumps({"os-stop": {}}), headers=key)
        assert (away.status_code, reason(away)) == (503, "broker_unavailable")
        assert int(away.headers["Retry-After"]) >= 1
        assert away.headers["X-Request-Id"] == key["Idempotency-Key"]
        eventually(lambda: any("broker" in one for one in site.gateway.problems()), 10)
        refused_stream = requests.get(
            f"{site.gateway.url}/v1/events", headers={**site.own}, timeout=10
        )
        assert refused_stream.status_code == 503
        proxy.clear()
        eventually(lambda: not site.gateway.problems(), 30)
        asked = site.ask("POST", path, data=json.dumps({"os-stop": {}}), headers=key)
        assert asked.status_code == 200, asked.text
        eventually(lambda: "broker_reconnected" in stream.notices("gap"), 10)
        eventually(lambda: any(one["final"] for one in stream.updates()), 30)
        stream.close()


def test_a_gateway_that_the_broker_refuses_says_so_and_serves_when_that_is_mended(
    workshop: Workshop, start: Start, broker: PrivateBroker
) -> None:
    workshop.worker()
    user, parts = f"gateway-{uuid.uuid4().hex[:8]}", urlsplit(workshop.broker_url)
    own = parts._replace(netloc=f"{user}:hunter2@{parts.hostname}:{parts.port}").geturl()
    site = Site(workshop, start(wait=False, ECS_BROKER_URL=own))
    told = f"the broker at {parts.hostname}:{parts.port} refuses this user and password"
    eventually(lambda: f"broker: {told}" in site.gateway.problems(), 30)
    away = site.ask("GET", "/v1/images")
    assert (away.status_code, reason(away)) == (503, "broker_unavailable")
    broker.rabbitmqctl("add_user", user, "hunter2")
    vhost = unquote(parts.path[1:])
    broker.rabbitmqctl("set_permissions", "--vhost", vhost, user, ".*", ".*", ".*")
    eventually(lambda: not site.gateway.problems(), 30)
    assert site.ask("GET", "/v1/images").status_code == 200
    logged = site.gateway.log.read_text()
    assert told in logged
    assert "hunter2" not in logged
    site.gateway.stop()
    broker.rabbitmqctl("delete_user", user)


def test_a_client_that_hangs_up_stops_nothing_and_two_with_one_key_get_one_result(
    workshop: Workshop, start: Start
) -> None:
    workshop.worker()
    first, second = (workshop.tenant().make_server() for _ in range(2))
    site = Site(workshop, start())
    key = {"Idempotency-Key": uuid.uuid4().hex}
    os.kill(workshop.running.pid, signal.SIGSTOP)  # the commands wait
    body = b'{"os-stop": {}}'
    head = f"POST /v1/servers/{first}/action HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: tenant-a\r\n"
    gone = connected(site.gateway, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        path = f"/v1/servers/{second}/action"
        stop = {"json": {"os-stop": {}}, "headers": key}
        both = [threads.submit(site.ask, "POST", path, **stop) for _ in range(2)]
        eventually(lambda: "ecs_gateway_in_flight 3.0" in site.gateway.metrics(), 10)
        gone.close()
        # The three that ask and look are left.
        eventually(lambda: "ecs_gateway_connections 3.0" in site.gateway.metrics(), 10)
        os.kill(workshop.running.pid, signal.SIGCONT)
        answers = [one.result() for one in both]
    assert {one.status_code for one in answers} == {200}
    assert answers[0].content == answers[1].content
    assert workshop.calls_of(key["Idempotency-Key"])["POST"] == 1
    workshop.tenant().wait(first, lambda one: one["status"] == "SHUTOFF")
    eventually(lambda: "ecs_gateway_in_flight 0.0" in site.gateway.metrics(), 10)


def test_what_is_under_way_ends_before_the_gateway_does(workshop: Workshop, start: Start) -> None:
    workshop.worker()
    server = workshop.tenant().make_server()
    site = Site(workshop, start())
    with (
        concurrent.futures.ThreadPoolExecutor(1) as threads,
        EventReader(f"{site.gateway.url}/v1/events", {**site.own}) as stream,
    ):
        os.kill(workshop.running.pid, signal.SIGSTOP)  # the command waits
        path = f"/v1/servers/{server}/action"
        waiting = threads.submit(site.ask, "POST", path, json={"os-stop": {}})
        eventually(lambda: "ecs_gateway_in_flight 1.0" in site.gateway.metrics(), 10)
        site.gateway.signal(signal.SIGTERM)
        eventually(lambda: "draining" in site.gateway.problems(), 10)
        refused = site.ask("GET", "/v1/servers/1/10")
        assert (refused.status_code, reason(refused)) == (503, "draining")
        assert refused.headers["Connection"] == "close"
        eventually(lambda: stream.has_ended, 10)
        assert stream.notices("end") == ["draining"]
        os.kill(workshop.running.pid, signal.SIGCONT)
        assert waiting.result().status_code == 200
        assert site.gateway.wait(30) == 0
    with pytest.raises(requests.ConnectionError):
        site.ask("GET", "/livez")


def test_a_start_that_cannot_be_says_which_variable_is_wrong(workshop: Workshop) -> None:
    (port,) = free_ports(1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        refused = workshop.command("gateway", ECS_GATEWAY_LISTEN=f"127.0.0.1:{port}")
    assert refused.returncode == 3
    assert refused.stderr == (
        f"ECS_GATEWAY_LISTEN: port {port} of 127.0.0.1 is in use; choose another\n"
    )
    for name, value in (
        ("ECS_GATEWAY_LISTEN", "8081"),
        ("ECS_GATEWAY_LISTEN", "127.0.0.1:0"),
        ("ECS_GATEWAY_LISTEN", "192.0.2.1:8081"),
        ("ECS_GATEWAY_MAX_IN_FLIGHT", "0"),
        ("ECS_TRUST_PUBLISHERS", "false"),
        ("ECS_BROKER_URL", "http://x"),
    ):
        wrong = workshop.command("gateway", **{name: value})
        assert wrong.returncode == 3, wrong.stderr
        assert name in wrong.stderr
        assert "Traceback" not in wrong.stderr


def test_a_reader_that_does_not_read_its_stream_is_cut_off_and_holds_no_memory(
    workshop: Workshop, start: Start
) -> None:
    workshop.worker()  # declares the exchanges
    gateway = start()
    request = b"GET /v1/events HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: tenant-a\r\n\r\n"
    lazy = socket.socket()
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lazy.connect(("127.0.0.1", port_of(gateway)))
    lazy.sendall(request)
    project = workshop.tenant().project_id
    reader = EventReader(f"{gateway.url}/v1/events?resource=image", {"X-Tenant-Id": "tenant-a"})
    eventually(lambda: "ecs_gateway_streams 2.0" in gateway.metrics(), 10)
    before = psutil.Process(gateway.pid).memory_info().rss
    with Connection(workshop.broker_url) as connection:
        producer = connection.Producer(serializer="json")
        told = StatusUpdate.model_validate(
            {
                **{"resource": "server", "id": str(uuid.uuid4()), "operation": "server.action"},
                **{"action": None, "status": "x" * 4000, "translation": None, "final": False},
                **{"message_id": "m", "tenant_id": project, "user_id": None, "time": "t"},
            }
        ).model_dump(mode="json", by_alias=True, exclude_unset=True)
        for number in range(3000):
            producer.publish(told, "server.x", exchange="ecs.status", message_id=f"flood-{number}")
        told["resource"] = "image"
        producer.publish(told, "image.x", exchange="ecs.status", message_id="the last one")
    eventually(lambda: reader.ids() == ["the last one"], 60)
    shown = gateway.metrics()
    assert "ecs_gateway_streams_cut_total 1.0" in shown
    assert "ecs_gateway_streams 1.0" in shown
    reader.close()
    lazy.close()
    grown = psutil.Process(gateway.pid).memory_info().rss - before
    assert grown < 40 * 1024 * 1024, f"{grown / 1024**2:.0f} MiB"


def test_a_client_that_does_not_speak_is_cut_off(workshop: Workshop, start: Start) -> None:
    workshop.worker()
    gateway = start()
    silent = [connected(gateway, data) for data in (b"", b"GET /livez HTTP/1.1\r\nX: y")]
    idle = connected(gateway, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    body = b"POST /v1/orders HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: a\r\nContent-Length: 9\r\n\r\n{"
    slow = connected(gateway, body)
    limit = time.monotonic() + 60
    for one in silent:
        assert answer_of(one) == b""
    assert answer_of(slow).startswith(b"HTTP/1.1 408 ")
    assert answer_of(idle).startswith(b"HTTP/1.1 200 ")
    assert time.monotonic() < limit
    assert "ecs_gateway_connections 1.0" in gateway.metrics()


def test_streams_leave_connections_for_requests(workshop: Workshop) -> None:
    workshop.tenant()
    gateway = GatewayProcess(workshop.settings, workshop.folder)
    gateway._command[:0] = ["sh", "-c", 'ulimit -n 300; exec "$@"', "sh"]
    try:
        gateway.start()
        asked = b"GET /v1/events HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: tenant-a\r\n\r\n"
        streams, head = [], b"HTTP/1.1 200 "
        while head.startswith(b"HTTP/1.1 200 "):
            streams.append(connected(gateway, asked))
            head = streams[-1].recv(65536)
        while b"}" not in head and (more := streams[-1].recv(65536)):
            head += more
        assert b"too_many_streams" in head
        assert len(streams) < 60
        assert requests.get(f"{gateway.url}/livez", timeout=10).status_code == 200
    finally:
        gateway.stop()


def connected(gateway: GatewayProcess, data: bytes) -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port_of(gateway)), timeout=60)
    one.sendall(data)
    return one


def answer_of(one: socket.socket) -> bytes:
    """Return what comes until the gateway closes."""
    found: Any = b""
    try:
        while chunk := one.recv(65536):
            found += chunk
    except ConnectionError:
        pass
    one.close()
    return bytes(found)

"""The worker's HTTP port: what it answers, who reaches it, and that it cannot be used to take the
work's means (87).
"""

import contextlib
import http.client
import json
import resource
import select
import socket
import time
from collections.abc import Iterator

import psutil
import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.processes import free_ports
from sandbox.requester import Requester
from sandbox.worker import WorkerProcess
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.health import MOST_CONNECTIONS, REQUEST_SECONDS

pytestmark = pytest.mark.slow

IDLE = 1100


def port_of(worker: WorkerProcess) -> int:
    return int(worker.url.rpartition(":")[2])


def asked(
    worker: WorkerProcess, path: str, method: str = "GET"
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(worker), timeout=5)
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.headers)


def sent(worker: WorkerProcess, data: bytes) -> bytes:
    """Return what comes back for these bytes."""
    with socket.create_connection(("127.0.0.1", port_of(worker)), timeout=5) as one:
        one.sendall(data)
        return b"".join(iter(lambda: one.recv(65536), b""))


@pytest.fixture
def many_files() -> Iterator[None]:
    """This process may hold as many connections as the test needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_port_answers_three_paths_and_nothing_else(workshop: Workshop) -> None:
    worker = workshop.worker()
    assert asked(worker, "/livez")[:2] == (200, b'{"status": "ok"}')
    status, body, headers = asked(worker, "/readyz?verbose=1")
    assert (status, json.loads(body)) == (200, {"status": "ok", "problems": [], "paused": []})
    assert headers["Content-Type"] == "application/json"
    status, body, headers = asked(worker, "/metrics")
    assert (status, b"ecs_in_flight" in body, headers["Content-Type"].partition(";")[0]) == (
        200,
        True,
        "text/plain",
    )
    assert asked(worker, "/livez", "HEAD")[:2] == (200, b"")
    assert asked(worker, "/docs")[0] == 404
    assert asked(worker, "/livez", "POST")[0] == 405
    for odd in (
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\xff\xfe \x00 HTTP/2\r\n\r\n",
        b"GET /livez HTTP/9\r\n\r\n",
    ):
        assert sent(worker, odd).startswith(b"HTTP/1.1 400 ")
    assert sent(worker, b"GET /" + b"x" * 9000).startswith(b"HTTP/1.1 431 ")
    assert sent(worker, b"GET /livez HTTP/1.1\r\n\r\n" * 3).count(b"HTTP/1.1") == 1
    listening = [
        one.laddr.ip
        for one in psutil.Process(worker.pid).net_connections()
        if one.status == "LISTEN"
    ]
    assert listening == ["127.0.0.1"]


def test_every_dead_letter_is_counted(workshop: Workshop) -> None:
    worker = workshop.worker()
    with Requester(workshop.broker_url) as requester:
        # One that no queue takes, and one that is malformed and has nobody to hear its answer.
        requester.publish("ecs.commands", "volume.create", {"operation": "volume.create"})
        requester.publish("ecs.commands", "server.list", {"operation": "server.lost"})
        eventually(lambda: requester.depth("ecs.dead") == 2)

    def is_counted() -> bool:
        return b'ecs_messages_total{event="dead_lettered"} 2.0' in asked(worker, "/metrics")[1]

    eventually(is_counted)


def test_the_address_is_configured(workshop: Workshop) -> None:
    worker = workshop.worker(ECS_HTTP_HOST="0.0.0.0")
    listening = [
        one.laddr.ip
        for one in psutil.Process(worker.pid).net_connections()
        if one.status == "LISTEN"
    ]
    assert listening == ["0.0.0.0"]


@pytest.mark.parametrize("variable", ["ECS_HTTP_PORT", "ECS_HTTP_HOST"])
def test_a_port_that_cannot_be_had_is_one_line_and_nothing_is_consumed(
    workshop: Workshop, variable: str
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        Requester(workshop.broker_url) as requester,
    ):
        requester.command("server.list")
        settings = {"ECS_HTTP_PORT": str(taken.getsockname()[1])}
        if variable == "ECS_HTTP_HOST":
            settings = {"ECS_HTTP_HOST": "203.0.113.7", "ECS_HTTP_PORT": str(free_ports(1)[0])}
        done = workshop.command("run", **settings)
        assert done.returncode == 3
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"{variable}: ")
        assert done.stdout == ""
        assert requester.depth("ecs.reads") == 1


def test_readiness_names_what_is_down_and_no_url(
    declared: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        SimulatedOpenStack(pace=0.2) as cloud,
        Workshop(declared, cloud, tmp_path_factory.mktemp("down")) as shop,
        Requester(declared) as requester,
    ):
        worker = shop.worker(ECS_COMMAND_TIMEOUT="5")
        cloud.stop_server()

        def is_told() -> bool:
            # On a busy machine the first may run out of time before the cloud is asked at all.
            for _ in range(10):
                requester.command("server.list")
            requester.listen(5)
            return any("identity is down" in one for one in worker.problems())

        eventually(is_told, 120)
        status, body, _ = asked(worker, "/readyz")
        assert status == 503
        assert b"://" not in body
        assert str(cloud.clouds_yaml).encode() not in body
        nowhere = shop.worker(wait=False, ECS_BROKER_URL="amqp://someone:secret-word@127.0.0.1:1//")
        eventually(lambda: any("broker" in one for one in nowhere.problems()), 60)
        problems = " ".join(json.loads(asked(nowhere, "/readyz")[1])["problems"])
        assert "broker" in problems
        assert "://" not in problems
        assert "secret-word" not in problems


def test_a_request_has_five_seconds_to_come_in(workshop: Workshop) -> None:
    worker = workshop.worker()
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port_of(worker)), timeout=15) as slow:
        with contextlib.suppress(OSError):
            for byte in b"GET /livez HTTP/1.1\r\nHost: a-name-that-takes-long\r\n\r\n":
                slow.sendall(bytes([byte]))
                if select.select([slow], [], [], 0.5)[0]:
                    break
        with contextlib.suppress(ConnectionResetError):
            assert slow.recv(1000) == b""
    assert REQUEST_SECONDS - 1 < time.monotonic() - begun < REQUEST_SECONDS + 8
    assert asked(worker, "/livez")[0] == 200


def test_a_thousand_idle_connections_do_not_touch_the_work(
    workshop: Workshop, many_files: None
) -> None:
    """Fault 87: each second they are as many again, and each second a page is asked for."""
    worker = workshop.worker()
    process = psutil.Process(worker.pid)
    idle: list[socket.socket] = []
    took: dict[bool, list[float]] = {False: [], True: []}
    with Requester(workshop.broker_url) as requester, contextlib.ExitStack() as stack:
        stack.callback(lambda: [one.close() for one in idle])
        requester.result_of(requester.command("server.list"))
        before = process.num_fds()
        for flooded in (False, True):
            for _ in range(8):
                if flooded:
                    idle = _as_many_again(idle, port_of(worker))
                begun = time.monotonic()
                assert requester.result_of(requester.command("server.list"), 10).body["code"] == 200
                took[flooded].append(time.monotonic() - begun)
                if flooded:
                    assert asked(worker, "/readyz")[0] == 200
                    assert process.num_fds() <= before + MOST_CONNECTIONS + 64 + 20
                time.sleep(max(0.0, begun + 1 - time.monotonic()))
        print({flooded: [round(one, 3) for one in seconds] for flooded, seconds in took.items()})
        assert (
            sorted(took[True])[len(took[True]) // 2]
            < sorted(took[False])[len(took[False]) // 2] * 3 + 0.5
        )
    assert "Traceback" not in workshop.logs()
    assert "out of system resource" not in workshop.logs()
    eventually(lambda: process.num_fds() <= before + 5, REQUEST_SECONDS + 10)


def _as_many_again(idle: list[socket.socket], port: int) -> list[socket.socket]:
    """The connections that live, and new ones in the place of those that were ended."""
    ended = _readable(idle)
    for one in ended:
        one.close()
    alive = [one for one in idle if one not in ended]
    while len(alive) < IDLE:
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", port))
        alive.append(one)
    return alive


def _readable(sockets: list[socket.socket]) -> set[socket.socket]:
    """Those that were ended; select counts no further than 1024."""
    poll = select.poll()
    by_number = {one.fileno(): one for one in sockets}
    for number in by_number:
        poll.register(number, select.POLLIN | select.POLLHUP | select.POLLERR)
    return {by_number[number] for number, _ in poll.poll(0)}

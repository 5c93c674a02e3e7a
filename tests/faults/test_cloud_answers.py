"""Tests what OpenStack may answer, and what it is taken for (faults 43..49): the SDK's own calls,
spoiled at the wire.
"""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from email.utils import formatdate
from typing import Any
from uuid import uuid4

import pytest
import requests

from handlers.openstack import http
from handlers.openstack.cloud import Cloud
from handlers.openstack.errors import CloudRefusal, Conflict, Forbidden, NotFound, QuotaExceeded
from handlers.openstack.project import Project
from handlers.openstack.sessions import CloudSettings, Service
from messages.errors import Ambiguous, Transient
from sandbox.openstack import SimulatedOpenStack


@pytest.fixture
async def project(
    simulated: SimulatedOpenStack, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Project]:
    async for found in _project(simulated, monkeypatch, CloudSettings("ecs-worker")):
        yield found


@pytest.fixture
async def impatient(
    simulated: SimulatedOpenStack, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Project]:
    """With time-outs of a second or two."""
    settings = CloudSettings("ecs-worker", call_timeout=1.0, call_limit=2.0)
    async for found in _project(simulated, monkeypatch, settings):
        yield found


async def _project(
    simulated: SimulatedOpenStack, monkeypatch: pytest.MonkeyPatch, settings: CloudSettings
) -> AsyncIterator[Project]:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(simulated.clouds_yaml))
    cloud = Cloud(settings)
    name = await cloud.find_project("tenant-a")
    yield await cloud.project(name.id)
    await cloud.close()
    simulated.clear_faults()


async def answered(
    project: Project, simulated: SimulatedOpenStack, method: str, **fault: Any
) -> Exception | None:
    """Return what a call ends with whose answer is spoiled."""
    name = uuid4().hex
    simulated.fault("api.nova", match=name, **fault)
    try:
        if method == "GET":
            await project.get(Service.COMPUTE, f"/servers/detail?name={name}")
        else:
            await project.post(Service.COMPUTE, "/os-keypairs?" + name, {"keypair": {"name": name}})
    except (Transient, CloudRefusal) as error:
        return error
    return None


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (403, "Policy doesn't allow it", Forbidden),
        (403, "Quota exceeded for cores: Requested 8", QuotaExceeded),
        (403, "Policy doesn't allow os_compute_api:os-quota-sets:show to be performed.", Forbidden),
        (413, "Request is too large. Larger than max_request_body_size", CloudRefusal),
        (404, "Instance could not be found", NotFound),
        (410, "gone", NotFound),
        (409, "Cannot 'stop' instance while it is in task_state", Conflict),
        (400, "Invalid input", CloudRefusal),
    ],
)
async def test_a_refusal_is_known_for_what_it_is(
    project: Project,
    simulated: SimulatedOpenStack,
    method: str,
    status: int,
    text: str,
    kind: type[CloudRefusal],
) -> None:
    error = await answered(project, simulated, method, status=status, error=text)
    assert type(error) is kind
    assert (error.status, error.detail) == (status, text)
    assert str(error.request_id).startswith("req-")


@pytest.mark.parametrize(
    "segment", ["..", ".", "../os-services", "a/../b", "a?b", "a#b", "a b", "\n", "", "a\\b"]
)
async def test_no_path_leaves_the_resource_that_it_was_made_for(
    project: Project, simulated: SimulatedOpenStack, segment: str
) -> None:
    """The HTTP library takes dots away together with the segment before them."""
    before = len(simulated.calls())
    with pytest.raises(NotFound):
        await project.post(Service.COMPUTE, f"/servers/{segment}/action", {"os-stop": None})
    assert len(simulated.calls()) == before


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("status", "wait"), [(429, "7"), (413, "7"), (503, "7"), (429, "date")])
async def test_the_time_that_the_cloud_asks_for_is_known(
    project: Project, simulated: SimulatedOpenStack, method: str, status: int, wait: str
) -> None:
    retry_after = formatdate(time.time() + 7, usegmt=True) if wait == "date" else wait
    error = await answered(
        project, simulated, method, status=status, error="slow down", retry_after=retry_after
    )
    assert isinstance(error, Transient)
    assert error.retry_after == pytest.approx(7, abs=1.5)
    # Whoever is told to come later was not served.
    assert isinstance(error, Ambiguous) == (status == 503 and method == "POST")


@pytest.mark.parametrize(
    ("fault", "reason", "late"),
    [
        ({"status": 500, "error": "oops"}, "http_500", False),
        ({"status": 503, "error": "oops"}, "http_503", False),
        ({"status": 502, "error": "bad gateway"}, "http_502", True),
        ({"status": 504, "error": "gateway time-out"}, "http_504", True),
        ({"answer": "html"}, "bad_answer", False),
        ({"answer": "cut"}, "bad_answer", False),
        ({"answer": "endless"}, "bad_answer", False),
        ({"answer": "hangup"}, "no_answer", False),
        ({"answer": "drip"}, "no_answer", False),
        ({"delay": 4}, "no_answer", True),
    ],
)
async def test_after_a_lost_answer_a_call_may_have_been_carried_out(
    impatient: Project, simulated: SimulatedOpenStack, fault: Any, reason: str, late: bool
) -> None:
    began = time.monotonic()
    error = await answered(impatient, simulated, "POST", **fault)
    assert isinstance(error, Ambiguous)
    assert (error.reason, error.may_land_late) == (reason, late)
    error = await answered(impatient, simulated, "GET", **fault)
    assert isinstance(error, Transient)
    assert not isinstance(error, Ambiguous)
    assert time.monotonic() - began < 20
    # The connections that were given up on are in nobody's way.
    assert await answered(impatient, simulated, "GET") is None


async def test_an_endless_answer_takes_no_more_memory_than_the_longest_that_is_read(
    project: Project, simulated: SimulatedOpenStack
) -> None:
    import tracemalloc  # noqa: PLC0415

    tracemalloc.start()
    error = await answered(project, simulated, "GET", answer="endless")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "longer than" in str(error)
    assert peak < 3 * http.MAX_ANSWER


async def test_a_token_that_is_no_longer_taken_is_replaced(
    project: Project, simulated: SimulatedOpenStack
) -> None:
    assert await answered(project, simulated, "GET", status=401, error="expired", times=1) is None
    assert await answered(project, simulated, "POST", status=401, error="expired", times=1) is None
    for method in ("GET", "POST"):
        error = await answered(project, simulated, method, status=401, error="expired")
        # It was not carried out, and is no refusal of the tenant's either: the service account is
        # at fault.
        assert type(error) is Transient
        assert error.reason == "http_401"


@pytest.mark.parametrize(
    ("service", "name"), [(Service.IMAGE, "glance"), (Service.COMPUTE, "nova")]
)
async def test_a_service_that_is_down_when_it_is_first_met_is_no_riddle(
    service: Service, name: str
) -> None:
    """The SDK then asks for versions before it calls, and takes their absence for a fault of the
    configuration.
    """
    with SimulatedOpenStack() as cloud, pytest.MonkeyPatch.context() as environment:
        environment.setenv("OS_CLIENT_CONFIG_FILE", str(cloud.clouds_yaml))
        ours = Cloud(CloudSettings("ecs-worker"))
        project = await ours.project((await ours.find_project("tenant-a")).id)
        cloud.fault(f"api.{name}", error="down", status=503)
        path = "/images" if service is Service.IMAGE else "/servers/detail"
        for _ in range(2):
            with pytest.raises(Transient):
                await project.get(service, path)
        cloud.clear_faults()
        assert (await project.get(service, path)).status == 200
        await ours.close()


async def test_a_log_in_that_is_refused_to_everybody_ends(
    simulated: SimulatedOpenStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even Keystone's versions are answered with 401, as by a gateway before it: the SDK would wait
    for itself.
    """
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(simulated.clouds_yaml))
    cloud = Cloud(CloudSettings("ecs-worker"))
    simulated.fault("api.keystone", status=401, error="who are you?")
    try:
        for _ in range(2):
            with pytest.raises(Transient):
                await asyncio.wait_for(cloud.find_project("tenant-a"), 5)
    finally:
        simulated.clear_faults()
    assert (await cloud.find_project("tenant-a")).name == "tenant-a"
    await cloud.close()


async def test_a_log_in_that_hangs_ends_whatever_it_is_for(
    simulated: SimulatedOpenStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(simulated.clouds_yaml))
    cloud = Cloud(CloudSettings("ecs-worker", call_timeout=0.5, call_limit=1.0))
    await cloud.list_projects()
    simulated.fault("api.keystone", match="POST .*/auth/tokens", delay=30)
    try:
        with pytest.raises(Transient):
            await asyncio.wait_for(cloud.find_project("tenant-a"), 10)
    finally:
        simulated.clear_faults()
    await cloud.close()


async def test_a_thread_is_free_again_when_its_call_has_ended_not_when_nobody_waits_any_more() -> (
    None
):
    cloud = Cloud(CloudSettings("ecs-worker", threads=1))
    ending, begun = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def call() -> None:
        loop.call_soon_threadsafe(begun.set)
        ending.wait(10)

    first = asyncio.create_task(cloud.threads.run(call))
    await begun.wait()
    first.cancel()
    second = asyncio.create_task(cloud.threads.run(lambda: "done"))
    await asyncio.wait([first, second], timeout=0.2)
    assert (first.cancelled(), second.done()) == (True, False)
    ending.set()
    assert await second == "done"
    await cloud.close()


async def test_a_call_that_may_no_longer_be_sent_is_not(
    project: Project, simulated: SimulatedOpenStack
) -> None:
    from handlers.effects.backoff import Deadline  # noqa: PLC0415
    from handlers.openstack.project import fence  # noqa: PLC0415

    async def over() -> Deadline:
        return Deadline.after(-1)

    fence.set(over)
    before = len(simulated.calls())
    error = await answered(project, simulated, "POST")
    assert type(error) is Transient
    assert error.reason == "not_sent"
    assert not [call for call in simulated.calls()[before:] if "keypairs" in call]
    assert await answered(project, simulated, "GET") is None


# Servers that speak worse HTTP than a framework lets one.


@pytest.fixture
def rude_server() -> Iterator[Any]:
    """Answers each connection with the chunks of bytes that it is told, and so many seconds between
    them.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)

        def answer_with(chunks: Any, pause: float) -> str:
            def serve() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(65536)
                    try:
                        for chunk in chunks:
                            connection.sendall(chunk)
                            time.sleep(pause)
                    except OSError:
                        return

            threading.Thread(target=serve, daemon=True).start()
            return f"http://127.0.0.1:{server.getsockname()[1]}/"

        yield answer_with


def ours(limit: float = 60.0) -> requests.Session:
    session = requests.Session()
    session.mount("http://", http.Transport(1, http.CallTimes(silence=30.0, total=limit)))
    return session


def trickle(text: bytes) -> list[bytes]:
    return [text[index : index + 1] for index in range(len(text))]


@pytest.mark.parametrize(
    ("chunks", "pause"),
    [
        (
            trickle(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
            ),
            0.2,
        ),
        (trickle(b"HTTP/1.1 200 OK\r\n" + b"X-Pad: y\r\n" * 50), 0.2),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", *trickle(b" " * 100)], 0.2),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"1\r\n \r\n"] * 100], 0.2),
    ],
)
def test_an_answer_that_trickles_in_ends_at_the_limit(
    rude_server: Any, chunks: list[bytes], pause: float
) -> None:
    began = time.monotonic()
    url = rude_server(chunks, pause)
    with ours(limit=1.5) as session, pytest.raises(requests.RequestException):
        session.get(url, timeout=1.0)
    assert 1.0 < time.monotonic() - began < 6.0


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_a_packed_answer_is_not_unpacked(rude_server: Any, encoding: str) -> None:
    url = rude_server(
        [f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: 9\r\n\r\n".encode()],
        1.0,
    )
    with ours() as session, pytest.raises(http.OddAnswer, match="packed"):
        session.get(url, timeout=5.0)


def test_a_connection_is_used_again_after_a_slow_answer() -> None:
    """The time that an answer had left is no limit of the next call."""
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections = []

        def serve() -> None:
            connection, _ = server.accept()
            connections.append(connection)
            for pause in (0.8, 0.0):
                connection.recv(65536)
                time.sleep(pause)
                connection.sendall(one)

        threading.Thread(target=serve, daemon=True).start()
        with ours() as session:
            url = f"http://127.0.0.1:{server.getsockname()[1]}/"
            assert [session.get(url, timeout=5.0).json() for _ in range(2)] == [{}, {}]
        assert len(connections) == 1

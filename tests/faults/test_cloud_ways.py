"""Tests how calls reach the services: everything that the SDK would have done with clouds.yaml and
the environment is done on the loop, too.
"""

import asyncio
import base64
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openstack
import pytest

from handlers.openstack.cloud import Cloud
from handlers.openstack.project import Project
from handlers.openstack.sessions import CloudSettings, Service
from messages.errors import Ambiguous, Transient
from sandbox.openstack import SimulatedOpenStack
from tests.support.certificates import Authority
from tests.support.tls_proxy import TlsProxy

KEYPAIR = {"keypair": {"name": "ways"}}


@pytest.fixture(autouse=True)
def _surroundings(simulated: SimulatedOpenStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    # The first use of urllib fixes the proxies by which the simulated cloud is told what to do.
    simulated.clear_faults()
    yield
    simulated.clear_faults()


@asynccontextmanager
async def tenant(
    simulated: SimulatedOpenStack, folder: Path, **entry: Any
) -> AsyncIterator[Project]:
    """tenant-a's project; `entry` is added to the cloud's entry in clouds.yaml."""
    clouds = json.loads(simulated.clouds_yaml.read_text())
    clouds["clouds"]["ecs-worker"] |= entry
    path = folder / "clouds.yaml"
    path.write_text(json.dumps(clouds))
    cloud = Cloud(CloudSettings("ecs-worker", config_file=str(path), call_timeout=5.0))
    try:
        yield await cloud.project((await cloud.find_project("tenant-a")).id)
    finally:
        await cloud.close()


def log_ins(simulated: SimulatedOpenStack) -> int:
    return sum("POST" in call and "/auth/tokens" in call for call in simulated.calls())


class ForwardProxy:
    """A proxy as `http_proxy` names one; `heads` are the requests that it was sent in the clear."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            head = client.recv(65536)
            method, target, _ = head.decode("latin-1").split(" ", 2)
            tunnels = method == "CONNECT"
            url = urlsplit(f"//{target}" if tunnels else target)
            with socket.create_connection((str(url.hostname), url.port or 80)) as server:
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()
                self.heads.append(head.decode("latin-1"))
                if tunnels:
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    server.sendall(head)
                while data := client.recv(65536):
                    if not tunnels:
                        self.heads.append(data.decode("latin-1"))
                    server.sendall(data)

    @staticmethod
    def _answer(server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    found = ForwardProxy()
    yield found
    found.close()


def sent(proxy: ForwardProxy, pattern: str) -> dict[str, str]:
    """The headers of the one request whose first line matches."""
    (head,) = [one for one in proxy.heads if re.match(pattern, one)]
    lines = head.partition("\r\n\r\n")[0].split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize("service", Service)
async def test_the_headers_are_those_of_the_sdk(
    simulated: SimulatedOpenStack,
    proxy: ForwardProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    service: Service,
) -> None:
    monkeypatch.setenv("http_proxy", f"http://us%40er:secret@127.0.0.1:{proxy.port}")
    async with tenant(simulated, tmp_path) as project:
        path = {"compute": "/servers", "block_storage": "/snapshots/detail", "image": "/images"}
        asked = path.get(service.proxy, "/ports")
        await project.get(service, asked, {"limit": 7, "name": ["a b", "ä&"], "marker": None})
        ours = sent(proxy, rf"GET http://\S+{asked}\?limit=7&name=a\+b&name=%C3%A4%26 ")
        config = openstack.config.OpenStackConfig(
            config_files=[str(tmp_path / "clouds.yaml")], app_name="ecs-worker"
        )
        with openstack.connection.Connection(config=config.get_one("ecs-worker")) as account:
            proxied = getattr(account.connect_as(project_id=project.id), service.proxy)
            given = {"microversion": service.microversion} if service.microversion else {}
            proxied.request(asked + "?sdk", "GET", **given)
        theirs = sent(proxy, rf"GET http://\S+{asked}\?sdk ")
    assert ours.pop("X-Auth-Token") != theirs.pop("X-Auth-Token")
    # What is packed is not read.
    assert ours.pop("Accept-Encoding") == "identity"
    del theirs["Accept-Encoding"]
    assert ours == theirs
    assert ours["Proxy-Authorization"] == f"Basic {base64.b64encode(b'us@er:secret').decode()}"
    assert "python-requests" in ours["User-Agent"]


async def test_no_proxy_is_asked_for_hosts_that_are_excepted(
    simulated: SimulatedOpenStack,
    proxy: ForwardProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with tenant(simulated, tmp_path) as project:
        await project.get(Service.COMPUTE, "/servers")
    assert not [head for head in proxy.heads if "_sandbox" not in head]


async def test_a_proxy_of_another_kind_is_named(
    simulated: SimulatedOpenStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tenant(simulated, tmp_path) as project:
        monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(Transient) as caught:
            await project.post(Service.COMPUTE, "/os-keypairs", KEYPAIR)
        assert not isinstance(caught.value, Ambiguous)


@contextmanager
def tls_before(simulated: SimulatedOpenStack, folder: Path) -> Iterator[tuple[TlsProxy, Any]]:
    """Nova behind TLS with certificates of a private CA, also the client's; and the entry in
    clouds.yaml for it.
    """
    authority = Authority(folder)
    own = authority.issue("client")
    pair = authority.issue("server", ["localhost"])
    with TlsProxy(pair, simulated.port, clients=authority.certificate) as listener:
        entry = {
            "cacert": str(authority.certificate),
            "cert": str(own.certificate),
            "key": str(own.key),
            "compute_endpoint_override": f"https://localhost:{listener.port}/compute/v2.1",
        }
        yield listener, entry


async def test_tls_is_spoken_with_the_certificates_of_clouds_yaml(
    simulated: SimulatedOpenStack, tmp_path: Path
) -> None:
    with tls_before(simulated, tmp_path) as (listener, entry):
        async with tenant(simulated, tmp_path, **entry) as project:
            for _ in range(2):
                await project.get(Service.COMPUTE, "/servers")
        assert b"GET /compute/v2.1/servers HTTP/1.1\r\n" in listener.received


@pytest.mark.parametrize(
    "wrong", [{"cacert": None}, {"cert": None, "key": None}], ids=["their CA", "our own"]
)
async def test_nothing_is_sent_to_whom_no_certificate_proves(
    simulated: SimulatedOpenStack, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with tls_before(simulated, tmp_path) as (listener, entry):
        async with tenant(simulated, tmp_path, **{**entry, **wrong}) as project:
            with pytest.raises(Transient):
                await project.post(Service.COMPUTE, "/os-keypairs", KEYPAIR)
        assert b"keypair" not in listener.received


async def test_an_unproven_service_is_called_where_that_is_wished(
    simulated: SimulatedOpenStack, tmp_path: Path
) -> None:
    with tls_before(simulated, tmp_path) as (_, entry):
        entry |= {"verify": False, "cacert": None}
        async with tenant(simulated, tmp_path, **entry) as project:
            assert (await project.get(Service.COMPUTE, "/servers")).status == 200


async def test_tls_goes_through_a_proxy_by_a_tunnel(
    simulated: SimulatedOpenStack,
    proxy: ForwardProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", f"http://user:secret@127.0.0.1:{proxy.port}")
    with tls_before(simulated, tmp_path) as (listener, entry):
        async with tenant(simulated, tmp_path, **entry) as project:
            await project.get(Service.COMPUTE, "/servers")
            tunnels = len(proxy.heads)
            await project.get(Service.COMPUTE, "/servers")
            assert len(proxy.heads) == tunnels
        head = proxy.heads[-1]
        assert head.startswith(f"CONNECT localhost:{listener.port} HTTP/1.1\r\n")
        assert "Proxy-Authorization: Basic" in head
        assert b"Proxy-Authorization" not in listener.received


async def test_a_tunnel_that_is_refused_means_that_nothing_was_sent(
    simulated: SimulatedOpenStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls_before(simulated, tmp_path) as (_, entry):
        async with tenant(simulated, tmp_path, **entry) as project:
            await project.get(Service.COMPUTE, "/servers")
        # The simulated cloud is no proxy.
        async with tenant(simulated, tmp_path, **entry) as project:
            await project.log_in()
            monkeypatch.setenv("https_proxy", simulated.url)
            with pytest.raises(Transient) as caught:
                await project.post(Service.COMPUTE, "/os-keypairs", KEYPAIR)
            assert not isinstance(caught.value, Ambiguous)


@contextmanager
def sent_on(location: str, asked: list[str]) -> Iterator[str]:
    """The URL of a server that answers everything with 307 to the same path of another one, and
    notes what it is asked.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        path = connection.recv(65536).split(b" ")[1].decode()
                        asked.append(path)
                        connection.sendall(
                            f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}{path}\r\n"
                            "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
                        )

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


async def test_a_service_may_send_on_to_another_url(
    simulated: SimulatedOpenStack, tmp_path: Path
) -> None:
    asked: list[str] = []
    with sent_on(simulated.url, asked) as second, sent_on(second, asked) as first:
        entry = {"compute_endpoint_override": f"{first}/compute/v2.1"}
        async with tenant(simulated, tmp_path, **entry) as project:
            reply = await project.get(Service.COMPUTE, "/servers", {"limit": 1})
            assert reply.body["servers"] == []
            assert asked[-2:] == ["/compute/v2.1/servers?limit=1"] * 2
            reply = await project.post(Service.COMPUTE, "/os-keypairs", KEYPAIR)
            assert reply.body["keypair"]["name"] == "ways"
            await project.delete(Service.COMPUTE, "/os-keypairs/ways")


async def test_a_token_that_is_not_taken_where_a_call_was_sent_on_is_replaced(
    simulated: SimulatedOpenStack, tmp_path: Path
) -> None:
    asked: list[str] = []
    with sent_on(simulated.url, asked) as url:
        entry = {"compute_endpoint_override": f"{url}/compute/v2.1"}
        async with tenant(simulated, tmp_path, **entry) as project:
            await project.post(Service.COMPUTE, "/os-keypairs", KEYPAIR)
            before = log_ins(simulated)
            simulated.fault("api.nova", match="os-keypairs", status=401, error="expired", times=1)
            await project.delete(Service.COMPUTE, "/os-keypairs/ways")
            assert log_ins(simulated) == before + 1
            assert asked[-2:] == ["/compute/v2.1/os-keypairs/ways"] * 2, "asked as at first"


async def test_a_service_that_only_sends_on_is_asked_no_more(
    simulated: SimulatedOpenStack, tmp_path: Path
) -> None:
    async with tenant(simulated, tmp_path) as project:
        await project.get(Service.COMPUTE, "/servers")
        simulated.fault("api.nova", status=302, error="elsewhere")
        with pytest.raises(Ambiguous) as caught:
            await project.post(Service.COMPUTE, "/os-keypairs", KEYPAIR)
        assert caught.value.reason == "bad_answer"


async def test_a_token_that_is_not_taken_is_replaced_once_for_all_calls(
    simulated: SimulatedOpenStack, tmp_path: Path
) -> None:
    async with tenant(simulated, tmp_path) as project:
        await project.get(Service.COMPUTE, "/servers")
        before = log_ins(simulated)
        simulated.fault("api.nova", match="/servers", status=401, error="expired", times=8)
        calls = (project.get(Service.COMPUTE, "/servers") for _ in range(8))
        assert {reply.status for reply in await asyncio.gather(*calls)} == {200}
        assert log_ins(simulated) == before + 1


async def test_calls_that_begin_together_share_a_log_in(
    simulated: SimulatedOpenStack, tmp_path: Path
) -> None:
    async with tenant(simulated, tmp_path) as project:
        before = log_ins(simulated)
        await asyncio.gather(*(project.get(Service.COMPUTE, "/servers") for _ in range(8)))
        assert log_ins(simulated) == before + 1

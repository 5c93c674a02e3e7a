"""TLS to the broker (fault 83): no password is sent to a peer that was not verified, and the advice
names the cause.

A listener of the test's own passes on to the real broker and keeps what it gets inside TLS; a
second real broker asks for client certificates.
"""

import asyncio
import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kombu.exceptions import OperationalError

from ecs_client import BrokerRefused, BrokerUnavailable, EcsClient
from sandbox.broker import PrivateBroker, TlsListener
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support.certificates import Authority, Pair
from tests.support.responder import OK, Responder
from tests.support.tls_proxy import TlsProxy
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.broker import Broker, explain
from workers.amqp.connection import RecoveringConnection
from workers.amqp.topology import compare, declare, depth, topology

pytestmark = pytest.mark.slow

PASSWORD = "secret-word"
#: Every command that talks to the broker.
COMMANDS = (
    ("check",),
    ("topology", "apply"),
    ("dead", "list"),
    ("dead", "replay", "--all", "--yes"),
    ("dead", "discard", "--all", "--yes"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def stranger(folder: Path) -> Authority:
    return Authority(folder, "stranger")


@pytest.fixture(scope="module")
def good(authority: Authority) -> Pair:
    return authority.issue("broker", ["localhost", "127.0.0.1", "::1"])


@pytest.fixture(scope="module")
def client(authority: Authority) -> Pair:
    return authority.issue("client")


@pytest.fixture(scope="module")
def asking(authority: Authority, good: Pair) -> Iterator[PrivateBroker]:
    """A broker that asks for client certificates, on IPv6 too where the machine has it."""
    addresses = ["::1"] if has_ipv6() else []
    listener = TlsListener(
        good.certificate,
        good.key,
        authority.certificate,
        asks_for_certificate=True,
        addresses=addresses,
    )
    with PrivateBroker(listener) as node:
        yield node


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


def url_by(proxy: TlsProxy, url: str, password: str) -> str:
    """The URL of the same virtual host by the proxy."""
    return f"amqps://guest:{password}@localhost:{proxy.port}/{url.rpartition('/')[2]}"


def first_word(where: Broker) -> str:
    """Return what the worker's own kind of connection tells after the first round over the
    addresses: `up`, or why and what to do.
    """
    told: list[str] = []

    class Listening(RecoveringConnection):
        def _again(self, error: BaseException | str, advice: str = "") -> None:
            if not self._round:  # localhost has two, and only one is listened on
                told.append(f"{error} {advice}")
            super()._again(error, advice)

    async def connect() -> None:
        link = Listening(where, "test", lambda _: told.append("up"), lambda: None)
        link.open()
        async with asyncio.timeout(20):
            while not told:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
        await link.close()

    asyncio.run(connect())
    return told[0]


@pytest.mark.parametrize(
    ("issue", "advice"),
    [
        (lambda authority, _: authority.issue("elsewhere", ["broker.example"]), "another host's"),
        (lambda _, stranger: stranger.issue("impostor", ["localhost"]), "ECS_BROKER_CA_FILE"),
    ],
    ids=["another name", "another CA"],
)
def test_no_command_and_no_worker_sends_the_password_to_a_peer_that_is_not_the_broker(
    workshop: Workshop,
    authority: Authority,
    stranger: Authority,
    issue: Callable[[Authority, Authority], Pair],
    advice: str,
    broker: PrivateBroker,
) -> None:
    with TlsProxy(issue(authority, stranger), broker.port) as proxy:
        url = url_by(proxy, workshop.broker_url, PASSWORD)
        settings = {"ECS_BROKER_URL": url, "ECS_BROKER_CA_FILE": str(authority.certificate)}
        for words in COMMANDS:
            before = proxy.accepted
            done = workshop.command(*words, **settings)
            said = done.stdout + done.stderr
            assert done.returncode == (5 if words == ("check",) else 4), said
            assert advice in " ".join(said.split()), said
            assert PASSWORD not in said
            assert "Traceback" not in said
            assert proxy.accepted > before, words
        worker = workshop.worker(wait=False, **settings)
        eventually(lambda: advice in workshop.logs(), 60)
        assert worker.problems()
        assert advice in first_word(Broker(url, str(authority.certificate)))
        assert PASSWORD not in workshop.logs()
        assert set(proxy.names) == {"localhost"}
        assert proxy.received == b""


@pytest.mark.parametrize(
    ("hosts", "days", "advice"),
    [
        (["127.0.0.2", "127.0.0.1"], (-1, 1), "another host's"),
        ([], (-1, 1), "another host's"),
        (["*.localhost"], (-1, 1), "another host's"),
        (["localhost"], (-30, -1), "another certificate"),
        (["localhost"], (1, 30), "another certificate"),
    ],
    ids=["only addresses", "no name", "below the name", "expired", "not yet valid"],
)
def test_no_connection_sends_the_password_to_a_peer_that_is_not_the_broker(
    vhost: str,
    authority: Authority,
    hosts: list[str],
    days: tuple[int, int],
    advice: str,
    broker: PrivateBroker,
) -> None:
    with TlsProxy(authority.issue("odd", hosts, days=days), broker.port) as proxy:
        there = Broker(url_by(proxy, vhost, PASSWORD), str(authority.certificate))
        for connect in (
            lambda: declare(there, topology()),
            lambda: compare(there, topology()),
            lambda: depth(there, "x"),
        ):
            with pytest.raises(OperationalError) as caught:
                connect()
            assert advice in explain(caught.value, there).advice
        assert advice in first_word(there)
        assert proxy.received == b""


def test_every_connection_sends_the_name_and_works_where_the_peer_is_the_broker(
    workshop: Workshop, authority: Authority, good: Pair, broker: PrivateBroker
) -> None:
    with TlsProxy(good, broker.port) as proxy:
        url = f"{url_by(proxy, workshop.broker_url, 'guest')}?heartbeat=20&connection_attempts=2&socket_timeout=5"
        settings = {"ECS_BROKER_URL": url, "ECS_BROKER_CA_FILE": str(authority.certificate)}
        for words in COMMANDS:
            done = workshop.command(*words, **settings)
            assert done.returncode == 0, done.stdout + done.stderr
        assert first_word(Broker(url, str(authority.certificate))) == "up"
        assert b"\x00guest\x00guest" in proxy.received
        assert set(proxy.names) == {"localhost"}


def test_a_worker_lives_on_a_broker_that_asks_for_certificates_of_a_private_ca(
    asking: PrivateBroker,
    simulated: SimulatedOpenStack,
    authority: Authority,
    client: Pair,
    tmp_path: Path,
) -> None:
    plain = asking.add_vhost("shop")
    with Workshop(plain, simulated, tmp_path) as shop:
        shop.settings |= {
            "ECS_BROKER_URL": asking.tls_url_of("shop")
            + "?heartbeat=30&connection_attempts=2&retry_delay=1",
            "ECS_BROKER_CA_FILE": str(authority.certificate),
            "ECS_BROKER_CERT_FILE": str(client.certificate),
            "ECS_BROKER_KEY_FILE": str(client.key),
        }
        for words in (("topology", "apply"), ("check",), ("dead", "list")):
            done = shop.command(*words)
            assert done.returncode == 0, done.stdout + done.stderr
        shop.worker()
        with Requester(plain) as requester:
            assert requester.result_of(requester.command("server.list")).body["code"] == 200
            # One that nobody may answer is parked, and put in again: publishing, reading and acking
            # over TLS.
            requester.command("server.list", reply_to="ecs.orders")
            eventually(lambda: requester.depth("ecs.dead") == 1)
        assert len(json.loads(shop.command("dead", "list", "-o", "json").stdout)) == 1
        done = shop.command("dead", "replay", "--all", "--yes")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_missing_or_foreign_client_certificate_is_named_as_the_cause(
    vhost: str,
    broker: PrivateBroker,
    authority: Authority,
    stranger: Authority,
    good: Pair,
    client: Pair,
    newest: ssl.TLSVersion,
) -> None:
    foreign = stranger.issue("foreign")
    with TlsProxy(good, broker.port, clients=authority.certificate, newest=newest) as proxy:
        url, ca = url_by(proxy, vhost, "guest"), str(authority.certificate)
        assert "for a client certificate" in first_word(Broker(url, ca))
        unknown = Broker(url, ca, str(foreign.certificate), str(foreign.key))
        assert re.search("accept our certificate|accept ours", first_word(unknown))
        assert b"guest" not in proxy.received
        assert first_word(Broker(url, ca, str(client.certificate), str(client.key))) == "up"


def test_a_command_names_a_missing_client_certificate_as_the_cause(
    workshop: Workshop, asking: PrivateBroker, authority: Authority, stranger: Authority
) -> None:
    foreign = stranger.issue("unknown-client")
    settings = {
        "ECS_BROKER_URL": asking.tls_url_of("/"),
        "ECS_BROKER_CA_FILE": str(authority.certificate),
    }
    own = {
        "ECS_BROKER_CERT_FILE": str(foreign.certificate),
        "ECS_BROKER_KEY_FILE": str(foreign.key),
    }
    for words in (("topology", "apply"), ("dead", "list"), ("check",)):
        done = workshop.command(*words, **settings)
        assert "for a client certificate" in " ".join((done.stdout + done.stderr).split())
        done = workshop.command(*words, **settings, **own)
        # Sometimes the broker is gone before it has said why.
        assert re.search(
            "accept our certificate|accept ours", " ".join((done.stdout + done.stderr).split())
        )


def test_tls_against_a_plain_port_and_the_other_way_round_are_told_apart(
    workshop: Workshop, asking: PrivateBroker, authority: Authority, client: Pair
) -> None:
    ca = str(authority.certificate)
    wrong = {
        f"amqps://guest:guest@localhost:{asking.port}//": "speaks no TLS",
        f"amqp://guest:guest@localhost:{asking.tls_port}//": "must begin with amqps://",
    }
    for url, advice in wrong.items():
        files = {"ECS_BROKER_CA_FILE": ca} if url.startswith("amqps") else {}
        for words in (("topology", "apply"), ("dead", "list"), ("check",)):
            done = workshop.command(*words, ECS_BROKER_URL=url, **files)
            assert done.returncode in (4, 5)
            assert advice in " ".join((done.stdout + done.stderr).split())
        assert advice in first_word(Broker(url, files.get("ECS_BROKER_CA_FILE")))


def test_the_python_client_is_told_apart_what_is_wrong_with_tls_and_sends_no_password(
    vhost: str,
    broker: PrivateBroker,
    authority: Authority,
    stranger: Authority,
    good: Pair,
    client: Pair,
) -> None:
    ca = {"ca_file": str(authority.certificate)}
    elsewhere = authority.issue("of-another", ["broker.example"])
    impostor = stranger.issue("an-impostor", ["localhost"])
    with (
        TlsProxy(elsewhere, broker.port) as misnamed,
        TlsProxy(impostor, broker.port) as unknown,
        TlsProxy(good, broker.port, clients=authority.certificate) as asking,
        TlsProxy(good, broker.port) as fine,
    ):
        plain = f"amqp://guest:{PASSWORD}@localhost:{fine.port}/"
        no_tls = f"amqps://guest:{PASSWORD}@localhost:{broker.port}/"
        for url, files, hint in (
            (url_by(misnamed, vhost, PASSWORD), ca, "as its certificate does"),
            (url_by(unknown, vhost, PASSWORD), ca, "the CA that signed its certificate"),
            (url_by(asking, vhost, PASSWORD), ca, "may ask for|asks for a client certificate"),
            (no_tls, ca, "speaks no TLS"),
            (plain, {}, "must begin with amqps://"),
        ):
            with (
                EcsClient(url, broker_timeout=5, **files) as asker,
                pytest.raises(BrokerUnavailable, match=hint) as caught,
            ):
                asker.call("server.list")
            assert PASSWORD not in str(caught.value)
        assert PASSWORD.encode() not in b"".join(
            one.received for one in (misnamed, unknown, asking, fine)
        )


def test_addresses_are_checked_as_names_are(
    asking: PrivateBroker, authority: Authority, client: Pair
) -> None:
    files = str(authority.certificate), str(client.certificate), str(client.key)
    for host in ("127.0.0.1", *(["[::1]"] if has_ipv6() else [])):
        there = Broker(asking.tls_url_of("/", host), *files)
        declare(there, topology())
        assert compare(there, topology())[1] == []
        assert depth(there, "ecs.dead") == (0, 0)
        assert first_word(there) == "up"


def test_a_certificate_that_is_renewed_counts_from_the_next_connection_on(
    vhost: str,
    broker: PrivateBroker,
    authority: Authority,
    good: Pair,
    client: Pair,
    stranger: Authority,
    folder: Path,
) -> None:
    foreign = stranger.issue("former")
    mine = Pair(folder / "mine.pem", folder / "mine.key")
    with TlsProxy(good, broker.port, clients=authority.certificate) as proxy:
        there = Broker(
            url_by(proxy, vhost, "guest"),
            str(authority.certificate),
            str(mine.certificate),
            str(mine.key),
        )
        up: list[bool] = []

        async def connect() -> None:
            copy(foreign, mine)
            link = RecoveringConnection(there, "test", lambda _: up.append(True), lambda: None)
            link.open()
            while not link.reconnects:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
            assert not up
            mine.key.unlink()  # in the middle of being replaced
            await asyncio.sleep(0.5)
            copy(client, mine)
            async with asyncio.timeout(20):
                while not up:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.02)
            await link.close()

        asyncio.run(connect())


def copy(source: Pair, target: Pair) -> None:
    target.certificate.write_bytes(source.certificate.read_bytes())
    target.key.write_bytes(source.key.read_bytes())


def test_the_python_client_checks_the_broker_and_shows_its_own_certificate(
    asking: PrivateBroker, authority: Authority, stranger: Authority, client: Pair
) -> None:
    url = asking.tls_url_of("")
    declare(asking.url, topology())
    own = {"cert_file": str(client.certificate), "key_file": str(client.key)}
    with (
        Responder(asking.url),
        EcsClient(url, ca_file=str(authority.certificate), **own) as asker,
    ):
        assert asker.call("server.list").body == OK
    for files in ({"ca_file": str(stranger.certificate), **own}, own):
        # At once: within the time limit it would be what a broker that is away is.
        with (
            EcsClient(url, **files) as asker,
            pytest.raises(BrokerRefused, match=r"localhost.*CERTIFICATE_VERIFY_FAILED"),
        ):
            asker.call("server.list")
    # Sometimes the broker is gone before it has said why.
    problem = "(?i)certificate required|EOF|reset|closed"
    with (
        EcsClient(url, broker_timeout=2, ca_file=str(authority.certificate)) as asker,
        pytest.raises(BrokerUnavailable, match=problem),
    ):
        asker.call("server.list")

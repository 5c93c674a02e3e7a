"""TLS to Keystone and the other services: the advice names the cause and the setting of clouds.yaml.

A listener of the test's own passes on to the simulated cloud.
"""

import asyncio
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from handlers.openstack.cloud import Cloud
from handlers.openstack.errors import CloudRefusal, advice_of
from handlers.openstack.sessions import CloudSettings
from messages.errors import Transient
from messages.tls import is_cut_off
from sandbox.openstack import SimulatedOpenStack
from sandbox.openstack.state import PASSWORD
from tests.support.certificates import Authority, Pair
from tests.support.tls_proxy import TlsProxy
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow

#: nginx's answer to who speaks no TLS.
_PAGE = (
    b"<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>\r\n"
    b"<body>\r\n<center><h1>400 Bad Request</h1></center>\r\n"
    b"<center>The plain HTTP request was sent to HTTPS port</center>\r\n<hr><center>nginx</center>"
    b"\r\n</body>\r\n</html>\r\n"
)
_NGINX = (
    b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nContent-Type: text/html\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_PAGE), _PAGE)
)


@dataclass
class Site:
    """The simulated cloud, listeners before it, and the files of certificates."""

    cloud: SimulatedOpenStack
    folder: Path
    ca: str
    stranger: str
    client: Pair
    foreign: Pair
    good: TlsProxy
    misnamed: TlsProxy
    expired: TlsProxy
    asking: TlsProxy
    asking_old: TlsProxy

    def entry(self, **changed: object) -> Path:
        """A clouds.yaml with the service account's entry changed; `auth_url` is one of its `auth`."""
        clouds = json.loads(self.cloud.clouds_yaml.read_text())
        entry = clouds["clouds"]["ecs-worker"]
        if "auth_url" in changed:
            entry["auth"]["auth_url"] = changed.pop("auth_url")
        entry |= changed
        file = self.folder / "clouds.yaml"
        file.write_text(json.dumps(clouds))
        return file

    @staticmethod
    def own(pair: Pair) -> dict[str, str]:
        return {"cert": str(pair.certificate), "key": str(pair.key)}

    def plain(self, listener: TlsProxy) -> str:
        return f"http://localhost:{listener.port}"

    def url(self, listener: TlsProxy) -> str:
        return f"https://localhost:{listener.port}"

    @property
    def no_tls(self) -> str:
        return f"https://localhost:{self.cloud.port}"


@pytest.fixture(scope="module")
def site(simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = Authority(folder), Authority(folder, "stranger")
    good = authority.issue("cloud", ["localhost"])
    elsewhere = authority.issue("elsewhere", ["cloud.example"])
    former = authority.issue("former", ["localhost"], days=(-20, -1))
    ca, port = authority.certificate, simulated.port
    with ExitStack() as stack:
        yield Site(
            simulated,
            folder,
            str(ca),
            str(stranger.certificate),
            authority.issue("client"),
            stranger.issue("foreign"),
            stack.enter_context(TlsProxy(good, port, to_plain=_NGINX)),
            stack.enter_context(TlsProxy(elsewhere, port)),
            stack.enter_context(TlsProxy(former, port)),
            stack.enter_context(TlsProxy(good, port, clients=ca)),
            stack.enter_context(TlsProxy(good, port, clients=ca, newest=ssl.TLSVersion.TLSv1_2)),
        )


#: The URL that is asked, the entry's options besides, and what the advice holds.
CASES: dict[str, tuple[Callable[[Site], str], Callable[[Site], dict[str, str]], str]] = {
    "CA that is not known": (lambda site: site.url(site.good), lambda _: {}, "cacert"),
    "another CA": (
        lambda site: site.url(site.good),
        lambda site: {"cacert": site.stranger},
        "cacert in clouds.yaml (OS_CACERT) must hold",
    ),
    "another name": (
        lambda site: site.url(site.misnamed),
        lambda site: {"cacert": site.ca},
        "must name the host as its certificate does",
    ),
    "expired": (
        lambda site: site.url(site.expired),
        lambda site: {"cacert": site.ca},
        "another certificate, or a clock",
    ),
    "client certificate needed": (
        lambda site: site.url(site.asking),
        lambda site: {"cacert": site.ca},
        "set cert and key",
    ),
    "client certificate needed, TLS 1.2": (
        lambda site: site.url(site.asking_old),
        lambda site: {"cacert": site.ca},
        "set cert and key",
    ),
    "foreign client certificate": (
        lambda site: site.url(site.asking),
        lambda site: {"cacert": site.ca, **site.own(site.foreign)},
        "does not accept our certificate",
    ),
    "https to a plain port": (lambda site: site.no_tls, lambda _: {}, "must begin with http:"),
    "http to a port of TLS": (
        lambda site: site.plain(site.good),
        lambda _: {},
        "must begin with https:",
    ),
    "file of the CA missing": (
        lambda site: site.url(site.good),
        lambda _: {"cacert": "/nowhere.pem"},
        "check cacert, cert and key",
    ),
}


def asked(file: Path) -> Transient | CloudRefusal | None:
    """Ask Keystone and then each service; the first error."""

    async def ask() -> Transient | CloudRefusal | None:
        cloud = Cloud(CloudSettings("ecs-worker", config_file=str(file)))
        try:
            return next(iter((await cloud.silent_services()).values()), None)
        except Transient as error:
            return error
        finally:
            await cloud.close()

    return asyncio.run(ask())


def advised(error: Transient | CloudRefusal | None, advice: str) -> bool:
    """Tell whether an error of TLS advises this. Sometimes the server is gone before it has said
    why.
    """
    assert error is not None
    assert PASSWORD not in str(error)
    found = advice_of(error)
    if not found and "cert" in advice and is_cut_off(str(error)):
        return False
    assert advice in found, str(error)
    assert "localhost:" in error.detail or "/nowhere.pem" in error.detail
    return True


@pytest.mark.parametrize("case", CASES)
def test_keystone_names_what_is_wrong_with_tls(site: Site, case: str) -> None:
    url, options, advice = CASES[case]
    file = site.entry(auth_url=f"{url(site)}/identity/v3", **options(site))
    eventually(lambda: advised(asked(file), advice), 60)
    listeners = (site.good, site.misnamed, site.expired, site.asking, site.asking_old)
    assert PASSWORD.encode() not in b"".join(one.received for one in listeners)


@pytest.mark.parametrize("case", [one for one in CASES if one != "http to a port of TLS"])
def test_another_service_names_what_is_wrong_with_tls(site: Site, case: str) -> None:
    url, options, advice = CASES[case]
    file = site.entry(compute_endpoint_override=f"{url(site)}/compute/v2.1", **options(site))
    eventually(lambda: advised(asked(file), advice), 60)


def test_what_a_proxy_says_for_a_service_is_found(site: Site) -> None:
    error = asked(site.entry(compute_endpoint_override=f"{site.plain(site.good)}/compute/v2.1"))
    assert isinstance(error, CloudRefusal)
    assert "plain HTTP request was sent to HTTPS port" in str(error)


def test_a_certificate_that_is_right_is_taken(site: Site) -> None:
    url, own = f"{site.url(site.asking)}/compute/v2.1", site.own(site.client)
    assert asked(site.entry(compute_endpoint_override=url, cacert=site.ca, **own)) is None


def test_check_names_the_service_and_the_setting(site: Site, workshop: Workshop) -> None:
    by_file = {"OS_CLIENT_CONFIG_FILE": str(site.folder / "clouds.yaml")}
    wrong = {
        "keystone": {"auth_url": f"{site.url(site.good)}/identity/v3"},
        "compute": {"compute_endpoint_override": f"{site.url(site.good)}/compute/v2.1"},
        "network": {"network_endpoint_override": f"{site.no_tls}/network"},
    }
    advice = {"network": "must begin with http:"}
    for name, changed in wrong.items():
        site.entry(**changed)
        done = workshop.command("check", "-o", "json", ECS_ADMIN_CLOUD="", **by_file)
        found = {one["check"]: one for one in json.loads(done.stdout)}
        assert found[name]["result"] == "failed", done.stdout
        assert advice.get(name, "cacert in clouds.yaml") in found[name]["advice"]
        assert done.returncode == 5
        assert PASSWORD not in done.stdout + done.stderr


def test_check_names_the_service_whose_port_speaks_tls(site: Site, workshop: Workshop) -> None:
    site.entry(image_endpoint_override=f"{site.plain(site.good)}/image")
    by_file = {"OS_CLIENT_CONFIG_FILE": str(site.folder / "clouds.yaml")}
    done = workshop.command("check", "-o", "json", ECS_ADMIN_CLOUD="", **by_file)
    # The SDK's look for Glance's versions hides that the connection was just ended.
    assert "service image" in done.stdout
    assert done.returncode != 0
    assert PASSWORD not in done.stdout + done.stderr


def test_a_worker_says_at_its_start_why_keystone_is_not_reached(
    site: Site, workshop: Workshop
) -> None:
    site.entry(auth_url=f"{site.url(site.good)}/identity/v3")
    worker = workshop.worker(
        wait=False, ECS_ADMIN_CLOUD="", OS_CLIENT_CONFIG_FILE=str(site.folder / "clouds.yaml")
    )
    eventually(lambda: "account.unusable" in workshop.logs(), 60)
    (line,) = (one for one in workshop.logs().splitlines() if "account.unusable" in one)
    assert "CERTIFICATE_VERIFY_FAILED" in line
    assert "cacert in clouds.yaml (OS_CACERT) must hold the CA" in line
    assert PASSWORD not in workshop.logs()
    assert worker.alive

"""Access to the console, and what another page cannot make a browser do there."""

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser

from sandbox.broker import PrivateBroker
from sandbox.gateway import GatewayProcess
from sandbox.issuer import Issuer, KeySetServer
from sandbox.openstack import SimulatedOpenStack
from sandbox.processes import free_ports
from tests.browser.chromium import Window
from tests.browser.conftest import addresses, entered
from tests.support.http import Site, gateways
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

ROLE = {"realm_access": {"roles": ["OPERATE_ADMIN"]}}


class Guarded:
    """Gateways that ask for tokens; `issuer` makes them."""

    def __init__(self, issuer: Issuer, first: GatewayProcess, second: GatewayProcess) -> None:
        self.issuer = issuer
        self.first = first
        self.second = second


@pytest.fixture(scope="module")
def guarded(
    broker: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    folder, issuer = tmp_path_factory.mktemp("guarded-console"), Issuer()
    url = broker.add_vhost(folder.name)
    declare(url, topology())
    with (
        KeySetServer(issuer) as server,
        Workshop(url, simulated, folder) as workshop,
        gateways(workshop) as start,
    ):
        workshop.settings |= {
            "ECS_TRUST_PUBLISHERS": "false",
            "ECS_JWT_JWKS": server.url,
            "ECS_JWT_ISSUER": issuer.name,
        }
        workshop.worker()
        yield Guarded(issuer, start(), start())


def log_in(window: Window, token: str) -> None:
    window.go("/login")
    window.page.locator("#token").fill(token)
    window.page.get_by_role("button", name="Log in").click()


def overview_with(gateway: GatewayProcess, **headers: str) -> requests.Response:
    """Ask as a proxy that adds a header."""
    return requests.get(f"{gateway.url}/console/", headers=headers, timeout=30)


def test_a_token_with_the_role_gets_in_at_every_gateway_and_out_again(
    guarded: Guarded, browser: Browser
) -> None:
    # A token as long as Keycloak's longest does not fit into one cookie.
    token = guarded.issuer.token(**ROLE, groups=["/group"] * 900, preferred_username="alice")
    assert 8_000 < len(token) < 16_000
    window = Window(browser, guarded.first.url)
    window.go("/")
    assert "Access token" in window.text()
    log_in(window, token)
    assert "Queues" in window.text()
    assert "alice" in window.text()
    window.page.goto(f"{guarded.second.url}/console/")
    assert "Queues" in window.text()
    cookies = [one for one in window.context.cookies() if one["name"].startswith("ecs_console")]
    assert len(cookies) > 1
    assert all(one["httpOnly"] and one["sameSite"] == "Strict" for one in cookies)
    assert window.page.evaluate("document.cookie") == ""
    window.page.get_by_role("button", name="Log out").click()
    window.go("/")
    assert "Access token" in window.text()
    for log in (guarded.first.log, guarded.second.log):
        assert token[:200] not in log.read_text()
        assert token[-100:] not in log.read_text()
    window.close()


def test_a_token_without_the_role_or_that_proves_nothing_does_not_get_in(guarded: Guarded) -> None:
    issuer, stranger, now = guarded.issuer, Issuer(), int(time.time())
    unsigned = issuer.token(**ROLE).rpartition(".")[0].split(".")[1]
    none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0." + unsigned + "."
    for token, status, why in (
        (issuer.token(), 403, "has not the role"),
        (issuer.token(realm_access={"roles": "OPERATE_ADMIN"}), 403, "has not the role"),
        (issuer.token(realm_access=["OPERATE_ADMIN"]), 403, "has not the role"),
        (issuer.token(**ROLE, exp=now - 100, iat=now - 500), 401, "has expired"),
        (issuer.token(**ROLE, iss="https://elsewhere.example"), 401, "not valid here"),
        (issuer.token(**ROLE, typ="Refresh"), 401, "not valid here"),
        (stranger.token(**ROLE), 401, "not valid here"),
        (none, 401, "not valid here"),
        (none + "x", 401, "not valid here"),
        ("rubbish", 401, "not valid here"),
    ):
        answer = overview_with(guarded.first, Authorization=f"Bearer {token}")
        assert answer.status_code == status, (token, answer.text)
        assert why in answer.text
        assert "Queues" not in answer.text
    for path in ("/", "/requests", "/pauses", "/audit"):
        answer = requests.get(f"{guarded.first.url}/console{path}", timeout=30)
        assert (answer.status_code, "Access token" in answer.text) == (401, True)


def test_what_no_form_of_ours_sends_is_told_as_wrong(guarded: Guarded) -> None:
    url, bearer = guarded.first.url, {"Authorization": f"Bearer {guarded.issuer.token(**ROLE)}"}
    for path, status in (
        ("/dead?since=nan", 400),
        ("/dead?before=inf", 400),
        ("/dead?since=1e300", 400),
        ("/dead?since=-1e18", 400),
        ("/requests?operation=%00", 404),
        ("/request?key=%00", 404),
        ("/request?key=%ff%ed%a0%80", 200),
        ("/requests?since=0001-01-01T00:00-14:00", 200),
    ):
        assert (
            requests.get(f"{url}/console{path}", headers=bearer, timeout=30).status_code == status
        )
    there = requests.head(f"{url}/console", headers=bearer, timeout=30, allow_redirects=True)
    assert (there.status_code, there.url) == (200, f"{url}/console/")
    counted = requests.get(f"{url}/metrics", timeout=30).text
    assert 'requests_total{method="GET",route="/console/dead",status="400"}' in counted
    assert 'route="/dead"' not in counted


def test_an_operator_needs_no_tenant(guarded: Guarded) -> None:
    token = guarded.issuer.token(**ROLE, project=None)
    assert overview_with(guarded.first, Authorization=f"Bearer {token}").status_code == 200


def test_a_token_that_expires_logs_out(guarded: Guarded, browser: Browser) -> None:
    now = int(time.time())
    # It counts for 60 s after its end.
    token = guarded.issuer.token(**ROLE, exp=now - 52, iat=now - 500)
    window = Window(browser, guarded.first.url)
    log_in(window, token)
    assert "Queues" in window.text()
    # The page notices by itself: it asks anew every few seconds.
    window.page.get_by_text("Your session has expired").wait_for(timeout=30_000)
    assert not [one for one in window.context.cookies() if one["name"].startswith("ecs_console")]
    window.close()


def test_a_form_of_another_page_does_nothing(
    guarded: Guarded, site: Site, browser: Browser
) -> None:
    """Another port of the same host: the browser sends its cookies along."""
    window = Window(browser, guarded.first.url)
    log_in(window, guarded.issuer.token(**ROLE))
    window.go("/pauses")
    csrf = window.page.locator("form[action$='/pauses/pause'] input[name=csrf]").get_attribute(
        "value"
    )
    for stolen in ("", csrf):  # also where the other page knew the form's value
        with (
            _page_elsewhere(_forged(guarded.first.url, stolen or "")) as elsewhere,
            window.page.expect_navigation(url=f"{guarded.first.url}/**"),
        ):
            window.page.goto(elsewhere)
        assert "Nothing was done" in window.text()
    window.go("/pauses")
    assert "forged" not in window.text()
    # The console's own form is taken.
    window.page.get_by_label("orders").first.check()
    window.page.locator("#reason").fill("a test")
    window.page.get_by_role("button", name="Preview").first.click()
    window.page.get_by_role("button", name="Pause", exact=True).click()
    assert "Paused. Every worker stops" in window.text()
    window.close()


def test_a_form_without_the_browsers_word_for_it_is_refused(guarded: Guarded) -> None:
    url = f"{guarded.first.url}/console/pauses/pause"
    bearer = {"Authorization": f"Bearer {guarded.issuer.token(**ROLE)}"}
    form = {"kind": "reads", "reason": "forged", "confirmed": "yes", "csrf": "x" * 32}
    cookies = {"ecs_csrf": "x" * 32}
    own = {"Origin": guarded.first.url}
    for headers, sent, kept in (
        ({}, form, cookies),
        ({"Origin": "http://evil.example"}, form, cookies),
        (own | {"Sec-Fetch-Site": "cross-site"}, form, cookies),
        (own | {"Sec-Fetch-Site": "same-site"}, form, cookies),
        (own, form | {"csrf": "y" * 32}, cookies),
        (own, form | {"csrf": ""}, {"ecs_csrf": ""}),
        (own, form, {}),
    ):
        answer = requests.post(url, sent, headers=bearer | headers, cookies=kept, timeout=30)
        assert answer.status_code == 403, headers
    json_body = requests.post(url, json=form, headers=bearer | own, cookies=cookies, timeout=30)
    assert json_body.status_code == 415
    shown = requests.get(f"{guarded.first.url}/console/pauses", headers=bearer, timeout=30)
    assert "forged" not in shown.text


def test_every_answer_has_the_policy(guarded: Guarded) -> None:
    bearer = {"Authorization": f"Bearer {guarded.issuer.token(**ROLE)}"}
    for path in ("/", "/login", "/nothing", "/static/htmx.min.js", "/static/..%2fapp.py", "/audit"):
        answer = requests.get(f"{guarded.first.url}/console{path}", headers=bearer, timeout=30)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "import" not in answer.text[:2000] or path.endswith(".js")


def test_the_one_time_address_works_once_and_only_from_this_machine(
    site: Site, browser: Browser
) -> None:
    gateway = site.gateway
    eventually(lambda: bool(addresses(gateway)))
    address = addresses(gateway)[-1]
    for header in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Via"):
        answer = requests.get(address, headers={header: "127.0.0.1"}, timeout=30)
        assert (answer.status_code, "own machine" in answer.text) == (403, True)
    rebound = requests.get(address, headers={"Host": "evil.example"}, timeout=30)
    assert rebound.status_code == 403
    with entered(browser, gateway, "alice") as window:
        assert "Queues" in window.text()
        # The name is what was typed; the system's user stands beside it in the record.
        assert "alice" in window.text()
        other = Window(browser, gateway.url)
        other.page.goto(address)
        assert "was used before" in other.text()
        other.go("/")
        assert "Open the address" in other.text()
        other.close()
        (session,) = [
            one for one in window.context.cookies() if one["name"].startswith("ecs_console")
        ]
        kept = {session["name"]: session["value"]}
        url = f"{gateway.url}/console/"
        assert requests.get(url, cookies=kept, timeout=30).status_code == 200
        passed_on = requests.get(
            url, cookies=kept, headers={"X-Forwarded-For": "127.0.0.1"}, timeout=30
        )
        assert passed_on.status_code == 403
        window.page.get_by_role("button", name="Log out").click()
        assert requests.get(url, cookies=kept, timeout=30).status_code == 401
    assert len(addresses(gateway)) > 1


def test_another_machine_is_not_let_in_whatever_its_headers_say(site: Site) -> None:
    """The gateway listens on all addresses, and is asked by one that is not loopback."""
    found, (port,) = _other_address(), free_ports(1)
    with gateways(site.workshop) as start:
        gateway = start(wait=False, ECS_GATEWAY_LISTEN=f"0.0.0.0:{port}")
        eventually(lambda: bool(addresses(gateway)), 60)
        code = addresses(gateway)[-1].rpartition("/console")[2]
        assert addresses(gateway)[-1].startswith(f"http://127.0.0.1:{port}/")
        local = requests.get(f"http://127.0.0.1:{port}/console{code}", timeout=30)
        assert local.status_code == 200
        for headers in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"Host": f"127.0.0.1:{port}"}):
            url = f"http://{found}:{port}/console{code}"
            answer = requests.get(url, headers=headers, timeout=30)
            assert (answer.status_code, "own machine" in answer.text) == (403, True), headers


def test_without_a_journal_the_console_says_what_to_set(site: Site) -> None:
    with gateways(site.workshop) as start:
        gateway = start(ECS_JOURNAL_URL="")
        answer = requests.get(f"{gateway.url}/console", timeout=30)
        assert answer.status_code == 503
        assert "Set ECS_JOURNAL_URL" in answer.text
        assert addresses(gateway) == []
        wrong = start(ECS_JOURNAL_URL="mysql://u:hunter2@h/d")
        answer = requests.get(f"{wrong.url}/console", timeout=30)
        assert "ECS_JOURNAL_URL: must begin with sqlite: or postgresql:" in answer.text
        assert "hunter2" not in answer.text
        assert requests.get(f"{wrong.url}/readyz", timeout=30).status_code == 200


def _forged(url: str, csrf: str) -> str:
    fields = {"kind": "orders", "reason": "forged", "confirmed": "yes", "csrf": csrf}
    inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in fields.items())
    return (
        f'<form id="f" method="post" action="{url}/console/pauses/pause">{inputs}</form>'
        "<script>document.getElementById('f').submit()</script>"
    )


class _page_elsewhere:  # noqa: N801 - used as a function
    """Serves one page at another origin of the same host."""

    def __init__(self, text: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _other_address() -> str:
    """An address of this machine that is not a loopback one."""
    import psutil  # noqa: PLC0415

    for one in psutil.net_if_addrs().values():
        for address in one:
            if address.family.name == "AF_INET" and not address.address.startswith("127."):
                return str(address.address)
    pytest.fail("this machine has no address but loopback: give it one")

"""The gateway where tokens are verified: who asks, whose updates they are, and where tokens go."""

import json
import socket
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from sandbox.broker import PrivateBroker
from sandbox.documents import change_configure, new_order_id
from sandbox.issuer import USER, Issuer, KeySetServer
from sandbox.openstack import SimulatedOpenStack
from sandbox.processes import free_ports
from sandbox.requester import Requester
from tests.support.http import (
    IDENTITY,
    PARAMETER,
    EventReader,
    Site,
    as_json,
    gateways,
    port_of,
    refused,
)
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology


class Guarded(Site):
    """A worker and a gateway that ask for tokens; `issuer` makes them."""

    issuer: Issuer

    def token(self, **claims: Any) -> str:
        """The user's token for tenant-a."""
        return self.issuer.token(**{"project": "tenant-a"} | claims)

    def bearer(self, **claims: Any) -> dict[str, str]:
        """The header with it."""
        return {"Authorization": f"Bearer {self.token(**claims)}"}

    def events(self, query: str = "", **headers: str) -> EventReader:
        """A stream of events."""
        return EventReader(f"{self.gateway.url}/v1/events{query}", self.bearer() | headers)


@pytest.fixture(scope="module")
def site(
    broker: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    folder, issuer = tmp_path_factory.mktemp("guarded-gateway"), Issuer()
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
        found = Guarded(workshop, start())
        found.issuer, found.own = issuer, {}
        yield found


def test_a_request_acts_in_the_tenant_of_its_token(site: Guarded) -> None:
    server = site.tenant.make_server()
    url = f"/v1/servers/{server}"
    # What a header says of the tenant is nothing to a token.
    headers = site.bearer() | {"X-Tenant-Id": "tenant-b"}
    assert site.done("GET", url, headers=headers)["server"]["id"] == server
    other = site.ask("GET", url, headers=site.bearer(project="tenant-b"))
    refused(other, 400, "101.001033", None)
    stopped = site.ask("POST", f"{url}/action", headers=site.bearer(), json={"os-stop": {}})
    assert stopped.status_code == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": int(time.time()) - 4000, "iat": int(time.time()) - 5000},
        {"iss": "https://another.example"},
        {"sub": None},
        {"project": None},
        {"typ": "Refresh"},
    ],
    ids=["expired", "issuer", "nobody", "no tenant", "refresh token"],
)
def test_a_token_that_does_not_count_is_401(site: Guarded, claims: dict[str, Any]) -> None:
    answer = site.ask("GET", "/v1/servers/1/10", headers=site.bearer(**claims))
    refused(answer, 401, IDENTITY, None)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_no_token_and_a_forged_one_are_401_before_anything_is_published(site: Guarded) -> None:
    forged = Issuer().token(project="tenant-a", kid=None)
    path = f"/v1/servers/{uuid.uuid4()}/action"
    for given, why in (
        (None, "there is no token"),
        ("", "there is no token"),
        ("Basic dTpw", "the token is no signed JWT"),
        (f"Bearer {forged}", "the token's key is not in the key set"),
        (site.token()[:-4] + "AAAA", "the token's signature is not that of its key"),
    ):
        headers = {} if given is None else {"Authorization": given}
        answer = site.ask("POST", path, headers=headers, json={"os-start": {}})
        refused(answer, 401, IDENTITY, None)
        message_id = answer.headers["X-Request-Id"]
        assert f'"{message_id}"' not in site.workshop.logs()
        # The line is written when the answer is on its way.
        eventually(lambda message_id=message_id: f'"{message_id}"' in site.gateway.log.read_text())
        lines = map(json.loads, site.gateway.log.read_text().splitlines())
        (told,) = [one for one in lines if one.get("message_id") == message_id]
        assert told["reason"] == why
        with_events = site.ask("GET", "/v1/events", headers=headers)
        refused(with_events, 401, IDENTITY, None)


def test_a_repeat_of_what_was_begun_while_its_token_counted_is_answered(site: Guarded) -> None:
    server = site.tenant.make_server()
    begun = int(time.time()) - 57  # a minute's leeway is nearly over
    key = site.bearer(exp=begun, iat=begun - 300) | {"Idempotency-Key": uuid.uuid4().hex}
    path = f"/v1/servers/{server}/action"
    first = site.ask("POST", path, headers=key, json={"os-stop": {}})
    assert first.status_code == 200, first.text
    time.sleep(max(0.0, begun + 62 - time.time()))
    again = site.ask("POST", path, headers=key, json={"os-stop": {}})
    assert (again.status_code, again.content) == (200, first.content)
    other = site.ask("POST", path, headers=key | {"Idempotency-Key": "x"}, json={"os-stop": {}})
    refused(other, 401, IDENTITY, None)


def test_a_header_that_says_two_things_is_refused(site: Guarded) -> None:
    asked = f"GET /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.token()}\r\n"
    second = f"Authorization: Bearer {site.token(project='tenant-b')}\r\nConnection: close\r\n\r\n"
    address = ("127.0.0.1", port_of(site.gateway))
    with socket.create_connection(address, timeout=10) as one:
        one.sendall((asked + second).encode())
        answer = b"".join(iter(lambda: one.recv(65536), b"")).decode()
    assert answer.startswith("HTTP/1.1 400 ")
    assert "参数Authorization不符合规范" in answer


def test_without_its_key_set_the_gateway_leaves_commands_to_the_workers(site: Guarded) -> None:
    (nobody,) = free_ports(1)
    with gateways(site.workshop) as start:
        lost = start(wait=False, ECS_JWT_JWKS=f"http://127.0.0.1:{nobody}/keys")
        eventually(lambda: ["no key set" in one for one in lost.problems()] == [True], 60)
        own = Site(site.workshop, lost)
        own.own = site.bearer()
        assert own.ask("GET", "/v1/servers/1/10").status_code == 200
        forged = {"Authorization": f"Bearer {Issuer().token(project='tenant-a')}"}
        refused(own.ask("GET", "/v1/servers/1/10", headers=forged), 401, IDENTITY, None)
        order = change_configure(str(uuid.uuid4()), str(uuid.uuid4()), token=site.token())
        for method, path, body in (("GET", "/v1/events", None), ("POST", "/v1/orders", order)):
            answer = own.ask(method, path, data=body, headers=as_json())
            assert (answer.status_code, answer.json()["data"]) == (503, {"reason": "keys"})


def test_without_a_cloud_a_stream_needs_a_tenant_that_is_said_to_be_an_id(site: Guarded) -> None:
    project = site.tenant.project_id
    no_cloud = {"OS_CLOUD": "", "OS_CLIENT_CONFIG_FILE": ""}
    with gateways(site.workshop) as start:
        gateway = start(**no_cloud)
        headers = site.bearer(project=project)
        answer = requests.get(f"{gateway.url}/v1/events", headers=headers, timeout=10)
        assert (answer.status_code, answer.json()["data"]["reason"]) == (503, "tenant_unknown")
        told = start(ECS_JWT_TENANT_IS="id", **no_cloud)
        with EventReader(f"{told.url}/v1/events", headers) as stream:
            server = site.tenant.make_server()
            asked = site.ask(
                "POST",
                f"/v1/servers/{server}/action",
                headers=site.bearer(),
                json={"os-stop": {}},
            )
            assert asked.status_code == 200
            eventually(lambda: server in {one["id"] for one in stream.updates()}, 20)


def test_an_orders_own_token_wins_over_the_headers_and_one_without_proof_is_not_published(
    site: Guarded,
) -> None:
    server, image = site.tenant.make_server(), site.tenant.image

    def submitted(token: str, headers: dict[str, str]) -> Any:
        order_id = new_order_id()
        order = change_configure(server, image, order_id=order_id, token=token)
        sent = {**as_json(), **headers}
        return site.ask("POST", "/v1/orders", data=order.encode(), headers=sent)

    assert submitted(site.token(), {}).status_code == 202
    forged = Issuer().token(project="tenant-a")
    refused(submitted(forged, site.bearer()), 401, IDENTITY, None)
    refused(submitted(site.token(sub=str(uuid.uuid4())), {}), 401, IDENTITY, None)
    flow = {
        "region": "cn-north-3",
        "flowId": uuid.uuid4().hex,
        "instanceList": [
            {
                "subFlowId": "1",
                "operateType": "stopServer",
                "productLineCode": "ECS",
                "productTypeCode": "ECS_std",
                "instanceId": server,
            }
        ],
    }
    refused(site.ask("POST", "/v1/orders", headers=site.bearer(), json=flow), 401, IDENTITY, None)
    with Requester(site.workshop.broker_url, order_results=False) as requester:
        assert requester.depth("ecs.dead") == 0
    wrong = {"orderId": new_order_id(), "orderStatus": "paySuccess", "userId": USER}
    refused(
        site.ask("POST", "/v1/orders", headers=site.bearer(), json=wrong),
        *(400, PARAMETER, "orderType"),
    )


def test_a_tenant_hears_its_own_updates_and_resumes_where_it_was(site: Guarded) -> None:
    own, other = site.tenant.make_server(), site.workshop.tenant("tenant-b").make_server()
    with site.events() as whole, site.events(f"?resource=server&id={other}") as narrow:
        assert whole.answer.headers["Content-Type"].startswith("text/event-stream")
        for server, project in ((own, "tenant-a"), (other, "tenant-b")):
            asked = site.ask(
                "POST",
                f"/v1/servers/{server}/action",
                headers=site.bearer(project=project),
                json={"os-stop": {}},
            )
            assert asked.status_code == 200, asked.text
        eventually(lambda: finals_of(whole, own) == 1, 30)
        with EventReader(
            f"{site.gateway.url}/v1/events", site.bearer(project="tenant-b")
        ) as theirs:
            started = site.ask(
                "POST",
                f"/v1/servers/{own}/action",
                headers=site.bearer(),
                json={"os-start": {}},
            )
            assert started.status_code == 200, started.text
            eventually(lambda: finals_of(whole, own) == 2, 30)
            assert [one for one in whole.updates() if one["id"] == other] == []
            assert [one for one in theirs.updates() if one["id"] == own] == []
        assert narrow.updates() == []
        project_id = site.tenant.project_id
        assert {one["tenant_id"] for one in whole.updates()} == {project_id}
        ids = whole.ids()
    with site.events(**{"Last-Event-ID": str(ids[0])}) as resumed:
        eventually(lambda: resumed.ids()[: len(ids) - 1] == ids[1:], 10)
        assert resumed.notices("gap") == []
    with site.events(**{"Last-Event-ID": "of another time"}) as unknown:
        eventually(lambda: unknown.notices("gap") == ["unknown_last_event_id"], 10)


def finals_of(stream: EventReader, server: str) -> int:
    """Return how many final updates of a server came; other tests' servers may still have some."""
    return sum(one["final"] for one in stream.updates() if one["id"] == server)


def test_a_stream_ends_when_its_token_does(site: Guarded) -> None:
    soon = int(time.time()) - 57
    headers = site.bearer(exp=soon, iat=soon - 300)
    with EventReader(f"{site.gateway.url}/v1/events", headers) as stream:
        eventually(lambda: stream.has_ended, 20)
        assert stream.notices("end") == ["token_expired"]


def test_a_stream_of_what_does_not_exist_is_refused(site: Guarded) -> None:
    answer = site.ask("GET", "/v1/events?resource=disk", headers=site.bearer())
    refused(answer, 400, PARAMETER, "resource")
    nobody = site.ask("GET", "/v1/events", headers=site.bearer(project="nobody"))
    refused(nobody, 401, IDENTITY, None)


def test_no_token_reaches_log_or_metrics(site: Guarded) -> None:
    token = site.token()
    site.ask("GET", "/v1/servers/1/10", headers={"Authorization": f"Bearer {token}"})
    seen = site.gateway.log.read_text() + site.gateway.metrics()
    assert not any(part in seen for part in token.split("."))

"""Tests who is let in, and what becomes of what cannot be told just now: with a real journal and
the simulated cloud.
"""

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handlers.effects.backoff import Deadline
from handlers.openstack.cloud import Cloud
from handlers.openstack.sessions import CloudSettings
from messages.codes import Code
from sandbox.documents import REGION
from sandbox.issuer import USER, Issuer
from sandbox.openstack import SimulatedOpenStack
from tests.support.envelopes import envelope
from tests.support.tenant import Tenant
from workers.amqp.envelope import Envelope
from workers.amqp.headers import RESUME_TOKEN_HEADER
from workers.identity import (
    NO_PROJECT,
    JournalReplays,
    Requester,
    ResumeTokenAuthentication,
    hash_of,
    new_resume_token,
)
from workers.identity.jwks_source import FileSource
from workers.identity.jwt import Expected
from workers.identity.key_set import KeySet
from workers.identity.requester import NotProven
from workers.identity.token_authentication import TokenAuthentication, TokenVerifier
from workers.journal import Begun, Journal, NewRequest
from workers.pipeline.authentication import Authentication
from workers.pipeline.exits import Rejected, Requeue
from workers.pipeline.parsing import parse
from workers.pipeline.timeouts import Timeouts
from workers.request import Request

DAY = 86400.0


class Door:
    """A worker's way in, its key set a file that may be missing."""

    def __init__(self, cloud: Cloud, journal: Journal, folder: Path) -> None:
        self.cloud = cloud
        self.journal = journal
        self.issuer = Issuer()
        self.key_set = folder / "keys.json"
        keys = KeySet(FileSource(str(self.key_set)))
        verifier = TokenVerifier(keys, Expected(None, None, "project"))
        by_token = TokenAuthentication(verifier, cloud, journal, frozenset({"billing"}))
        self.identity = ResumeTokenAuthentication(by_token, cloud, journal, JournalReplays(journal))
        self.timeouts = Timeouts(30.0, 1500.0, DAY, (5, 30))
        self.authentication = Authentication(self.identity, journal, self.timeouts)

    async def authenticate(self, request: Request, patience: float = 0.5) -> Requester:
        """Wait for as many seconds at most."""
        timing = self.timeouts.timing(request, time.monotonic())
        until = Deadline.after(patience)
        return await self.authentication.authenticate(
            request, replace(timing, hold=until, deadline=until)
        )

    async def project_of(self, request: Request) -> str:
        return (await self.identity.identify(request)).project_id

    async def begin(self, request: Request, project_id: str) -> Begun:
        key = request.key(project_id)
        assert key is not None
        assert request.name is not None
        new = NewRequest(
            key,
            request.name,
            request.kind,
            request.operation,
            project_id,
            request.digest,
            time.time(),
        )
        begun = await self.journal.begin(new)
        assert isinstance(begun, Begun)
        return begun


@pytest.fixture
async def door(
    simulated: SimulatedOpenStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Door]:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(simulated.clouds_yaml))
    cloud = Cloud(CloudSettings("ecs-worker", "admin"))
    journal = Journal(f"sqlite:///{tmp_path}/journal.db")
    await journal.open()
    yield Door(cloud, journal, tmp_path)
    await journal.close()
    await cloud.close()


@pytest.fixture(scope="module")
def tenant(simulated: SimulatedOpenStack) -> Any:
    found = Tenant(simulated.clouds_yaml, "tenant-a")
    yield found
    found.close()


def ordered(body: dict[str, Any], **properties: Any) -> Envelope:
    return envelope(
        body,
        queue="ecs.orders",
        exchange="ecs.orders",
        routing_key="order.changeConfigure",
        **properties,
    )


def order(token: str | None, server_id: str | None = None, **fields: Any) -> dict[str, Any]:
    item = {"code": "std_2C4G", "value": "S1.medium.2"}
    product = {
        "productLineCode": "ECS",
        "instanceCount": "1",
        "instanceId": server_id or str(uuid.uuid4()),
        "itemList": [item],
    }
    return {
        "orderId": uuid.uuid4().hex,
        "orderStatus": "paySuccess",
        "orderType": "changeConfigure",
        "orderRoute": "ECS",
        "setCount": "1",
        "userId": USER,
        "token": token,
        "productList": [product],
    } | fields


def soft_down(server_id: str, **fields: Any) -> dict[str, Any]:
    instance = {
        "subFlowId": "s",
        "operateType": "stopServer",
        "productLineCode": "ECS",
        "instanceId": server_id,
    }
    return {"region": REGION, "flowId": uuid.uuid4().hex, "instanceList": [instance]} | fields


# softDown.


async def test_soft_down_is_taken_from_the_publishers_that_need_no_token(
    door: Door, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=None)
    for more in ({}, {"tenant_id": "tenant-a"}):
        request = parse(ordered(soft_down(server_id, **more), user_id="billing"), REGION)
        assert await door.project_of(request) == NO_PROJECT, (
            "each server in the project that owns it"
        )


@pytest.mark.parametrize("user", [None, "console", "guest", "BILLING"])
async def test_soft_down_of_anybody_else_is_refused_whatever_it_carries(
    door: Door, tenant: Tenant, user: str | None
) -> None:
    door.issuer.write(door.key_set)
    for more in (
        {},
        {"token": door.issuer.token(project="tenant-a"), "userId": USER},
        {"token": "***"},
    ):
        body = soft_down(str(uuid.uuid4()), tenant_id="tenant-a", **more)
        for headers in ({}, {RESUME_TOKEN_HEADER: new_resume_token()}, {"user_id": "billing"}):
            with pytest.raises(NotProven):
                await door.project_of(parse(ordered(body, user_id=user, headers=headers), REGION))


async def test_a_publisher_that_needs_no_token_for_soft_down_needs_one_for_all_else(
    door: Door,
) -> None:
    for body in (order(None, tenant_id="tenant-a"), order("***", tenant_id="tenant-a")):
        with pytest.raises(NotProven):
            await door.project_of(parse(ordered(body, user_id="billing"), REGION))
    body = {
        "operation": "server.show",
        "server_id": str(uuid.uuid4()),
        "tenant_id": "tenant-a",
        "user_id": USER,
    }
    with pytest.raises(NotProven):
        await door.project_of(
            parse(envelope(body, routing_key="server.show", user_id="billing"), REGION)
        )


async def test_a_soft_down_that_was_put_off_is_known_by_its_pass(door: Door) -> None:
    """It comes back published by the worker, not by the billing system."""
    body, word = soft_down(str(uuid.uuid4()), tenant_id="tenant-a"), new_resume_token()
    request = parse(ordered(body, user_id="billing"), REGION)
    begun = await door.begin(request, NO_PROJECT)
    again = ordered(body, headers={RESUME_TOKEN_HEADER: word})
    with pytest.raises(NotProven):
        await door.project_of(parse(again, REGION))
    await door.journal.release(begun.claim, 1, hash_of(word))
    requester = await door.identity.identify(parse(again, REGION))
    assert (requester.project_id, requester.resume_token) == (NO_PROJECT, word)


# What cannot be told just now.


def late(seconds: float, **properties: Any) -> dict[str, Any]:
    return {"timestamp": int(time.time() - seconds), **properties}


async def test_an_order_is_given_back_and_a_command_is_told_while_there_is_no_key_set(
    door: Door,
) -> None:
    request = parse(ordered(order(door.issuer.token(project="tenant-a"))), REGION)
    with pytest.raises(Requeue):
        await door.authenticate(request)
    body = {
        "operation": "server.show",
        "server_id": str(uuid.uuid4()),
        "user_id": USER,
        "token": door.issuer.token(),
    }
    with pytest.raises(Rejected) as caught:
        await door.authenticate(parse(envelope(body, routing_key="server.show"), REGION))
    assert caught.value.refused.reason == "keys"


async def test_it_is_let_in_as_soon_as_there_is_one(door: Door, tenant: Tenant) -> None:
    request = parse(ordered(order(door.issuer.token(project="tenant-a"))), REGION)
    with pytest.raises(Requeue):
        await door.authenticate(request)
    door.issuer.write(door.key_set)
    assert (await door.authenticate(request, 20)).project_id == tenant.project_id


async def test_what_is_too_old_when_it_first_comes_is_not_waited_for(door: Door) -> None:
    """Or an old token would only have to come while the key set is away."""
    old = parse(ordered(order(door.issuer.token()), **late(DAY + 100)), REGION)
    with pytest.raises(Rejected) as caught:
        await door.authenticate(old)
    refused = caught.value.refused
    assert (refused.code, refused.reason) == (Code.PARAMETER, "too_old")


async def test_what_was_given_back_is_not_too_old_for_having_waited(door: Door) -> None:
    body = order(door.issuer.token())
    again = parse(ordered(body, **late(DAY + 100, redelivered=True)), REGION)
    with pytest.raises(Requeue):
        await door.authenticate(again)
    assert door.timeouts.too_old(again.envelope) is None
    # For as long as an order would be tried, and not for ever.
    ancient = ordered(body, **late(2 * DAY + 100, redelivered=True))
    assert door.timeouts.too_old(ancient) is not None


async def test_an_old_copy_of_what_is_known_waits_for_its_result(
    door: Door, tenant: Tenant
) -> None:
    old = parse(ordered(order(door.issuer.token()), **late(DAY + 100)), REGION)
    await door.begin(old, tenant.project_id)
    with pytest.raises(Requeue):
        await door.authenticate(old)


def spoil(folder: Path) -> None:
    for path in folder.glob("journal.db*"):
        if path.is_file():
            path.write_bytes(b"no database " * 1000)


async def test_while_the_journal_cannot_be_read_nobody_with_a_pass_is_refused(
    door: Door, tmp_path: Path
) -> None:
    door.issuer.write(door.key_set)
    body = ordered(
        order("***", tenant_id="tenant-a"), headers={RESUME_TOKEN_HEADER: new_resume_token()}
    )
    with pytest.raises(Rejected) as caught:
        await door.authenticate(parse(body, REGION))
    assert isinstance(caught.value.refused, NotProven)
    await door.journal.close()
    spoil(tmp_path)
    with pytest.raises(Requeue):
        await door.authenticate(parse(body, REGION))


# Which project.


@pytest.mark.parametrize("by", ["name", "id"])
async def test_the_tokens_tenant_and_the_messages_may_be_told_by_name_or_id(
    door: Door, tenant: Tenant, by: str
) -> None:
    door.issuer.write(door.key_set)
    claim = "tenant-a" if by == "name" else tenant.project_id
    for said in (None, "tenant-a", tenant.project_id):
        request = parse(ordered(order(door.issuer.token(project=claim), tenant_id=said)), REGION)
        assert await door.project_of(request) == tenant.project_id


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ("tenant-a", "tenant-b"),
        ("tenant-a", "nobody"),
        ("nobody", None),
        ("nobody", "tenant-a"),
        ("nobody", "nobody"),
        ("gaoss", None),
        ("TENANT-A", None),
        ("tenant-a ", None),
    ],
)
async def test_another_tenant_than_the_tokens_is_refused(
    door: Door, claim: str, said: str | None
) -> None:
    door.issuer.write(door.key_set)
    with pytest.raises(NotProven):
        await door.project_of(
            parse(ordered(order(door.issuer.token(project=claim), tenant_id=said)), REGION)
        )


async def test_a_pass_counts_in_place_of_a_masked_token_only(door: Door, tenant: Tenant) -> None:
    door.issuer.write(door.key_set)
    body, word = order("***"), new_resume_token()
    request = parse(ordered(body), REGION)
    begun = await door.begin(request, tenant.project_id)
    await door.journal.release(begun.claim, 1, hash_of(word))
    with_pass = {"headers": {RESUME_TOKEN_HEADER: word}}
    assert await door.project_of(parse(ordered(body, **with_pass), REGION)) == tenant.project_id
    without = {name: value for name, value in body.items() if name != "token"}
    assert await door.project_of(parse(ordered(without, **with_pass), REGION)) == tenant.project_id
    # The key that nobody has comes first: once the set has been fetched, such an order waits for
    # the next set.
    for token in (
        Issuer().token(project="tenant-a"),
        "",
        "Bearer ***",
        "****",
        door.issuer.token(typ="Refresh"),
    ):
        with pytest.raises(NotProven):
            await door.project_of(parse(ordered(body | {"token": token}, **with_pass), REGION))
    with pytest.raises(NotProven):
        await door.project_of(
            replace(
                request, envelope=ordered(body, headers={RESUME_TOKEN_HEADER: new_resume_token()})
            )
        )

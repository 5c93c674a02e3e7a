"""Secrets with names of their own, sent by every way that a message can take, are afterwards found
nowhere.
"""

import base64
import gzip
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sandbox.documents import new_order_id
from sandbox.issuer import USER, Issuer, KeySetServer
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester, Source
from tests.integration.test_identity import Guarded, guards, in_queue
from tests.support.names import INPUT_QUEUES, UNDELIVERED_QUEUE
from tests.support.new_orders import delete_all, new, records
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

RETRY = 600


@dataclass(slots=True)
class Canaries:
    """Holds what must not be found, each made once."""

    issuer: Issuer
    all: list[str] = field(default_factory=list)

    def word(self) -> str:
        """A secret without any form."""
        self.all.append(f"canary{uuid.uuid4().hex}")
        return self.all[-1]

    def token(self, issuer: Issuer | None = None, **claims: Any) -> str:
        """A signed token; none of its parts may be found but the header, which is that of all."""
        token = (issuer or self.issuer).token(**{"project": "tenant-a"} | claims)
        self.all += token.split(".")[1:]
        return token


@dataclass(frozen=True, slots=True)
class Cage:
    """A worker that asks for tokens and logs all that it can, and whose retries wait long enough to
    be looked at.
    """

    guarded: Guarded
    canaries: Canaries
    requester: Requester

    @property
    def workshop(self) -> Workshop:
        return self.guarded.workshop

    def order(self, **fields: Any) -> dict[str, Any]:
        """An order with every secret that an order has a place for."""
        server_id = self.workshop.tenant().make_server(disk=None)
        return (
            self.guarded.order(
                server_id,
                token=self.canaries.token(),
                consoleCustomization={
                    "adminPass": self.canaries.word(),
                    "userData": self.canaries.word(),
                    "note": f"log in with Bearer {self.canaries.token()}, or Bearer {self.canaries.word()}",
                    "inner": json.dumps(
                        {
                            "password": self.canaries.word(),
                            "deep": [{"token": self.canaries.token()}],
                        }
                    ),
                    "list": [
                        {"rootPassword": self.canaries.word()},
                        [self.canaries.token()],
                        {self.canaries.token(): 1},
                    ],
                },
            )
            | fields
        )

    def command(self, about: str, **fields: Any) -> dict[str, Any]:
        """A command that says more than it has to."""
        return {
            "operation": "server.action",
            "server_id": about,
            "body": {"reboot": {"type": "HARD"}},
            "user_id": USER,
            "token": f"Bearer {self.canaries.token()}",
            "password": self.canaries.word(),
            "extra": {
                "client_secret": self.canaries.word(),
                "text": f"x {self.canaries.token()} y",
            },
        } | fields

    def headers(self) -> dict[str, Any]:
        """Headers with secrets in them."""
        return {
            "authorization": f"Bearer {self.canaries.token()}",
            "X-Auth-Token": self.canaries.word(),
            "note": self.canaries.token(),
            "table": {"password": self.canaries.word(), "in": [self.canaries.token()]},
            "tracestate": f"v={self.canaries.token()}",
            "traceparent": f"00-{'1' * 32}-{'2' * 16}-01",
        }

    def publish(self, body: Any, **options: Any) -> str:
        options = {"headers": self.headers(), "reply_to": self.requester.reply_to} | options
        return self.requester.publish(
            "ecs.commands", options.pop("routing_key", "server.action"), body, **options
        )

    def settle(self) -> None:
        """Wait until nothing is under way any more."""
        eventually(
            lambda: all(
                self.requester.depth(queue) == 0 for queue in (*INPUT_QUEUES, UNDELIVERED_QUEUE)
            ),
            60,
        )
        eventually(lambda: "ecs_in_flight 0.0" in self.workshop.running.metrics(), 60)
        self.requester.listen(0.5)

    def written(self) -> dict[str, bytes]:
        """Everything that was written anywhere."""
        url, folder = self.workshop.broker_url, self.workshop.folder
        found = {
            "logs": self.workshop.logs().encode(),
            "journal": self.workshop.journal_dump().encode(),
        }
        found |= {
            path.name: path.read_bytes() for path in folder.glob("journal.db*") if path.is_file()
        }
        found["metrics"] = self.workshop.running.metrics().encode()
        for queue in (
            "ecs.dead",
            f"ecs.retry.{RETRY}",
            UNDELIVERED_QUEUE,
            *INPUT_QUEUES,
        ):
            found[queue] = b"".join(
                (one.body.encode() if isinstance(one.body, str) else bytes(one.body))
                + repr(one.headers).encode()
                for one in in_queue(url, queue)
            )
        for source in Source:
            heard = [one for one in self.requester.heard if one.source is source]
            found[source.value] = b"".join(one.raw + repr(one.headers).encode() for one in heard)
        for word in ("journal list", "journal show m-canary"):
            done = self.workshop.command(*word.split(), "-o", "json")
            found[word] = (done.stdout + done.stderr).encode()
        return found

    def check(self, *expected: str) -> None:
        """No secret is anywhere, and something was written where it was expected."""
        self.settle()
        written = self.written()
        assert len(self.canaries.all) > 10
        for name in ("logs", "journal", "metrics", *expected):
            assert written[name], f"nothing in {name}"
        for name, text in written.items():
            for one in self.canaries.all:
                found = text.find(one.encode())
                assert found < 0, f"{name} has {text[max(0, found - 200) : found + 100]!r}"


@pytest.fixture
def cage(workshop: Workshop, tmp_path: Path) -> Iterator[Cage]:
    issuer = Issuer()
    declare(workshop.broker_url, topology((RETRY,)))
    with KeySetServer(issuer) as server, Requester(workshop.broker_url) as requester:
        guards(workshop, server.url, ECS_LOG_LEVEL="debug", ECS_RETRY_DELAYS=str(RETRY))
        workshop.worker()
        yield Cage(Guarded(workshop, issuer, server), Canaries(issuer), requester)


def test_what_is_carried_out_and_repeated_leaves_no_secret(cage: Cage) -> None:
    server_id = cage.workshop.tenant().make_server(disk=None)
    command = cage.command(server_id)
    for _ in range(2):
        assert (
            cage.requester.result_of(cage.publish(command, message_id="m-canary")).body["code"]
            == 200
        )
    for operation, more in (
        ("server.show", {}),
        ("server.list", {}),
        ("image.list", {}),
        ("server.action", {"body": {"os-getVNCConsole": {"type": "novnc"}}}),
        ("server.tags.update", {"tags": "a,b"}),
        (
            "server.action",
            {
                "body": {
                    "createImage": {
                        "name": "i",
                        "description": "d",
                        "metadata": {"db_password": cage.canaries.word()},
                    }
                }
            },
        ),
    ):
        message_id = cage.publish(
            cage.command(server_id, operation=operation, **more), routing_key=operation
        )
        assert cage.requester.result_of(message_id).body["code"] in (200, 201), operation
    order = cage.order()
    for _ in range(2):
        message_id = cage.requester.order(
            json.dumps(order), headers=cage.headers(), reply_to=cage.requester.reply_to
        )
        assert cage.requester.order_result_of(message_id).body["code"] == 200
    cage.check("journal.db", "reply", "order result", "status", "journal show m-canary")


def test_what_is_refused_and_parked_leaves_no_secret(cage: Cage) -> None:
    server_id = cage.workshop.tenant().make_server(disk=None)
    order = cage.order()
    assert (
        cage.requester.result_of(cage.publish(cage.command(server_id), message_id="m-canary")).body[
            "code"
        ]
        == 200
    )
    conflict = cage.command(server_id) | {"body": {"os-stop": None}}
    refused = [
        cage.publish(cage.command(server_id, token=f"Bearer {cage.canaries.token(Issuer())}")),
        cage.publish(
            cage.command(server_id, token=cage.canaries.token(exp=int(time.time()) - 3600))
        ),
        cage.publish(cage.command(server_id, token=cage.canaries.token(sub="another"))),
        cage.publish(cage.command(server_id, user_id=cage.canaries.token())),
        cage.publish(cage.command(server_id, tenant_id=cage.canaries.token())),
        cage.publish(cage.command(server_id, server_id=cage.canaries.token())),
        cage.publish(cage.command(server_id, body={cage.canaries.token(): cage.canaries.word()})),
        cage.publish(cage.command(server_id, operation=cage.canaries.token())),
        cage.publish(conflict, message_id="m-canary", correlation_id="conflict"),
    ]
    for message_id in [*refused[:-1], "conflict"]:
        assert cage.requester.result_of(message_id).body["code"] != 200
    for body in (
        order | {"orderRoute": cage.canaries.token()},
        order | {"userId": cage.canaries.token()},
        order | {"orderType": cage.canaries.token()},
        order | {"token": cage.canaries.token(typ="Refresh")},
        order | {"orderId": new_order_id(), "setCount": "many"},
    ):
        message_id = cage.requester.order(json.dumps(body), headers=cage.headers())
        assert cage.requester.order_result_of(message_id).body["code"] != 200
    cage.check("ecs.dead", "reply", "order result")


def test_rubbish_leaves_no_secret(cage: Cage) -> None:
    def text() -> str:
        return json.dumps(
            {
                "token": cage.canaries.token(),
                "adminPass": cage.canaries.word(),
                "a": cage.canaries.token(),
            }
        )

    bodies: list[tuple[Any, dict[str, Any]]] = [
        (text()[:-1], {}),
        (text() + text(), {}),
        (f"[{text()}]", {}),
        (f"rubbish {cage.canaries.token()} rubbish", {}),
        (json.dumps(cage.canaries.token()), {}),
        (f'{{"token": NaN, "password": "{cage.canaries.word()}"}}', {}),
        (f'{{"password": "{cage.canaries.word()}", "password": "{cage.canaries.word()}"}}', {}),
        (text().encode("utf-16"), {}),
        (b"\xff" + text().encode(), {}),
        (b"\xef\xbb\xbf" + text().encode(), {}),
        (gzip.compress(text().encode()), {"content_encoding": "gzip"}),
        (text(), {"content_type": "text/plain"}),
        (
            f"token: {cage.canaries.token()}\npassword: {cage.canaries.word()}\n",
            {"content_type": "application/yaml"},
        ),
        (f"<order><token>{cage.canaries.word()}</token></order>", {"content_type": "text/xml"}),
        ('{"a":' * 100 + text() + "}" * 100, {}),
        (text().replace("token", "\\u0074oken")[:-1], {}),
    ]
    for body, options in bodies:
        cage.publish(body, **{"reply_to": None} | options)
        cage.requester.order(body, headers=cage.headers(), **options)
        cage.publish(body, routing_key="volume.create", **{"reply_to": None} | options)
    eventually(lambda: cage.requester.depth("ecs.dead") >= 2 * len(bodies), 60)
    cage.check("ecs.dead", "order result")


def test_what_a_new_server_is_made_with_is_told_to_nova_alone(
    cage: Cage, simulated: SimulatedOpenStack
) -> None:
    """While Nova is down the order waits with its secrets, which it needs, and so in no queue of
    ours.
    """
    tenant = cage.workshop.tenant()
    before = records(tenant)
    chosen = {"adminPass": cage.canaries.word(), "instanceName": "x"}
    script = f"#!/bin/sh\necho {cage.canaries.word()}\n"
    chosen["userData"] = base64.b64encode(script.encode()).decode()
    cage.canaries.all.append(chosen["userData"])
    order = new(tenant, chosen=chosen) | {"token": cage.canaries.token()}
    simulated.fault("api.nova", match="^POST .*/servers$", error="down", status=503, times=3)
    message_id = cage.requester.order(json.dumps(order), "order.new", headers=cage.headers())
    try:
        assert cage.requester.order_result_of(message_id, 120).body["code"] == 200
        again = cage.requester.order(
            json.dumps(order | {"token": cage.canaries.token()}), "order.new"
        )
        assert cage.requester.order_result_of(again).body["code"] == 200
        cage.check("journal.db", "order result", "status")
    finally:
        simulated.clear_faults()
        delete_all(tenant, records(tenant) - before)


def test_what_waits_in_a_retry_queue_holds_no_secret(
    cage: Cage, simulated: SimulatedOpenStack
) -> None:
    order = cage.order()
    simulated.fault(
        "api.nova", match=order["productList"][0]["instanceId"], error="down", status=503
    )
    cage.requester.order(json.dumps(order), headers=cage.headers())
    eventually(lambda: cage.requester.depth(f"ecs.retry.{RETRY}") == 1, 60)
    simulated.clear_faults()
    cage.check(f"ecs.retry.{RETRY}", "status")

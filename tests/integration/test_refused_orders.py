"""Refused orders on a real broker: nobody can answer another's, and what came too late may come
again.
"""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.broker import PrivateBroker
from sandbox.issuer import Issuer, KeySetServer
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Heard, Requester, Source
from tests.integration.test_identity import (
    FAILED,
    IDENTITY,
    PARAMETER,
    Guarded,
    guards,
    in_queue,
    publish_bare,
)
from tests.support.orders import soft_down
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

pytestmark = pytest.mark.slow

DAY = 86400


@pytest.fixture(scope="module")
def guarded(
    broker: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """One worker for all tests of this file."""
    folder, issuer = tmp_path_factory.mktemp("refused"), Issuer()
    url = broker.add_vhost(folder.name)
    declare(url, topology())
    with KeySetServer(issuer) as server, Workshop(url, simulated, folder) as workshop:
        guards(workshop, server.url)
        workshop.worker()
        yield Guarded(workshop, issuer, server)


@pytest.fixture
def requester(guarded: Guarded) -> Iterator[Requester]:
    with Requester(guarded.workshop.broker_url) as found:
        yield found


@pytest.fixture
def known(guarded: Guarded, requester: Requester) -> dict[str, Any]:
    """An order that has ended well."""
    order = guarded.order(guarded.workshop.tenant().make_server(disk=None))
    assert requester.order_result_of(requester.order(json.dumps(order))).body["code"] == 200
    return order


def heard_of(requester: Requester, message_id: str) -> list[Heard]:
    """Results of a message, and status updates, so far."""
    return [
        one
        for one in requester.heard
        if message_id in (one.correlation_id, one.body.get("message_id"))
    ]


def parked(requester: Requester, guarded: Guarded, *message_ids: str) -> dict[str, str]:
    """The error codes of these messages, once they are in `ecs.dead`."""
    eventually(lambda: requester.depth("ecs.dead") == len(message_ids), 60)
    requester.listen(1.0)
    taken = in_queue(guarded.workshop.broker_url, "ecs.dead")
    return {one.properties["message_id"]: one.headers["x-ecs-error-code"] for one in taken}


def test_an_order_without_proof_is_answered_and_has_no_updates(
    guarded: Guarded, requester: Requester
) -> None:
    order = guarded.order(str(uuid.uuid4()), token=Issuer().token(project="tenant-a"))
    message_id = requester.order(json.dumps(order))
    assert requester.order_result_of(message_id).body["code"] == IDENTITY
    assert parked(requester, guarded, message_id) == {message_id: IDENTITY}
    assert [one.source for one in heard_of(requester, message_id)] == [Source.ORDER_RESULT]


def test_nobody_can_answer_anothers_order(
    guarded: Guarded, requester: Requester, known: dict[str, Any]
) -> None:
    """By a bad token, in a wrong form, as a softDown, by an id that is a number, by a message that
    expires.
    """
    forged = Issuer().token(project="tenant-a")
    number = int(known["orderId"])
    messages = [
        known | {"token": forged},
        known | {"token": None},
        known | {"token": forged, "productList": []},
        known | {"token": forged, "orderId": f"  {known['orderId']} ", "orderRoute": "RDS"},
        known | {"token": forged, "orderId": number},
        soft_down((str(uuid.uuid4()), "delete"), orderId=known["orderId"]),
        soft_down((str(uuid.uuid4()), "nothing"), flowId=known["orderId"]),
    ]
    sent = [requester.order(json.dumps(one)) for one in messages]
    eventually(lambda: requester.depth("ecs.dead") == len(sent), 60)
    late = known | {"token": forged, "orderType": "renew"}
    # It expires before anybody reads it: the queue is left alone for that long.
    pause = guarded.workshop.running
    pause.terminate()
    sent += [requester.order(json.dumps(late), expiration=0.001)]
    eventually(lambda: requester.depth("ecs.undelivered") == 1, 60)
    guarded.workshop.worker()
    assert set(parked(requester, guarded, *sent)) == set(sent)
    for message_id in sent:
        assert heard_of(requester, message_id) == [], messages[sent.index(message_id)]
    about = [one for one in requester.heard if one.body.get("id") == known["orderId"]]
    assert [one.body["status"] for one in about if one.is_final] == ["succeeded"]


def test_a_wrong_order_of_a_proven_sender_is_answered_and_ends_no_other(
    guarded: Guarded, requester: Requester, known: dict[str, Any]
) -> None:
    token = guarded.token()
    again = requester.order(json.dumps(known | {"token": token, "productList": []}))
    new = known | {"token": token, "productList": [], "orderId": uuid.uuid4().hex}
    first = requester.order(json.dumps(new))
    assert requester.order_result_of(again).body["code"] == PARAMETER
    assert requester.order_result_of(first).body["code"] == PARAMETER
    final = requester.last_update_of("order", first).body
    assert final["status"] == "failed"
    assert final["tenant_id"] == guarded.workshop.tenant().project_id
    assert final["user_id"] == known["userId"]
    parked(requester, guarded, again, first)
    assert requester.updates_of(again) == []


def test_a_request_that_came_too_late_may_be_put_in_again(
    guarded: Guarded, requester: Requester
) -> None:
    """An order by its sender and by an operator, a command by its sender; each leaves no key."""
    workshop, url = guarded.workshop, guarded.workshop.broker_url
    then = int(time.time()) - DAY - 60
    old = guarded.token(iat=then - 10, exp=then + 100)
    servers = [workshop.tenant().make_server(disk=None) for _ in range(2)]
    orders = [guarded.order(one, token=old) for one in servers]
    ids = [uuid.uuid4().hex for _ in range(3)]
    for order, message_id in zip(orders, ids, strict=False):
        publish_bare(
            url, "ecs.orders", "order.changeConfigure", order, message_id=message_id, timestamp=then
        )
        result = requester.order_result_of(message_id).body
        assert (result["code"], result["data"]["reason"]) == (PARAMETER, "too_old")
        final = requester.last_update_of("order", message_id).body
        assert final["status"] == "failed"
        assert final["tenant_id"] == workshop.tenant().project_id
        assert final["user_id"] == order["userId"]
    command = {
        "operation": "server.action",
        "server_id": servers[0],
        "body": {"os-stop": None},
        "user_id": orders[0]["userId"],
        "token": old,
    }
    publish_bare(
        url,
        "ecs.commands",
        "server.action",
        command,
        message_id=ids[2],
        timestamp=then,
        reply_to=requester.reply_to,
    )
    assert requester.result_of(ids[2]).body["data"] == {"reason": "too_old"}
    eventually(lambda: requester.depth("ecs.dead") == 3, 60)
    dump = workshop.journal_dump()
    assert not [one for one in (orders[0]["orderId"], orders[1]["orderId"], ids[2]) if one in dump]
    fresh = requester.order(json.dumps(orders[0] | {"token": guarded.token()}))
    assert requester.order_result_of(fresh).body["code"] == 200
    done = workshop.command("dead", "replay", "--id", ids[1], "--yes", "-o", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    requester.wait(lambda one: one.correlation_id == ids[1] and one.body.get("code") == 200, 60)
    requester.command(
        **(command | {"token": guarded.token()}), tenant="tenant-a", message_id=ids[2]
    )
    requester.wait(
        lambda one: one.correlation_id == ids[2] and one.body.get("code") in (200, "101.001014"), 60
    )
    in_queue(url, "ecs.dead")


def test_a_deadline_counts_until_the_first_effect(
    guarded: Guarded, requester: Requester, simulated: SimulatedOpenStack
) -> None:
    """Of an order that waits for a cloud, named in the header and by `expiration`: nothing is
    begun.
    """
    workshop = guarded.workshop
    servers = [workshop.tenant().make_server(disk=None) for _ in range(2)]
    orders = [guarded.order(one) for one in servers]
    simulated.fault("api.nova", match="GET .*flavors", error="down", status=503)
    sent = [
        requester.order(json.dumps(orders[0]), headers={"x-ecs-deadline": int(time.time()) + 4}),
        requester.order(json.dumps(orders[1]), expiration=4),
    ]
    try:
        for message_id in sent:
            result = requester.order_result_of(message_id, 60).body
            assert (result["code"], result["data"]["reason"]) == (FAILED, "deadline")
            assert requester.last_update_of("order", message_id).body["status"] == "failed"
    finally:
        simulated.clear_faults()
    for server_id in servers:
        assert workshop.tenant().actions(server_id) == ["create"]


def test_what_was_begun_goes_on_whatever_its_deadline(
    guarded: Guarded, requester: Requester
) -> None:
    """The worker dies in the middle of the resize; the next has it when its deadline has passed."""
    workshop = guarded.workshop
    server_id = workshop.tenant().make_server(disk=None)
    deadline = int(time.time()) + 15
    message_id = requester.order(
        json.dumps(guarded.order(server_id)), headers={"x-ecs-deadline": deadline}
    )
    # The status comes before the intent; until there is one the deadline counts.
    eventually(lambda: "resize" in workshop.tenant().actions(server_id), 60)
    workshop.running.kill()
    time.sleep(max(0.0, deadline + 1 - time.time()))
    workshop.worker()
    assert requester.order_result_of(message_id).body["code"] == 200
    assert workshop.tenant().actions(server_id).count("resize") == 1

"""softDown has no token: it is believed from some publishers, by the user that the broker has seen
to.
"""

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from sandbox.issuer import Issuer, KeySetServer
from sandbox.requester import Requester
from tests.support.orders import carried_out, publish, soft_down
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow


@pytest.fixture
def guarded(workshop: Workshop) -> Iterator[Workshop]:
    """A workshop whose workers ask for tokens, of all but the broker's own user."""
    user = urlsplit(workshop.broker_url).username or ""
    issuer = Issuer()
    with KeySetServer(issuer) as server:
        workshop.settings |= {
            "ECS_TRUST_PUBLISHERS": "false",
            "ECS_JWT_JWKS": server.url,
            "ECS_TOKENLESS_PUBLISHERS": f"billing,{user}",
        }
        yield workshop


def user_of(workshop: Workshop) -> str:
    return urlsplit(workshop.broker_url).username or ""


def test_it_is_taken_from_the_publishers_that_are_named(guarded: Workshop) -> None:
    guarded.worker()
    server_id = guarded.tenant().make_server(disk=None)
    with Requester(guarded.broker_url) as requester:
        result, _ = carried_out(
            requester, soft_down((server_id, "stopServer")), user_id=user_of(guarded)
        )
    assert result.body["code"] == 200
    assert guarded.tenant().server(server_id)["status"] == "SHUTOFF"


@pytest.mark.parametrize("named", [True, False])
def test_from_anybody_else_it_is_refused_and_parked(guarded: Workshop, *, named: bool) -> None:
    settings = {"ECS_TOKENLESS_PUBLISHERS": "somebody-else"} if named else {}
    guarded.worker(**settings)
    server_id = guarded.tenant().make_server(disk=None)
    properties = {"user_id": user_of(guarded)} if named else {}
    message = soft_down((server_id, "stopServer"))
    with Requester(guarded.broker_url) as requester:
        result = requester.order_result_of(publish(requester, message, **properties))
        assert (result.body["code"], result.body["message"]) == ("101.001401", "身份校验失败")
        (instance,) = result.body["data"]["instanceList"]
        assert (instance["result"], instance["instanceStatus"]) == ("fail", None)
        eventually(lambda: requester.depth("ecs.dead") == 1)
    assert guarded.tenant().actions(server_id) == ["create"]


def test_no_other_order_is_believed_of_them(guarded: Workshop) -> None:
    guarded.worker()
    server_id = guarded.tenant().make_server(disk=None)
    order = soft_down((server_id, "stopServer"))
    command = {
        "operation": "server.action",
        "tenant_id": "tenant-a",
        "server_id": server_id,
        "body": {"os-stop": None},
    }
    with Requester(guarded.broker_url) as requester:
        message_id = requester.publish(
            "ecs.commands",
            "server.action",
            command,
            reply_to=requester.reply_to,
            user_id=user_of(guarded),
        )
        assert requester.result_of(message_id).body["code"] == "101.001401"
        # An order's own type counts, not its routing key.
        paid = {
            "orderType": "renew",
            "orderStatus": "paySuccess",
            "orderRoute": "ECS",
            "orderId": order["flowId"],
        }
        message_id = requester.order(json.dumps(paid), "order.softDown", user_id=user_of(guarded))
        assert requester.order_result_of(message_id).body["code"] != 200
    assert guarded.tenant().actions(server_id) == ["create"]


def test_what_waits_for_the_cloud_is_known_again_when_it_comes_back(guarded: Workshop) -> None:
    guarded.worker(ECS_RETRY_DELAYS="1")
    server_id = guarded.tenant().make_server(disk=None)
    guarded.cloud.fault(
        "api.nova", match=f"/servers/{server_id}/action", error="down", status=503, times=30
    )
    with Requester(guarded.broker_url) as requester:
        message_id = publish(
            requester, soft_down((server_id, "stopServer")), user_id=user_of(guarded)
        )
        requester.wait(lambda one: one.body.get("status") == "waiting_retry")
        guarded.cloud.clear_faults()
        assert requester.order_result_of(message_id).body["code"] == 200
    assert guarded.tenant().actions(server_id) == ["create", "stop"]


def test_one_that_was_refused_is_carried_out_when_an_operator_replays_it(guarded: Workshop) -> None:
    guarded.worker(ECS_TOKENLESS_PUBLISHERS="somebody-else")
    server_id = guarded.tenant().make_server(disk=None)
    with Requester(guarded.broker_url) as requester:
        message_id = publish(
            requester, soft_down((server_id, "stopServer")), user_id=user_of(guarded)
        )
        assert requester.order_result_of(message_id).body["code"] == "101.001401"
        eventually(lambda: requester.depth("ecs.dead") == 1)
        done = guarded.command(
            "dead", "replay", "--all", "--yes", "--vouch", "--operator", "night@shift"
        )
        assert done.returncode == 0, done.stderr
        requester.wait(
            lambda one: one.correlation_id == message_id and one.body.get("code") == 200, 60
        )
        eventually(lambda: requester.depth("ecs.dead") == 0)
    assert guarded.tenant().actions(server_id) == ["create", "stop"]


def test_the_same_flow_with_another_content_is_refused_and_parked(workshop: Workshop) -> None:
    workshop.worker()
    server_id = workshop.tenant().make_server(disk=None)
    with Requester(workshop.broker_url) as requester:
        message = soft_down((server_id, "stopServer"))
        carried_out(requester, message)
        other = soft_down((server_id, "resumeServer"), flowId=message["flowId"])
        result = requester.order_result_of(publish(requester, other)).body
        assert (result["code"], result["message"]) == ("101.001002", "参数flowId不符合规范")
        assert result["data"]["reason"] == "conflicting_duplicate"
        eventually(lambda: requester.depth("ecs.dead") == 1)
    assert workshop.tenant().actions(server_id) == ["create", "stop"]

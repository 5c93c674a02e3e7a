"""The worker on a real broker and the simulated cloud: bad messages, duplicates, deaths, secrets."""

import json
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from amqp import Message
from kombu import Connection, Queue

from sandbox.broker import PrivateBroker
from sandbox.documents import change_configure, new_order_id, new_token
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Heard, Requester, Source
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

pytestmark = pytest.mark.slow

PARAMETER = "101.001002"


def resize_order(server_id: str, image: str, disk: int | None = None, **fields: Any) -> str:
    """An order for another flavor alone, or for a larger system disk, too."""
    order = json.loads(change_configure(server_id, image))
    items = order["productList"][0]["itemList"]
    order["productList"][0]["itemList"] = items[:3]
    if disk is not None:
        order["productList"][0]["itemList"].append(
            {"code": "sys_EBS_SATA", "value": str(disk), "name": "disk"}
        )
    return json.dumps({"tenant_id": "tenant-a", **order, **fields})


def dead(workshop: Workshop) -> list[Any]:
    """Everything in `ecs.dead`, taken out."""
    with Connection(workshop.broker_url) as connection:
        queue, found = Queue("ecs.dead", no_declare=True)(connection.channel()), []
        while (message := queue.get(no_ack=True)) is not None:
            found.append(message)
        return found


def body_of(message: Any) -> bytes:
    return message.body.encode() if isinstance(message.body, str) else bytes(message.body)


# What is wrong with a message.

#: What a program can use, by the property.
REASONS = {"content_type": "not_json", "content_encoding": "not_utf8"}


@pytest.mark.parametrize(
    ("body", "options", "parameter"),
    [
        (b"\xff\xfe", {}, "body"),
        (b'{"operation": "server.action", "operation": "x"}', {}, "body"),
        (b'{"operation": NaN}', {}, "body"),
        (b"[1]", {}, "body"),
        (b"[" * 100_000, {}, "body"),
        (b'{"operation": "server.action"}', {"content_type": "text/xml"}, "content_type"),
        (b"{}", {"content_encoding": "gzip"}, "content_encoding"),
        (b"{}", {}, "operation"),
        (b'{"operation": "server.batch_action"}', {}, "operation"),
        (b'{"operation": "server.action", "server_id": "../../etc"}', {}, "server_id"),
        (b'{"operation": "server.action", "server_id": {"$ne": null}}', {}, "server_id"),
    ],
)
def test_a_command_that_is_wrong_in_form_is_answered(
    small: Workshop, body: bytes, options: dict[str, Any], parameter: str
) -> None:
    with Requester(small.broker_url) as requester:
        message_id = requester.publish(
            "ecs.commands", "server.action", body, reply_to=requester.reply_to, **options
        )
        result = requester.result_of(message_id)
        assert result.body == {
            "code": PARAMETER,
            "message": f"参数{parameter}不符合规范",
            "data": {"reason": REASONS[parameter]} if parameter in REASONS else None,
        }
        assert result.headers["x-ecs-http-status"] == 400
    assert dead(small) == []


@pytest.mark.parametrize(
    ("properties", "code"),
    [
        ({"message_id": "a\x00b"}, PARAMETER),
        ({"message_id": b"\xff\xfe"}, PARAMETER),
        ({"message_id": "x", "application_headers": {"x-ecs-first-seen": -1.5}}, "101.001033"),
        ({"message_id": "y", "application_headers": {"x-ecs-deadline": "soon"}}, PARAMETER),
    ],
)
def test_odd_properties_are_answered(
    small: Workshop, properties: dict[str, Any], code: str
) -> None:
    """kombu would not write all of them."""
    command = {
        "operation": "server.action",
        "tenant_id": "tenant-a",
        "server_id": str(uuid.uuid4()),
    }
    correlation_id = uuid.uuid4().hex
    with Requester(small.broker_url) as requester, Connection(small.broker_url) as connection:
        connection.channel().basic_publish(
            Message(
                json.dumps(command | {"body": {"os-start": None}}),
                reply_to=requester.reply_to,
                correlation_id=correlation_id,
                content_type="application/json",
                **properties,
            ),
            "ecs.commands",
            "server.action",
        )
        assert requester.result_of(correlation_id).body["code"] == code


def test_a_wrong_command_that_nobody_waits_for_is_parked(small: Workshop) -> None:
    with Requester(small.broker_url) as requester:
        message_id = requester.publish(
            "ecs.commands", "server.action", b'{"operation": "server.action"}'
        )
        eventually(lambda: requester.depth("ecs.dead") == 1)
    (parked,) = dead(small)
    assert parked.properties["message_id"] == message_id
    assert body_of(parked) == b'{"operation":"server.action"}'
    assert parked.headers["x-ecs-error-code"] == PARAMETER
    assert parked.headers["x-ecs-origin-queue"] == "ecs.servers"
    assert parked.headers["x-ecs-attempts"] == 0
    assert parked.headers.keys() >= {"x-ecs-error", "x-ecs-failed-at"}


def test_a_reply_to_that_names_our_own_queue_is_refused(small: Workshop) -> None:
    with Requester(small.broker_url) as requester:
        requester.command(
            "server.action",
            server_id=str(uuid.uuid4()),
            body={"os-stop": None},
            reply_to="ecs.orders",
        )
        eventually(lambda: requester.depth("ecs.dead") == 1)
        assert requester.depth("ecs.orders") == 0
    dead(small)


def test_a_reply_queue_that_is_gone_costs_nothing(small: Workshop) -> None:
    with Requester(small.broker_url) as requester:
        requester.command(
            "server.action", server_id=str(uuid.uuid4()), body={"os-start": None}, reply_to="gone"
        )
        again = requester.command(
            "server.action", server_id=str(uuid.uuid4()), body={"os-start": None}
        )
        assert requester.result_of(again).body["code"] == "101.001033"
        eventually(lambda: requester.depth("ecs.servers") == 0)
    assert dead(small) == []


def test_what_no_queue_takes_is_moved_to_the_dead(small: Workshop) -> None:
    with Requester(small.broker_url) as requester:
        requester.publish(
            "ecs.commands", "volume.create", {"token": new_token(), "operation": "volume.create"}
        )
        eventually(lambda: requester.depth("ecs.dead") == 1)
    (parked,) = dead(small)
    assert json.loads(body_of(parked)) == {"token": "***", "operation": "volume.create"}
    assert parked.headers["x-ecs-origin-queue"] == "ecs.undelivered"


def test_an_unknown_tenant_is_refused(small: Workshop) -> None:
    with Requester(small.broker_url) as requester:
        for tenant in ("no-such-tenant", None):
            message_id = requester.command(
                "server.action", tenant=tenant, server_id=str(uuid.uuid4()), body={"os-start": None}
            )
            result = requester.result_of(message_id).body
            assert (result["code"], result["message"]) == (PARAMETER, "参数tenant_id不符合规范")


@pytest.mark.parametrize(
    ("text", "subject", "key"),
    [
        ('{"orderId": "1", ', "body", "order.unknown"),
        (
            '{"orderStatus": "paySuccess", "orderType": "changeConfigure"}',
            "orderRoute",
            "order.changeConfigure",
        ),
        ('{"orderStatus": "paySuccess", "orderType": "x/y"}', "orderType", "order.unknown"),
        (
            '{"orderStatus": "paySuccess", "orderType": "changeConfigure", "orderId": {}}',
            "orderRoute",
            "order.changeConfigure",
        ),
    ],
)
def test_an_order_that_is_wrong_in_form_is_answered_and_parked(
    small: Workshop, text: str, subject: str, key: str
) -> None:
    with Requester(small.broker_url) as requester:
        message_id = requester.order(text)
        result = requester.order_result_of(message_id)
        assert (result.body["code"], result.body["message"]) == (
            PARAMETER,
            f"参数{subject}不符合规范",
        )
        assert result.routing_key == key
        assert result.body["data"]["productSetList"][0]["productSetStatus"] == "fail"
        eventually(lambda: requester.depth("ecs.dead") == 1)
    dead(small)


def test_an_order_that_is_refused_has_one_update(small: Workshop) -> None:
    order_id = new_order_id()
    order = {
        "orderStatus": "paySuccess",
        "orderType": "renew",
        "orderId": order_id,
        "tenant_id": "tenant-a",
    }
    with Requester(small.broker_url) as requester:
        message_id = requester.order(json.dumps(order), "order.renew")
        update = requester.last_update_of("order", message_id, resource_id=order_id)
        assert [one.body["status"] for one in requester.updates_of(message_id)] == ["failed"]
        assert (update.body["progress"], update.body["operation"]) == (0, "order.renew")
    eventually(lambda: len(dead(small)) == 1)


def test_the_same_order_with_another_content_is_refused_and_parked(small: Workshop) -> None:
    tenant = small.tenant()
    server_id, order_id = tenant.make_server(disk=None), new_order_id()
    with Requester(small.broker_url) as requester:
        first = requester.order(resize_order(server_id, tenant.image, orderId=order_id))
        assert requester.order_result_of(first).body["code"] == 200
        # Another token and another statusTime are the same order still.
        same = requester.order(
            resize_order(
                server_id,
                tenant.image,
                orderId=order_id,
                token="x",
                statusTime="2026-01-01 00:00:00",
            )
        )
        assert requester.order_result_of(same).body["code"] == 200
        other = requester.order(
            resize_order(server_id, tenant.image, orderId=order_id, billType="monthly")
        )
        refused = requester.order_result_of(other).body
        assert (refused["code"], refused["data"]["reason"]) == (PARAMETER, "conflicting_duplicate")
        eventually(lambda: requester.depth("ecs.dead") == 1)
    assert tenant.actions(server_id).count("resize") == 1
    dead(small)


def test_a_deadline_that_has_passed_begins_nothing(small: Workshop) -> None:
    server_id = small.tenant().make_server(disk=None)
    with Requester(small.broker_url) as requester:
        message_id = requester.command(
            "server.action",
            server_id=server_id,
            body={"os-stop": None},
            headers={"x-ecs-deadline": str(int(time.time()) - 5)},
        )
        result = requester.result_of(message_id).body
        assert (result["code"], result["data"]["reason"]) == ("101.001040", "deadline")
    assert small.tenant().actions(server_id) == ["create"]


def test_ten_copies_at_once_have_one_effect_and_ten_answers(small: Workshop) -> None:
    server_id = small.tenant().make_server(disk=None)
    with Requester(small.broker_url) as requester:
        message_id = uuid.uuid4().hex
        for number in range(10):
            requester.command(
                "server.action",
                server_id=server_id,
                body={"reboot": {"type": "HARD"}},
                message_id=message_id,
                correlation_id=str(number),
            )
        results = [requester.result_of(str(number)) for number in range(10)]
        assert {one.raw for one in results} == {b'{"code":200,"message":"OK","data":null}'}
        requester.last_update_of("server", message_id)
    assert small.tenant().actions(server_id) == ["create", "reboot"]


# Deaths.


def killed_when(workshop: Workshop, order: str, status: str) -> Heard:
    """An order's result where the worker was killed as it told this status, and another one went
    on.
    """
    worker = workshop.worker()
    with Requester(workshop.broker_url) as requester:
        message_id = requester.order(order)
        requester.wait(
            lambda one: (
                one.body.get("message_id") == message_id and one.body.get("status") == status
            )
        )
        worker.kill()
        workshop.worker()
        result = requester.order_result_of(message_id)
        requester.last_update_of("order", message_id)
        requester.listen(0.5)
        told = [
            one.body for one in requester.updates_of(message_id) if one.body["resource"] == "order"
        ]
        assert [one["progress"] for one in told] == sorted(one["progress"] for one in told)
        assert sum(one["final"] for one in told) == 1
        results = [one for one in requester.heard if one.source is Source.ORDER_RESULT]
        assert len({one.raw for one in results}) == 1
        eventually(lambda: requester.depth("ecs.orders") == 0)
    return result


@pytest.mark.parametrize("status", ["accepted", "resizing", "extending", "confirming"])
def test_a_worker_that_is_killed_leaves_its_order_to_the_next(
    workshop: Workshop, status: str
) -> None:
    tenant = workshop.tenant()
    server_id = tenant.make_server(disk=10)
    order = json.loads(change_configure(server_id, tenant.image)) | {"tenant_id": "tenant-a"}
    assert killed_when(workshop, json.dumps(order), status).body["code"] == 200
    actions = tenant.actions(server_id)
    assert (actions.count("resize"), actions.count("confirmResize")) == (1, 1)
    assert [one["size"] for one in tenant.volumes(server_id)] == [60]


def test_a_batch_is_killed_and_gone_on_with(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    ids = [workshop.tenant().make_server(disk=None) for _ in range(6)]
    simulated.fault("api.nova", match="^POST .*/action", delay=0.6)
    worker = workshop.worker(ECS_OPENSTACK_THREADS="2")
    with Requester(workshop.broker_url) as requester:
        message_id = requester.command(
            "server.batch_action",
            body={"reboot": {"type": "HARD", "servers": [{"id": one} for one in ids]}},
        )
        eventually(lambda: sum(workshop.tenant().actions(one).count("reboot") for one in ids) >= 2)
        worker.kill()
        workshop.worker()
        result = requester.result_of(message_id)
        assert [one["code"] for one in result.body["data"]["servers"]] == [200] * 6
        for one in ids:
            requester.last_update_of("server", message_id, resource_id=one)
    assert [workshop.tenant().actions(one) for one in ids] == [["create", "reboot"]] * 6


def test_an_image_is_made_once_though_the_worker_is_killed(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    server_id = tenant.make_server(disk=None)
    # Nova does it, and its answer does not come before the worker is gone.
    simulated.fault("virt.snapshot", match=server_id, delay=3)
    worker = workshop.worker()
    body = {"createImage": {"name": "once", "description": "x"}}
    with Requester(workshop.broker_url) as requester:
        message_id = requester.command("server.action", server_id=server_id, body=body)
        eventually(lambda: tenant.actions(server_id).count("createImage") == 1)
        worker.kill()
        workshop.worker()
        result = requester.result_of(message_id)
        assert result.body["code"] == 201
        assert requester.last_update_of("image", message_id).body["status"] == "active"
    images = tenant.connection.image.get("/images?name=once").json()["images"]
    assert [one["id"] for one in images] == [result.body["data"]["image_id"]]
    assert tenant.actions(server_id).count("createImage") == 1
    tenant.later("image", f"/images/{images[0]['id']}")


def test_sigterm_drains_and_leaves_the_rest_to_the_next(workshop: Workshop) -> None:
    tenant = workshop.tenant()
    server_id = tenant.make_server(disk=None)
    worker = workshop.worker()
    with Requester(workshop.broker_url) as requester:
        message_id = requester.order(resize_order(server_id, tenant.image))
        requester.wait(lambda one: one.body.get("status") == "resizing")
        assert worker.terminate() == 0
        # It drained: what it had begun is done and answered.
        assert requester.order_result_of(message_id, 5).body["code"] == 200
    assert "Traceback" not in workshop.logs()


def test_sigint_ends_it_as_well(workshop: Workshop) -> None:
    import os  # noqa: PLC0415

    worker = workshop.worker()
    os.kill(worker.pid, signal.SIGINT)
    eventually(lambda: not worker.alive)
    assert worker.terminate() == 0


@pytest.fixture(scope="module")
def own_broker() -> Iterator[PrivateBroker]:
    with PrivateBroker() as node:
        declare(node.url, topology())
        yield node


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_broker_that_goes_away_in_the_middle_loses_nothing(
    own_broker: PrivateBroker, simulated: SimulatedOpenStack, tmp_path: Path, how: str
) -> None:
    with Workshop(own_broker.url, simulated, tmp_path) as workshop:
        tenant = workshop.tenant()
        server_id = tenant.make_server(disk=10)
        worker = workshop.worker()
        order = json.dumps(
            json.loads(change_configure(server_id, tenant.image)) | {"tenant_id": "tenant-a"}
        )
        with Requester(own_broker.url) as requester:
            message_id = requester.order(order)
            requester.wait(lambda one: one.body.get("status") == "resizing")
        if how == "kill":
            own_broker.kill()
        own_broker.restart()
        with Requester(own_broker.url) as requester:
            assert requester.order_result_of(message_id).body["code"] == 200
            again = requester.order(order)
            assert requester.order_result_of(again).body["code"] == 200
            eventually(lambda: requester.depth("ecs.orders") == 0)
        actions = tenant.actions(server_id)
        assert (actions.count("resize"), actions.count("confirmResize")) == (1, 1)
        assert worker.alive
        worker.wait_ready()


def test_a_worker_without_broker_and_cloud_waits_for_them(
    own_broker: PrivateBroker, tmp_path: Path
) -> None:
    with SimulatedOpenStack(pace=0.3) as cloud:
        cloud.stop_server()
        with Workshop(own_broker.url, cloud, tmp_path) as workshop:
            own_broker.kill()
            worker = workshop.worker(wait=False)
            eventually(lambda: any("broker" in one for one in worker.problems()), 60)
            own_broker.restart()
            worker.wait_ready()
            with Requester(own_broker.url) as requester:
                message_id = requester.command(
                    "server.action", server_id=str(uuid.uuid4()), body={"os-start": None}
                )
                time.sleep(
                    2
                )  # a console waits this long for an answer; the worker meanwhile for Keystone
                cloud.start()
                assert requester.result_of(message_id).body["code"] == "101.001033"


def test_an_order_waits_for_a_cloud_that_is_down(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    server_id = tenant.make_server(disk=None)
    workshop.worker(ECS_RETRY_DELAYS="1,2")
    declare(workshop.broker_url, topology((1, 2)))
    with Requester(workshop.broker_url) as requester:
        simulated.fault("api.nova", match="", error="down", status=503)
        message_id = requester.order(resize_order(server_id, tenant.image))
        requester.wait(lambda one: one.body.get("status") == "waiting_retry", 40)
        simulated.clear_faults()
        assert requester.order_result_of(message_id, 40).body["code"] == 200
        told = [
            one.body for one in requester.updates_of(message_id) if one.body["resource"] == "order"
        ]
        assert [one["progress"] for one in told] == sorted(one["progress"] for one in told)
    assert tenant.actions(server_id).count("resize") == 1


# Secrets.


def test_no_secret_is_written_anywhere(workshop: Workshop) -> None:
    tenant = workshop.tenant()
    server_id = tenant.make_server(disk=None)
    token, password = new_token(), f"Pass-{uuid.uuid4().hex}"
    workshop.worker(ECS_LOG_LEVEL="debug")
    with Requester(workshop.broker_url) as requester:
        requester.result_of(
            requester.command(
                "server.action",
                server_id=server_id,
                body={"os-stop": None},
                token=f"Bearer {token}",
            )
        )
        order = resize_order(
            server_id,
            tenant.image,
            token=token,
            consoleCustomization={"adminPass": password, "note": token},
        )
        order_id = requester.order(order)
        requester.order_result_of(order_id)
        requester.order_result_of(
            requester.order(order.replace("paySuccess", "paySuccess", 1), reply_to=None)
        )
        requester.order_result_of(requester.order(order.replace('"ECS"', '"RDS"')))
        requester.order_result_of(
            requester.order(f'{{"token": "{token}", "adminPass": "{password}", ')
        )
        requester.publish("ecs.commands", "nobody.takes", {"token": token, "adminPass": password})
        eventually(lambda: requester.depth("ecs.dead") == 3)
        heard = b"".join(one.raw for one in requester.heard)
    written = [workshop.logs().encode(), workshop.journal_dump().encode(), heard]
    written += [body_of(one) + repr(one.headers).encode() for one in dead(workshop)]
    for secret in (token, token.split(".")[2], password, "ecs-sandbox"):
        assert not any(secret.encode() in one for one in written)


# Around it.


def test_check_tells_what_is_well_and_what_is_not(workshop: Workshop) -> None:
    well = workshop.command("check", "-o", "json")
    assert well.returncode == 0, well.stdout + well.stderr
    assert {row["result"] for row in json.loads(well.stdout)} <= {"ok", "warning"}
    assert (
        workshop.command("check", ECS_BROKER_URL="amqp://guest:hush-hush@127.0.0.1:1//").returncode
        == 4
    )
    wrong = workshop.command(
        "check", ECS_BROKER_URL="http://x", ECS_PREFETCH="0", ECS_BILLING_TIMEZONE="Mars"
    )
    assert wrong.returncode == 3
    assert [
        name in wrong.stdout + wrong.stderr
        for name in ("ECS_BROKER_URL", "ECS_PREFETCH", "ECS_BILLING_TIMEZONE")
    ] == [True] * 3


def test_a_worker_that_cannot_know_who_asks_does_not_start(workshop: Workshop) -> None:
    done = workshop.command("run", ECS_TRUST_PUBLISHERS="false")
    assert done.returncode == 3
    assert "ECS_TRUST_PUBLISHERS" in done.stderr


def test_readiness_and_metrics_tell_of_the_work(small: Workshop) -> None:
    with Requester(small.broker_url) as requester:
        requester.result_of(
            requester.command("server.action", server_id=str(uuid.uuid4()), body={"os-start": None})
        )
    metrics = small.running.metrics()
    assert 'ecs_results_total{code="101.001033",operation="server.action"}' in metrics
    assert 'ecs_openstack_calls_total{method="GET",service="compute",status="404"}' in metrics


@pytest.fixture(scope="module")
def small(
    broker: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    """One worker for all tests that leave it well."""
    folder = tmp_path_factory.mktemp("small")
    url = broker.add_vhost(folder.name)
    declare(url, topology())
    with Workshop(url, simulated, folder) as found:
        found.worker()
        yield found

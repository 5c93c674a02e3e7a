"""`order.show`, and what `journal show` says of the same: how far a request is, and what it waits
for.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.integration.test_worker import resize_order
from tests.support.orders import ended, paid, publish, soft_down
from tests.support.stage import dying
from tests.support.tenant import VOLUME, Tenant
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

PATIENCE = 30.0
_TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
PARAMETER = ("101.001002", "参数key不符合规范", {"reason": "not_found"})


@pytest.fixture
def requester(workshop: Workshop) -> Iterator[Requester]:
    with Requester(workshop.broker_url) as found:
        yield found


def ask(requester: Requester, key: str, tenant: str = "tenant-a") -> tuple[Any, str, Any]:
    answer = requester.result_of(requester.command("order.show", tenant=tenant, key=key)).body
    return answer["code"], answer["message"], answer["data"]


def shown(requester: Requester, key: str, tenant: str = "tenant-a") -> dict[str, Any]:
    code, _, data = ask(requester, key, tenant)
    assert code == 200, data
    assert data["key"] == key
    for time in (data["received_at"], data["updated_at"]):
        assert _TIME.fullmatch(time)
    found: dict[str, Any] = data
    return found


def awaited(
    requester: Requester, key: str, reason: str, tenant: str = "tenant-a"
) -> dict[str, Any]:
    """Return what is shown once it waits for this reason."""
    found: dict[str, Any] = {}

    def waits() -> bool:
        code, _, data = ask(requester, key, tenant)
        found.update(data if code == 200 else {})
        return bool(found.get("waits_for")) and found["waits_for"]["reason"] == reason

    eventually(waits, PATIENCE)
    return found


def told(workshop: Workshop, key: str) -> tuple[dict[str, Any], str]:
    """Return what `journal show` says, as JSON and as a report."""
    done = workshop.command("journal", "show", key, "-o", "json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    return found, workshop.command("journal", "show", key).stdout


def is_running(requester: Requester, key: str) -> Callable[[], bool]:
    return lambda: ask(requester, key)[0] == 200


def test_a_command_and_an_order_are_shown_to_their_tenant_with_the_result_that_they_had(
    workshop: Workshop, requester: Requester
) -> None:
    workshop.worker()
    server_id = workshop.tenant().make_server(metadata={"charge_type": "monthly"})
    stop = requester.command("server.action", server_id=server_id, body={"os-stop": None})
    answer = requester.result_of(stop)
    requester.last_update_of("server", stop)
    found = shown(requester, stop)
    assert (found["operation"], found["state"], found["progress"]) == (
        "server.action",
        "done",
        None,
    )
    assert (found["waits_for"], found["result"]) == (None, answer.body)

    order = paid("renew", server_id, duration="1", durationUnit="M")
    result, _ = ended(requester, publish(requester, order))
    found = shown(requester, order["orderId"])
    assert (found["operation"], found["state"], found["progress"]) == ("order.renew", "done", 100)
    assert found["result"] == result.body

    # Others do not see them, nor is anything known that left no entry.
    listed = requester.command("server.list")
    requester.result_of(listed)
    console = {"os-getVNCConsole": {"type": "novnc"}}
    opened = requester.command("server.action", server_id=server_id, body=console)
    requester.result_of(opened)
    for key, tenant in (
        *((stop, "tenant-b"), (order["orderId"], "tenant-b")),
        *((listed, "tenant-a"), (opened, "tenant-a"), ("no-such-key", "tenant-a")),
        # The journal's own keys are nobody's ids.
        (f"command:{workshop.tenant().connection.current_project_id}:{stop}", "tenant-a"),
    ):
        assert ask(requester, key, tenant) == PARAMETER


def test_an_id_of_an_order_and_of_a_command_is_the_orders(
    workshop: Workshop, requester: Requester
) -> None:
    workshop.worker()
    server_id = workshop.tenant().make_server()
    order = paid("renew", server_id, duration="1", durationUnit="M")
    reboot = requester.command(
        "server.action",
        server_id=server_id,
        body={"reboot": {"type": "HARD"}},
        message_id=order["orderId"],
    )
    requester.last_update_of("server", reboot)
    assert shown(requester, reboot)["operation"] == "server.action"
    ended(requester, publish(requester, order))
    assert shown(requester, reboot)["operation"] == "order.renew"


def test_a_refused_order_is_shown_with_its_failure(
    workshop: Workshop, requester: Requester
) -> None:
    workshop.worker()
    order = paid("renew", "616fb98f-46ca-475e-917e-2563e5a8cd19", durationUnit="M", duration="1")
    result, _ = ended(requester, publish(requester, order))
    found = shown(requester, order["orderId"])
    assert (found["state"], found["result"]) == ("done", result.body)
    assert found["result"]["code"] == "101.001033"


def test_an_order_that_is_tried_again_says_why_and_when(
    workshop: Workshop, requester: Requester, simulated: SimulatedOpenStack
) -> None:
    workshop.worker(ECS_RETRY_DELAYS="20")
    server_id = workshop.tenant().make_server()
    order = paid("renew", server_id, duration="1", durationUnit="M")
    simulated.fault("api.nova", match="^GET", user="ecs-worker", error="overloaded", status=503)
    message_id = publish(requester, order)
    found = awaited(requester, order["orderId"], "retry")
    assert (found["state"], found["progress"], found["result"]) == ("waiting_retry", 10, None)
    wait = found["waits_for"]
    assert (wait["cause"], wait["behind"], wait["resource"]) == ("http_503", None, None)
    assert wait["message"] == (
        f"the last attempt failed (http_503); the next attempt begins at {wait['until']}"
    )
    assert wait["since"] < wait["until"]

    record, report = told(workshop, order["orderId"])
    assert record["waits_for"] == {**wait, "detail": record["waits_for"]["detail"]}
    assert record["waits_for"]["detail"] == "overloaded"
    for words in ("waits for", "http_503", "next attempt", "last error"):
        assert words in report
    listed = json.loads(workshop.command("journal", "list", "-o", "json").stdout)
    assert [one["waits_for"]["cause"] for one in listed] == ["http_503"]
    assert "http_503" in workshop.command("journal", "list", "-o", "wide").stdout
    lines = [json.loads(one) for one in workshop.logs().splitlines() if one.startswith("{")]
    (event,) = [one for one in lines if one["event"] == "request.rescheduled"]
    assert (event["reason"], event["seconds"]) == ("http_503", 20)

    simulated.clear_faults()
    result, _ = ended(requester, message_id)
    found = shown(requester, order["orderId"])
    assert (found["state"], found["waits_for"], found["result"]) == ("done", None, result.body)


def test_a_turn_names_the_request_ahead(
    workshop: Workshop, requester: Requester, simulated: SimulatedOpenStack
) -> None:
    workshop.worker()
    tenant = workshop.tenant()
    server_id = tenant.make_server(metadata={"charge_type": "monthly"})
    simulated.fault("virt.reboot", match=server_id, held=True)
    reboot = requester.command("server.action", server_id=server_id, body={"reboot": None})
    requester.result_of(reboot)
    first = paid("renew", server_id, duration="1", durationUnit="M")
    publish(requester, first)
    eventually(is_running(requester, first["orderId"]), PATIENCE)
    second = paid("renew", server_id, duration="1", durationUnit="M")
    publish(requester, second)
    found = awaited(requester, second["orderId"], "turn")
    wait = found["waits_for"]
    assert (found["state"], found["progress"]) == ("running", 0)
    assert (wait["behind"], wait["until"]) == (first["orderId"], None)
    assert wait["message"] == (
        f"waits for its turn at a server, behind order.renew {first['orderId']} and 1 more"
    )
    assert awaited(requester, first["orderId"], "turn")["waits_for"]["behind"] == reboot
    record, report = told(workshop, second["orderId"])
    assert record["waits_for"]["behind"].endswith(f":{first['orderId']}")
    assert record["waits_for"]["behind"] in report

    # A softDown is no tenant's: its flowId is not told to the tenant that waits behind it.
    taken = soft_down((server_id, "stopServer"))
    publish(requester, taken)
    begun = ("journal", "show", taken["flowId"])
    eventually(lambda: workshop.command(*begun).returncode == 0, PATIENCE)
    third = paid("renew", server_id, duration="1", durationUnit="M")
    message_id = publish(requester, third)
    wait = awaited(requester, third["orderId"], "turn")["waits_for"]
    assert wait["behind"] is None
    assert wait["message"] == ("waits for its turn at a server, behind another request and 3 more")
    assert ask(requester, taken["flowId"]) == PARAMETER  # whose its server is was not looked up yet
    simulated.clear_faults()
    requester.last_update_of("order", message_id)


def test_a_command_that_was_answered_has_its_result_while_it_waits_for_the_server(
    workshop: Workshop, requester: Requester, simulated: SimulatedOpenStack
) -> None:
    workshop.worker()
    server_id = workshop.tenant().make_server()
    simulated.fault("virt.reboot", match=server_id, held=True)
    reboot = requester.command("server.action", server_id=server_id, body={"reboot": None})
    answer = requester.result_of(reboot)
    found = awaited(requester, reboot, "resource")
    assert (found["state"], found["result"]) == ("running", answer.body)
    resource = found["waits_for"]["resource"]
    assert (resource["kind"], resource["id"]) == ("server", server_id)
    assert resource["status"].startswith("reboot")
    record, report = told(workshop, reboot)
    assert record["waits_for"]["resource"] == resource
    assert f"waits for server {server_id}, which is {resource['status']}" in " ".join(
        report.split()
    )
    simulated.clear_faults()
    requester.last_update_of("server", reboot)
    assert shown(requester, reboot)["waits_for"] is None


def test_an_order_waits_for_a_volume_that_is_backed_up(
    workshop: Workshop, requester: Requester
) -> None:
    workshop.worker()
    tenant, admin = workshop.tenant(), Tenant(workshop.cloud.clouds_yaml, "admin")
    server_id = tenant.make_server(disk=10)
    (volume,) = tenant.volumes(server_id)

    def put(status: str) -> None:
        body = {"os-reset_status": {"status": status}}
        path = f"/volumes/{volume['id']}/action"
        admin.connection.block_storage.post(path, json=body, microversion=VOLUME)

    put("backing-up")
    try:
        order_id = "178549870045490001"
        order = requester.order(resize_order(server_id, tenant.image, disk=20, orderId=order_id))
        found = awaited(requester, order_id, "resource")
        assert (found["state"], found["progress"]) == ("running", 10)
        assert found["waits_for"]["resource"] == {
            "kind": "volume",
            "id": volume["id"],
            "status": "backing-up",
        }
    finally:
        put("in-use")
        admin.close()
    assert requester.order_result_of(order).body["code"] == 200


def test_an_image_that_is_being_made_is_waited_for(
    workshop: Workshop, requester: Requester, simulated: SimulatedOpenStack
) -> None:
    workshop.worker()
    server_id = workshop.tenant().make_server(disk=None)
    simulated.fault("virt.snapshot", match=server_id, held=True)
    body = {"createImage": {"name": "shown", "description": ""}}
    message_id = requester.command("server.action", server_id=server_id, body=body)
    image_id = requester.result_of(message_id).body["data"]["image_id"]
    found = awaited(requester, message_id, "resource")["waits_for"]["resource"]
    assert found["kind"] == "image"
    assert found["id"] == image_id
    assert found["status"] in ("queued", "saving")
    simulated.clear_faults()
    requester.last_update_of("image", message_id)


def test_of_a_soft_down_each_tenant_sees_its_own_servers(
    workshop: Workshop, requester: Requester, simulated: SimulatedOpenStack
) -> None:
    workshop.worker()
    own, others = (workshop.tenant(name) for name in ("tenant-a", "tenant-b"))
    metadata = {"charge_type": "monthly"}
    mine, theirs = (one.make_server(metadata=metadata) for one in (own, others))
    gone = "616fb98f-46ca-475e-917e-2563e5a8cd19"
    # Its code is that of the first that failed: of another tenant's.
    simulated.fault("api.nova", match=f"^POST .*{theirs}/action", status=403, error="not today")
    message = soft_down((theirs, "stopServer"), (mine, "stopServer"), (gone, "stopServer"))
    result, _ = ended(requester, publish(requester, message))
    simulated.clear_faults()
    assert result.body["code"] == "101.001040"
    found = shown(requester, message["flowId"])
    assert (found["operation"], found["state"]) == ("order.softDown", "done")
    listed = found["result"]["data"]["instanceList"]
    assert [one["instanceId"] for one in listed] == [mine]
    assert (found["result"]["code"], "reason" in found["result"]["data"]) == (200, False)
    assert theirs not in json.dumps(found)
    assert others.connection.current_project_id not in json.dumps(found)
    other = shown(requester, message["flowId"], "tenant-b")["result"]
    assert other["code"] == other["data"]["instanceList"][0]["code"] == "101.001040"
    assert [one["instanceId"] for one in other["data"]["instanceList"]] == [theirs]
    assert mine not in json.dumps(other)

    single = soft_down((mine, "delete"))
    ended(requester, publish(requester, single))
    assert shown(requester, single["flowId"])["result"]["code"] == 200
    assert ask(requester, single["flowId"], "tenant-b") == PARAMETER


def test_of_a_dead_worker_is_said_that_its_request_waits_for_another(
    workshop: Workshop, requester: Requester, simulated: SimulatedOpenStack
) -> None:
    worker = workshop.worker()
    server_id = workshop.tenant().make_server()
    simulated.fault("virt.reboot", match=server_id, held=True)
    reboot = requester.command("server.action", server_id=server_id, body={"reboot": None})
    awaited(requester, reboot, "resource")
    worker.kill()
    record, report = told(workshop, reboot)
    assert record["waits_for"]["reason"] == "worker"
    assert "no worker has it: its message comes to the next one" in report
    workshop.worker()
    found = awaited(requester, reboot, "resource")
    assert found["waits_for"]["resource"]["id"] == server_id
    simulated.clear_faults()
    requester.last_update_of("server", reboot)


def test_while_the_journal_is_away_the_answer_says_so_and_nothing_is_parked(
    workshop: Workshop, requester: Requester
) -> None:
    workshop.worker(ECS_COMMAND_TIMEOUT="3")
    assert ask(requester, "no-such-key") == PARAMETER
    journal = workshop.folder / "journal.db"
    journal.rename(workshop.folder / "elsewhere.db")
    code, _, data = ask(requester, "no-such-key")
    assert (code, data) == ("101.001040", {"reason": "journal"})
    (workshop.folder / "elsewhere.db").rename(journal)
    eventually(lambda: ask(requester, "no-such-key") == PARAMETER, PATIENCE)
    assert requester.depth("ecs.dead") == 0


def test_what_waits_longer_than_a_delivery_is_held_says_when_it_goes_on_and_for_what(
    workshop: Workshop, requester: Requester, simulated: SimulatedOpenStack
) -> None:
    """One order waits for its server, another one behind it; neither has failed."""
    dying(
        workshop,
        [],
        stay=True,
        constants={"workers.pipeline.timeouts.HOLD": 4.0},
        ECS_RETRY_DELAYS="15",
    )
    tenant = workshop.tenant()
    server_id = tenant.make_server(disk=None)
    simulated.fault("virt.finish_migration", match=server_id, held=True)
    first, second = "178549870045490011", "178549870045490012"
    for order_id in (first, second):
        requester.order(resize_order(server_id, tenant.image, orderId=order_id))
        eventually(is_running(requester, order_id), PATIENCE)

    def postponed(key: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def has_until() -> bool:
            found.update(shown(requester, key))
            return bool(found["waits_for"] and found["waits_for"]["until"])

        eventually(has_until, PATIENCE)
        return found

    found = postponed(first)
    assert (found["state"], found["waits_for"]["reason"]) == ("running", "resource")
    resource = found["waits_for"]["resource"]
    assert (resource["kind"], resource["id"]) == ("server", server_id)
    assert "; the next attempt begins at" in found["waits_for"]["message"]
    found = postponed(second)
    assert (found["state"], found["waits_for"]["reason"]) == ("running", "turn")
    assert found["waits_for"]["behind"] == first
    simulated.clear_faults()
    for order_id in (first, second):
        eventually(lambda key=order_id: shown(requester, key)["state"] == "done", 90)

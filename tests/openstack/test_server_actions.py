"""A console's actions from message to message, on the simulated cloud and on the real one."""

import time
from typing import Any

import pytest

from sandbox.requester import Requester, Source
from tests.support.tenant import Tenant

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def act(requester: Requester, server_id: str, body: Any, *, follow: bool = False) -> dict[str, Any]:
    message_id = requester.command("server.action", server_id=server_id, body=body)
    result = requester.result_of(message_id).body
    if follow:
        requester.last_update_of("server", message_id)
    return result


def test_a_server_is_stopped_and_started_with_status_updates(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=None)
    for action, task, words, end in (
        ("os-stop", "powering-off", "关机中", "SHUTOFF"),
        ("os-start", "powering-on", "开机中", "ACTIVE"),
    ):
        message_id = requester.command(
            "server.action", server_id=server_id, user_id="u-1", body={action: None}
        )
        result = requester.result_of(message_id)
        assert result.body == {"code": 200, "message": "OK", "data": None}
        assert result.headers["x-ecs-http-status"] == 200
        assert result.properties["type"] == "server.action"
        last = requester.last_update_of("server", message_id)
        assert tenant.server(server_id)["status"] == end
        told = [one.body for one in requester.updates_of(message_id)]
        assert told[0] | {"time": None} == {
            "resource": "server",
            "id": server_id,
            "operation": "server.action",
            "action": action,
            "status": task,
            "translation": words,
            "final": False,
            "message_id": message_id,
            "tenant_id": tenant.project_id,
            "user_id": "u-1",
            "time": None,
        }
        assert list(told[0])[-4:] == ["message_id", "tenant_id", "user_id", "time"]
        assert [one["final"] for one in told] == [False] * (len(told) - 1) + [True]
        assert (last.body["status"], last.routing_key) == (end, f"server.{server_id}")
    assert tenant.actions(server_id) == ["create", "stop", "start"]


def test_soft_and_hard_reboots_are_in_novas_action_log(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=None)
    assert act(requester, server_id, {"reboot": {"type": "soft"}}, follow=True)["code"] == 200
    assert act(requester, server_id, {"os-stop": {}}, follow=True)["code"] == 200
    assert act(requester, server_id, {"reboot": {"type": "SOFT"}})["code"] == "101.001012"
    assert act(requester, server_id, {"reboot": {"type": "HARD"}}, follow=True)["code"] == 200
    assert tenant.server(server_id)["status"] == "ACTIVE"
    assert tenant.actions(server_id) == ["create", "reboot", "stop", "reboot"]


def test_a_console_is_opened_and_an_unsupported_type_is_refused(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=None)
    console = act(requester, server_id, {"os-getVNCConsole": {"type": "novnc"}})["data"]["console"]
    assert console["type"] == "novnc"
    assert console["url"].startswith("http")
    refused = act(requester, server_id, {"os-getVNCConsole": {"type": "xvpvnc"}})
    assert refused == {
        "code": "101.001040",
        "message": "操作失败",
        "data": {"reason": "console_type"},
    }


def test_preconditions_are_refused_with_the_documents_codes(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=None, paid=False)
    unpaid = act(requester, server_id, {"os-stop": None})
    assert (unpaid["code"], unpaid["message"]) == (
        "101.001014",
        "存在未付费类型的云服务器，请重新选择云服务器",
    )
    running = act(requester, server_id, {"os-start": None})
    assert (running["code"], running["message"]) == (
        "101.001012",
        "存在未知状态的云服务器，请重新选择云服务器",
    )
    missing = act(requester, UNKNOWN, {"os-start": None})
    assert (missing["code"], missing["message"]) == ("101.001033", f"云服务器{UNKNOWN}不存在")
    foreign = act(requester, UNKNOWN, {"os-stop": None})
    assert (foreign["code"], foreign["message"]) == (
        "101.001013",
        "存在未知所属的云服务器，请重新选择云服务器",
    )
    wrong = act(requester, "no-uuid", {"os-stop": None})
    assert (wrong["code"], wrong["message"]) == ("101.001002", "参数server_id不符合规范")
    assert tenant.actions(server_id) == ["create"]


def test_another_tenants_server_does_not_exist(requester: Requester, tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=None)
    message_id = requester.command(
        "server.action", tenant="tenant-b", server_id=server_id, body={"reboot": {"type": "HARD"}}
    )
    assert requester.result_of(message_id).body["code"] == "101.001033"
    assert tenant.actions(server_id) == ["create"]


def test_a_locked_server_is_refused_with_its_reason(requester: Requester, tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=None)
    tenant.act(server_id, {"lock": None})
    refused = act(requester, server_id, {"os-stop": None})
    tenant.act(server_id, {"unlock": None})
    assert (refused["code"], refused["data"]["reason"]) == ("101.001040", "locked")


def test_a_task_under_way_is_waited_out(requester: Requester, tenant: Tenant, cloud: Any) -> None:
    server_id = tenant.make_server(disk=None)
    cloud.fault("virt.reboot", match=server_id, delay=1.5, times=1)
    tenant.act(server_id, {"reboot": {"type": "HARD"}})
    assert act(requester, server_id, {"os-stop": None}, follow=True)["code"] == 200
    assert tenant.actions(server_id) == ["create", "reboot", "stop"]


def test_a_stop_that_fails_ends_in_the_state_that_the_server_has(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=None)
    cloud.fault("virt.power_off", match=server_id, error="the guest does not stop", times=1)
    message_id = requester.command("server.action", server_id=server_id, body={"os-stop": None})
    assert requester.result_of(message_id).body["code"] == 200
    assert requester.last_update_of("server", message_id).body["status"] == "ACTIVE"


def test_a_repeated_action_gets_the_same_result_and_has_no_second_effect(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=None)
    first = requester.command(
        "server.action", server_id=server_id, body={"reboot": {"type": "HARD"}}
    )
    result = requester.result_of(first)
    for number in range(3):
        requester.command(
            "server.action",
            server_id=server_id,
            body={"reboot": {"type": "HARD"}},
            message_id=first,
            correlation_id=f"again-{number}",
        )
        again = requester.result_of(f"again-{number}")
        assert (again.raw, again.properties["message_id"]) == (
            result.raw,
            result.properties["message_id"],
        )
    requester.last_update_of("server", first)
    assert tenant.actions(server_id) == ["create", "reboot"]
    requester.listen(0.5)
    assert sum(one.is_final for one in requester.updates_of(first)) == 1


def test_calls_to_an_overloaded_nova_are_retried_within_the_time_limit(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=None)
    cloud.fault(
        "api.nova", match=f"^POST .*{server_id}/action", error="overloaded", status=503, times=2
    )
    assert act(requester, server_id, {"os-stop": None}, follow=True)["code"] == 200
    assert tenant.actions(server_id) == ["create", "stop"]


def batch(requester: Requester, ids: list[str], action: str, **options: Any) -> str:
    body = {action: {"servers": [{"id": one} for one in ids], **options}}
    return requester.command("server.batch_action", body=body)


def test_a_batch_is_checked_first_and_not_begun_when_one_is_wrong(
    requester: Requester, tenant: Tenant
) -> None:
    good, bad = tenant.make_server(disk=None), tenant.make_server(disk=None, paid=False)
    result = requester.result_of(batch(requester, [good, bad], "os-stop")).body
    assert result["code"] == "101.001014"
    assert result["data"]["servers"] == [
        {"id": good, "code": None, "message": None, "reason": None},
        {
            "id": bad,
            "code": "101.001014",
            "message": "存在未付费类型的云服务器，请重新选择云服务器",
            "reason": "unpaid",
        },
    ]
    result = requester.result_of(batch(requester, [good, UNKNOWN], "os-stop")).body
    assert (result["code"], result["data"]["servers"][1]["code"]) == ("101.001013", "101.001013")
    assert requester.result_of(batch(requester, [good, good.upper()], "os-stop")).body[
        "message"
    ] == ("参数servers不符合规范")
    assert tenant.actions(good) == ["create"]


def test_the_answer_of_a_batch_lists_each_server(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    good, bad = tenant.make_server(disk=None), tenant.make_server(disk=None)
    cloud.fault("api.nova", match=f"^POST .*{bad}/action", error="policy says no", status=403)
    message_id = batch(requester, [good, bad], "reboot", type="HARD")
    result = requester.result_of(message_id).body
    assert result["code"] == "101.001040"
    assert [one["code"] for one in result["data"]["servers"]] == [200, "101.001040"]
    assert requester.last_update_of("server", message_id).body["id"] == good
    assert tenant.actions(bad) == ["create"]


@pytest.mark.long_on_real
def test_each_server_of_a_refused_batch_is_checked_as_far_as_it_can_be(
    requester: Requester, tenant: Tenant
) -> None:
    right, unpaid, stopped = (
        tenant.make_server(disk=None, paid=paid) for paid in (True, False, True)
    )
    tenant.stop(stopped)
    result = requester.result_of(
        batch(requester, [right, stopped, unpaid, UNKNOWN], "os-stop")
    ).body
    assert result["code"] == "101.001013"
    told = {one["id"]: (one["code"], one["reason"]) for one in result["data"]["servers"]}
    assert told == {
        right: (None, None),
        stopped: ("101.001012", "state"),
        unpaid: ("101.001014", "unpaid"),
        UNKNOWN: ("101.001013", "not_found"),
    }
    # Billing comes before the state.
    result = requester.result_of(batch(requester, [stopped, unpaid], "os-stop")).body
    assert (result["code"], [one["code"] for one in result["data"]["servers"]]) == (
        "101.001014",
        ["101.001012", "101.001014"],
    )
    assert tenant.actions(right) == ["create"]


def test_the_answer_of_a_batch_lists_each_server_where_nova_does_not_answer(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    seen, unseen = tenant.make_server(disk=None), tenant.make_server(disk=None)
    cloud.fault("api.nova", match=f"^GET .*/servers/{unseen}", error="overloaded", status=503)
    result = requester.result_of(batch(requester, [seen, unseen], "os-stop"), 60).body
    assert (result["code"], result["data"]["reason"]) == ("101.001040", "http_503")
    told = {one["id"]: (one["code"], one["reason"]) for one in result["data"]["servers"]}
    cloud.clear_faults()  # before what the test made is looked at again, and deleted
    assert told == {seen: (None, None), unseen: ("101.001040", "http_503")}
    assert tenant.actions(seen) == ["create"]


@pytest.mark.long_on_real
def test_the_answer_of_a_batch_says_which_server_has_an_unknown_outcome(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    good, lost = tenant.make_server(disk=None), tenant.make_server(disk=None)
    cloud.fault("api.nova", match=f"^POST .*/{lost}/action", error="gateway time-out", status=504)
    message_id = batch(requester, [good, lost], "os-stop")
    result = requester.result_of(message_id, 60).body
    assert (result["code"], result["data"]["reason"]) == ("101.001040", "outcome_unknown")
    told = {one["id"]: (one["code"], one["reason"]) for one in result["data"]["servers"]}
    assert told == {good: (200, None), lost: ("101.001040", "outcome_unknown")}
    assert (
        requester.last_update_of("server", message_id, resource_id=good).body["status"] == "SHUTOFF"
    )
    assert tenant.actions(lost) == ["create"]


def test_a_nova_that_hangs_delays_no_answer_and_its_stop_has_a_final_update(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    one, several = tenant.make_server(disk=None), tenant.make_server(disk=None)
    for server_id in (one, several):
        cloud.fault("api.nova", match=f"^POST .*{server_id}/action", delay=40, times=1)
    began = time.monotonic()
    sent = [
        requester.command("server.action", server_id=one, body={"os-stop": None}),
        batch(requester, [several], "os-stop"),
    ]
    for message_id in sent:
        result = requester.result_of(message_id, 60)
        assert result.at - began < 35
        assert (result.body["code"], result.body["data"]["reason"]) == (
            "101.001040",
            "outcome_unknown",
        )
    for message_id, server_id in zip(sent, (one, several), strict=True):
        assert requester.last_update_of("server", message_id, 120).body["status"] == "SHUTOFF"
        assert tenant.actions(server_id) == ["create", "stop"]


@pytest.mark.once_on_real
@pytest.mark.parametrize("several", [False, True])
def test_a_hard_reboot_waits_neither_for_a_soft_one_that_hangs_nor_for_its_lock(
    requester: Requester, tenant: Tenant, cloud: Any, several: bool
) -> None:
    server_id = tenant.make_server(disk=None)
    cloud.fault("virt.reboot", match=server_id, delay=40, times=1)
    soft = requester.command(
        "server.action", server_id=server_id, body={"reboot": {"type": "SOFT"}}
    )
    assert requester.result_of(soft).body["code"] == 200
    tenant.wait(server_id, lambda server: server["OS-EXT-STS:task_state"] == "reboot_started")
    began = time.monotonic()
    if several:
        hard = batch(requester, [server_id], "reboot", type="HARD")
    else:
        hard = requester.command(
            "server.action", server_id=server_id, body={"reboot": {"type": "HARD"}}
        )
    result = requester.result_of(hard)
    assert (result.body["code"], result.at - began < 15) == (200, True)
    # The soft one has been overtaken; what becomes of the other one is not its success.
    last = requester.last_update_of("server", soft)
    assert last.body["status"] == "HARD_REBOOT"
    assert requester.last_update_of("server", hard, 120).body["status"] == "ACTIVE"
    requester.listen(0.5)
    for one in (soft, hard):
        finals = [each for each in requester.updates_of(one) if each.body["final"]]
        assert len(finals) == 1
        assert requester.updates_of(one)[-1].is_final
    assert tenant.actions(server_id) == ["create", "reboot", "reboot"]


def test_a_hard_reboot_still_waits_for_what_nova_would_refuse_it_for(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=None)
    cloud.fault("virt.power_off", match=server_id, delay=3, times=1)
    tenant.act(server_id, {"os-stop": None})
    assert act(requester, server_id, {"reboot": {"type": "HARD"}}, follow=True)["code"] == 200
    assert tenant.actions(server_id) == ["create", "stop", "reboot"]


def test_reads_tags_and_refused_commands_send_no_updates(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=None)
    sent = [
        requester.command("server.show", server_id=server_id),
        requester.command("server.tags.update", server_id=server_id, tags="one"),
        requester.command("server.action", server_id=server_id, body={"os-start": None}),
        requester.command(
            "server.action", server_id=server_id, body={"os-getVNCConsole": {"type": "novnc"}}
        ),
        batch(requester, [server_id, UNKNOWN], "os-stop"),
    ]
    for one in sent:
        requester.result_of(one)
    requester.listen(1.0)
    assert [one for message_id in sent for one in requester.updates_of(message_id)] == []


def test_results_go_to_the_exchange_where_no_reply_queue_is_named(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server(disk=None)
    message_id = requester.command(
        "server.action", server_id=server_id, body={"reboot": {"type": "HARD"}}, reply_to=None
    )
    requester.last_update_of("server", message_id)
    assert not [
        one
        for one in requester.heard
        if one.source is Source.REPLY and one.correlation_id == message_id
    ]

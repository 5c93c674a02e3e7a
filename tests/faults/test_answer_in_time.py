"""A command is answered in time, whatever the cloud does; what is found out behind that, its last
update tells.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester, Source
from tests.faults.test_lost_answers import spoil
from tests.support.dying_worker import Hold, Instant
from tests.support.invariants import await_ends
from tests.support.kinds import (
    Ask,
    Asked,
    batch,
    create_image,
    delete_image,
    delete_images,
    power,
    tags,
    update_image,
)
from tests.support.stage import await_held, dying, settled
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow

#: Seconds that a command may take, and within which it is answered then.
LIMIT, WITHIN = 6.0, 5.0
SETTINGS = {"ECS_COMMAND_TIMEOUT": f"{LIMIT:.0f}"}
STOP, START = {"os-stop": None}, {"os-start": None}
SOFT = {"reboot": {"type": "SOFT"}}
UNKNOWN = ("101.001040", "outcome_unknown")
#: Every command that changes something.
ASKS: tuple[Ask, ...] = (
    power("stop", STOP, "SHUTOFF"),
    power("start", START, "ACTIVE", stopped=True),
    power("reboot", SOFT, "ACTIVE"),
    batch,
    tags,
    create_image,
    delete_image,
    delete_images,
    update_image,
)


def answers(requester: Requester, one: Asked) -> list[Any]:
    """The results of a request, without copies."""
    heard = [each for each in requester.heard if each.source is Source.REPLY]
    return list(
        {each.raw: each.body for each in heard if each.correlation_id == one.message_id}.values()
    )


def told(body: Any) -> list[tuple[Any, Any]]:
    """Code and reason of a result, and of each target that it lists."""
    data = body["data"] if isinstance(body["data"], dict) else {}
    listed = (*data.get("servers", ()), *data.get("images", ()))
    return [
        (body["code"], data.get("reason")),
        *((each["code"], each["reason"]) for each in listed),
    ]


def warm_up(requester: Requester) -> None:
    """Have the worker logged in: on a busy machine the first time takes longer than a request may
    here.
    """
    for operation in ("server.list", "image.list"):
        while requester.result_of(requester.command(operation)).body["code"] != 200:
            pass


@contextmanager
def publishing(requester: Requester, asked: list[Asked]) -> Iterator[None]:
    """Send them all; each must be answered in time, counted from when the worker has it."""
    for one in asked:
        one.publish(requester)
    began = time.monotonic()
    yield
    for one in asked:
        took = requester.result_of(one.message_id).at - began
        assert took < LIMIT + WITHIN, f"{one.kind}: {took:.1f} s"


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        ({"delay": 13}, {}),
        ({"delay": 13}, {"call_timeout": 1.5}),
        ({"delay": 11, "status": 504, "error": "gateway time-out", "after": True}, {}),
        ({"answer": "drip", "after": True}, {"call_limit": 11.0}),
    ],
    ids=["slow", "lost", "gateway", "drip"],
)
def test_what_the_cloud_does_too_late_is_unknown_in_time_and_told_at_last(
    workshop: Workshop, simulated: SimulatedOpenStack, fault: Any, times: Any
) -> None:
    tenant = workshop.tenant()
    asked = [ask(tenant, simulated) for ask in ASKS]
    for one in asked:
        spoil(simulated, one, **fault)
    dying(workshop, [], cloud=times, **SETTINGS)
    with Requester(workshop.broker_url) as requester:
        warm_up(requester)
        with publishing(requester, asked):
            pass
        for one in asked:
            (body,) = answers(requester, one)
            if one.kind == "image.batch_delete":
                assert told(body) == [(200, None), *[UNKNOWN] * 3]
            else:
                assert set(told(body)) == {UNKNOWN}, one.kind
        # A repeat is told the same, also while it is looked for.
        asked[0].publish(requester)
        await_ends(requester, asked)
        for one in asked:
            for (kind, name), status in one.finals.items():
                known = None if name == "*" else name
                last = requester.last_update_of(kind, one.message_id, resource_id=known)
                assert last.body["status"] == status, one.kind
        settled(workshop, requester)
        for one in asked:
            assert len(answers(requester, one)) == 1, one.kind
            finals = {
                (each.body["id"], each.raw)
                for each in requester.updates_of(one.message_id)
                if each.body["final"]
            }
            assert len(finals) == len(one.finals), one.kind
            for pattern in one.calls:
                assert sum(matches(pattern, call) for call in simulated.executed()) == 1, pattern
            assert one.holds(), one.kind
        assert requester.depth("ecs.dead") == 0
    # What was found is on record, beside the answer that was given.
    assert '"outcome_unknown"' in workshop.journal_dump()
    shown = workshop.command("journal", "show", asked[0].message_id).stdout
    assert "cut off" not in shown


def matches(pattern: str, call: str) -> bool:
    import re  # noqa: PLC0415

    return re.search(pattern, call) is not None


def test_what_never_happens_is_told_as_it_is(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    """Nova is told to come later, or gives no sign of a stop: its last update is the state that the
    server has.
    """
    tenant = workshop.tenant()
    overloaded, lost = (power("stop", STOP, "ACTIVE")(tenant, simulated) for _ in range(2))
    spoil(simulated, overloaded, status=503, error="overloaded", retry_after="3600")
    spoil(simulated, lost, delay=3, status=504, error="gateway time-out")
    times = {"effects": {"late_command": 6.0}}
    dying(workshop, [], cloud=times, **SETTINGS)
    with Requester(workshop.broker_url) as requester:
        warm_up(requester)
        with publishing(requester, [overloaded, lost]):
            pass
        assert told(answers(requester, overloaded)[0]) == [("101.001040", "http_503")]
        assert told(answers(requester, lost)[0]) == [UNKNOWN]
        (server_id,) = lost.actions
        assert requester.last_update_of("server", lost.message_id).body["status"] == "ACTIVE"
        settled(workshop, requester)
        assert requester.updates_of(overloaded.message_id) == []
    assert tenant.actions(server_id) == ["create"]


def test_reads_and_consoles_are_answered_in_time_though_a_service_hangs(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    server_id = tenant.make_server()
    workshop.worker(**SETTINGS)
    console = {"os-getVNCConsole": {"type": "novnc"}}
    with Requester(workshop.broker_url) as requester:
        warm_up(requester)
        for service, answer in (
            ("nova", None),
            ("cinder", None),
            ("neutron", None),
            ("glance", "drip"),
        ):
            simulated.fault(f"api.{service}", delay=0 if answer else 20, answer=answer)
        began = time.monotonic()
        sent = [
            requester.command("server.list"),
            requester.command("server.show", server_id=server_id),
            requester.command("server.tags.list", server_id=server_id),
            requester.command("server.action", server_id=server_id, body=console),
            requester.command("image.list"),
            requester.command("server.action", server_id=server_id, body=STOP),
            requester.command(
                "server.batch_action", body={"os-stop": {"servers": [{"id": server_id}]}}
            ),
            requester.command("image.batch_delete", body={"images": [{"id": server_id}]}),
        ]
        results = [requester.result_of(one) for one in sent]
        assert max(one.at for one in results) - began < LIMIT + WITHIN
        assert {told(one.body)[0] for one in results} == {("101.001040", "timeout")}
        assert told(results[6].body)[1] == told(results[7].body)[1] == ("101.001040", "timeout")
        simulated.clear_faults()
        requester.listen(1.0)
    assert tenant.actions(server_id) == ["create"]


def test_a_log_in_that_hangs_holds_up_no_answer(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    server_id = tenant.make_server()
    workshop.worker(**SETTINGS)
    # Not the worker's first log-in, without which nobody would be told anything.
    with Requester(workshop.broker_url) as requester:
        requester.result_of(requester.command("server.list", tenant="tenant-b"))
        simulated.fault("api.keystone", match="^POST .*/auth/tokens", delay=30)
        began = time.monotonic()
        sent = [
            requester.command("server.action", server_id=server_id, body=STOP),
            requester.command(
                "server.batch_action", body={"os-stop": {"servers": [{"id": server_id}]}}
            ),
            requester.command("server.show", server_id=server_id),
        ]
        results = [requester.result_of(one) for one in sent]
        assert max(one.at for one in results) - began < LIMIT + WITHIN
        assert {one.body["code"] for one in results} == {"101.001040"}
        assert [one["id"] for one in results[1].body["data"]["servers"]] == [server_id]
        simulated.clear_faults()
    assert tenant.actions(server_id) == ["create"]


def test_who_waits_for_a_thread_is_answered_in_time_and_nothing_is_sent_later(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    """Calls that hang have taken all threads: the next one's was not sent, and so its outcome is
    known.
    """
    tenant = workshop.tenant()
    hanging = [power("stop", STOP, "SHUTOFF")(tenant, simulated) for _ in range(2)]
    late = power("stop", STOP, "ACTIVE")(tenant, simulated)
    for one in hanging:
        spoil(simulated, one, delay=18)
    dying(workshop, [], **SETTINGS, ECS_OPENSTACK_THREADS="2")
    with Requester(workshop.broker_url) as requester:
        warm_up(requester)
        for one in hanging:
            one.publish(requester)

        def all_threads_are_taken() -> bool:
            return sum(matches("nova POST .*/action$", call) for call in simulated.calls()) >= 2

        eventually(all_threads_are_taken)
        with publishing(requester, [late]):
            pass
        assert told(answers(requester, late)[0]) == [("101.001040", "timeout")]
        await_ends(requester, hanging)
        settled(workshop, requester)
        assert requester.updates_of(late.message_id) == []
    (server_id,) = late.actions
    assert tenant.actions(server_id) == ["create"]


def test_each_server_of_a_batch_ends_by_itself(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    quick, slow = tenant.make_server(disk=None), tenant.make_server(disk=None)
    simulated.fault("virt.power_off", match=slow, delay=6)
    workshop.worker()
    with Requester(workshop.broker_url) as requester:
        body = {"os-stop": {"servers": [{"id": quick}, {"id": slow}]}}
        message_id = requester.command("server.batch_action", body=body)
        assert requester.result_of(message_id).body["code"] == 200
        first = requester.last_update_of("server", message_id, resource_id=quick)
        last = requester.last_update_of("server", message_id, resource_id=slow)
        assert last.at - first.at > 3
        assert {one.body["status"] for one in (first, last)} == {"SHUTOFF"}


def test_a_final_update_that_was_told_is_told_the_same_by_the_next_worker(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    """A batch whose worker dies when one of its servers has ended; that one does something else
    meanwhile.
    """
    tenant = workshop.tenant()
    quick, slow = tenant.make_server(disk=None), tenant.make_server(disk=None)
    simulated.fault("virt.power_off", match=slow, delay=8)
    worker = workshop.worker()
    with Requester(workshop.broker_url) as requester:
        body = {"os-stop": {"servers": [{"id": quick}, {"id": slow}]}}
        message_id = requester.command("server.batch_action", body=body)
        first = requester.last_update_of("server", message_id, resource_id=quick)
        worker.kill()
        tenant.act(quick, {"os-start": None})
        tenant.wait(quick, lambda server: server["status"] == "ACTIVE")
        workshop.worker()
        requester.last_update_of("server", message_id, resource_id=slow)
        settled(workshop, requester)
        finals = [
            one
            for one in requester.updates_of(message_id)
            if one.body["final"] and one.body["id"] == quick
        ]
        assert {one.raw for one in finals} == {first.raw}
        after = [
            one.body
            for one in requester.updates_of(message_id)
            if one.at > first.at and one.body["id"] == quick
        ]
        assert all(one["final"] for one in after)
        assert requester.result_of(message_id).body["code"] == 200


@pytest.mark.parametrize("ask", [power("stop", STOP, "SHUTOFF"), batch, create_image, delete_image])
def test_a_worker_that_dies_behind_its_answer_leaves_it_to_be_found_out_by_the_next_one(
    workshop: Workshop, simulated: SimulatedOpenStack, ask: Ask
) -> None:
    tenant = workshop.tenant()
    asked = ask(tenant, simulated)
    spoil(simulated, asked, delay=13)
    times = {"call_timeout": 1.5}
    worker = dying(workshop, [], cloud=times, **SETTINGS)
    with Requester(workshop.broker_url) as requester:
        warm_up(requester)
        with publishing(requester, [asked]):
            pass
        before = answers(requester, asked)
        worker.kill()
        dying(workshop, [], cloud=times, **SETTINGS)
        await_ends(requester, [asked])
        settled(workshop, requester)
        assert answers(requester, asked) == before
        for (kind, name), status in asked.finals.items():
            known = None if name == "*" else name
            assert (
                requester.last_update_of(kind, asked.message_id, resource_id=known).body["status"]
                == status
            )
        for pattern in asked.calls:
            assert sum(matches(pattern, call) for call in simulated.executed()) == 1, pattern


@pytest.mark.parametrize(
    ("ask", "kind", "status"),
    [(power("stop", STOP, "ACTIVE"), "server", "ACTIVE"), (delete_image, "image", "active")],
    ids=["stop", "image.delete"],
)
def test_what_never_happened_has_its_last_update_of_the_next_worker_too(
    workshop: Workshop, simulated: SimulatedOpenStack, ask: Ask, kind: str, status: str
) -> None:
    """The worker dies behind its answer; the next one finds nothing of the call in the cloud."""
    tenant = workshop.tenant()
    asked = ask(tenant, simulated)
    spoil(simulated, asked, delay=11, status=504, error="gateway time-out")
    times = {
        "call_timeout": 1.5,
        "effects": {"late_command": 30.0, "flight": 2.0},
    }
    worker = dying(workshop, [], cloud=times, **SETTINGS)
    with Requester(workshop.broker_url) as requester:
        warm_up(requester)
        with publishing(requester, [asked]):
            pass
        assert told(answers(requester, asked)[0]) == [UNKNOWN]
        worker.kill()
        dying(
            workshop,
            [],
            cloud=times | {"effects": {"late_command": 2.0, "flight": 2.0}},
            **SETTINGS,
        )
        last = requester.last_update_of(kind, asked.message_id)
        assert (last.body["status"], last.body["final"]) == (status, True)
        settled(workshop, requester)


def test_what_is_looked_for_behind_an_answer_waits_for_no_other_request(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    """Nova does not say what became of a stop; when it is asked again, a reboot is under way."""
    tenant = workshop.tenant()
    asked = power("stop", STOP, "ACTIVE")(tenant, simulated)
    (server_id,) = asked.actions
    spoil(simulated, asked, delay=3, status=504, error="gateway time-out")
    simulated.fault("virt.reboot", match=server_id, delay=25)
    dying(workshop, [], cloud={"effects": {"late_command": 4.0}}, **SETTINGS)
    with Requester(workshop.broker_url) as requester:
        warm_up(requester)
        asked.publish(requester)
        eventually(
            lambda: any(
                matches(f"nova POST .*{server_id}/action$", call) for call in simulated.calls()
            )
        )
        simulated.fault("api.nova", match=f"GET .*/servers/{server_id}$", status=503, error="down")
        assert told(requester.result_of(asked.message_id).body) == [UNKNOWN]
        eventually(lambda: requester.depth("ecs.retry.5") == 1, 60)
        simulated.clear_faults()
        simulated.fault("virt.reboot", match=server_id, delay=25)
        reboot = requester.command("server.action", server_id=server_id, body=SOFT)
        assert requester.result_of(reboot).body["code"] == 200
        assert requester.last_update_of("server", asked.message_id, 90).body["status"] == "ACTIVE"


@pytest.mark.parametrize(
    "ask", [power("stop", STOP, "SHUTOFF"), create_image], ids=["stop", "createImage"]
)
@pytest.mark.parametrize("service", ["nova", "keystone"])
def test_what_a_dead_worker_may_have_done_is_not_said_to_have_failed(
    workshop: Workshop, simulated: SimulatedOpenStack, ask: Ask, service: str
) -> None:
    """The cloud is down when the next worker comes, which cannot tell whether it was done; it was."""
    tenant = workshop.tenant()
    asked = ask(tenant, simulated)
    worker = dying(
        workshop, [Hold(asked.message_id, Instant.CALL_EXECUTED, asked.effect)], **SETTINGS
    )
    with Requester(workshop.broker_url) as requester:
        warm_up(requester)
        asked.publish(requester)
        await_held(workshop, worker)
        requester.listen(LIMIT)
        for each in ("keystone",) if service == "keystone" else ("nova", "glance"):
            simulated.fault(f"api.{each}", status=503, error="down")
        again = workshop.worker(**SETTINGS)
        if service == "nova":
            assert told(requester.result_of(asked.message_id, 60).body) == [UNKNOWN]
        else:
            requester.listen(15.0)
            assert again.alive
            assert answers(requester, asked) == []
        simulated.clear_faults()
        for (kind, name), status in asked.finals.items():
            known = None if name == "*" else name
            last = requester.last_update_of(kind, asked.message_id, 90, resource_id=known)
            assert last.body["status"] == status
        settled(workshop, requester)
        (body,) = answers(requester, asked)
        assert told(body) == ([UNKNOWN] if service == "nova" else [(asked.code, None)])
        for pattern in asked.calls:
            assert sum(matches(pattern, call) for call in simulated.executed()) == 1, pattern


def test_a_worker_that_dies_as_the_time_is_up_leaves_one_answer(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    """The intent is written, and nothing sent: the next worker comes too late, and does nothing."""
    tenant = workshop.tenant()
    asked = power("stop", STOP, "ACTIVE")(tenant, simulated)
    worker = dying(
        workshop, [Hold(asked.message_id, Instant.INTENT_WRITTEN, asked.effect)], **SETTINGS
    )
    with Requester(workshop.broker_url) as requester:
        asked.publish(requester)
        await_held(workshop, worker)
        requester.listen(LIMIT)
        workshop.worker(**SETTINGS)
        assert told(requester.result_of(asked.message_id).body) == [UNKNOWN]
        assert requester.last_update_of("server", asked.message_id, 180).body["status"] == "ACTIVE"
    (server_id,) = asked.actions
    assert tenant.actions(server_id) == ["create"]


def test_a_hard_reboot_that_was_lost_does_not_take_the_soft_one_that_hangs_for_itself(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    """Nova's log tells neither apart, and both may have begun in the same second."""
    tenant = workshop.tenant()
    server_id = tenant.make_server(disk=None)
    simulated.fault("virt.reboot", match=server_id, delay=40, times=1)
    dying(workshop, [], cloud={"effects": {"late_command": 5.0}}, **SETTINGS)
    with Requester(workshop.broker_url) as requester:
        warm_up(requester)
        tenant.act(server_id, SOFT)
        simulated.fault(
            "api.nova", match=f"^POST .*{server_id}/action", status=504, error="gateway time-out"
        )
        body = {"reboot": {"type": "HARD"}}
        hard = requester.command("server.action", server_id=server_id, body=body)
        assert told(requester.result_of(hard).body) == [UNKNOWN]
        simulated.clear_faults("api.nova")
        last = requester.last_update_of("server", hard, 90)
        assert last.body["status"] == "ACTIVE"
    assert tenant.actions(server_id) == ["create", "reboot"]

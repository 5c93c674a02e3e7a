"""Dead letters as operators see them, and the record of what operators do with them."""

import asyncio
import contextlib
import json
import os
import pty
import select
import stat
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.documents import change_configure, new_order_id, new_token
from sandbox.postgres import PrivatePostgres
from sandbox.requester import Requester
from tests.support.dead_letters import dead, expire_unread, ids, spawn, start_of_nothing
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.dead_letters.archive import DISCARDED, EDITED
from workers.journal import Archived, Batch, History, Journal

pytestmark = pytest.mark.slow

PARAMETER = "101.001002"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, workshop: Workshop) -> Workshop:
    """A workshop with either journal; no worker yet."""
    if request.param == "postgresql":
        server: PrivatePostgres = request.getfixturevalue("postgres")
        workshop.settings["ECS_JOURNAL_URL"] = server.add_database(f"dead-{uuid.uuid4().hex[:12]}")
    return workshop


@pytest.fixture
def requester(workshop: Workshop) -> Iterator[Requester]:
    with Requester(workshop.broker_url) as found:
        yield found


@contextlib.contextmanager
def journal_of(workshop: Workshop) -> Iterator[History]:
    history = History(workshop.settings["ECS_JOURNAL_URL"])
    try:
        yield history
    finally:
        history.close()


def causes(workshop: Workshop) -> dict[tuple[str, str], int]:
    """Return the journal's counts, made without a look into the queue."""
    with journal_of(workshop) as history:
        found = history.dead_letter_causes("ecs")
    return {(one.code, one.reason): one.messages for one in found}


def batches(workshop: Workshop) -> list[Batch]:
    """The batches, as any process sees them."""
    with journal_of(workshop) as history:
        return history.batches()


def renewal(**fields: Any) -> dict[str, Any]:
    """An order to renew a server that does not exist."""
    order = json.loads(change_configure(str(uuid.uuid4()), str(uuid.uuid4())))
    return {**order, "orderType": "renew", **fields}


def test_a_replay_that_is_refused_again_says_so_and_shows_no_other_order_s_result(
    place: Workshop,
) -> None:
    server_id = place.tenant().make_server(disk=None)
    with Requester(place.broker_url) as requester:
        place.worker()

        def reboot(kind: str, **properties: Any) -> str:
            return requester.command(
                "server.action",
                server_id=server_id,
                body={"reboot": {"type": kind}},
                **properties,
            )

        first = reboot("HARD")
        assert requester.result_of(first).body["code"] == 200
        for _ in range(3):
            reboot("SOFT", message_id=first)
        eventually(lambda: requester.depth("ecs.dead") == 3)
        conflict = (PARAMETER, "conflicting_duplicate")
        eventually(lambda: causes(place) == {conflict: 3})
        for round_ in (1, 2):
            (row,) = dead(place, "replay", "--reason", "conflicting_duplicate", "--yes")
            assert row["done"] == 3
            eventually(lambda: requester.depth("ecs.dead") == 3)
            batch = row["batch"]

            eventually(lambda: batches(place)[0].parked == 3, 30)
            for member in dead(place, "replays", batch):
                assert (member["outcome"], member["request"]) == ("parked_again", None)
                assert member["result"].startswith("refused, parked again: ")
                assert "200" not in member["result"]
            assert [one["failed_replays"] for one in dead(place, "list")] == [round_] * 3
            # Lowered by the replay, raised by the worker.
            assert causes(place) == {conflict: 3}
        assert "refused, parked again" in place.command("dead", "replays", batch).stdout
        assert {one["failed_replays"] for one in dead(place, "show", "--all")} == {2}
        assert "with another content" in place.command("dead", "show", "--all").stdout
    assert place.tenant().actions(server_id) == ["create", "reboot"]


def test_each_message_of_a_batch_is_on_the_record_of_whoever_carried_it_out(
    place: Workshop,
) -> None:
    """One operator begins; another one cannot carry it out beside him, but can stop it and go on."""
    with Requester(place.broker_url) as requester:
        sent = expire_unread(place, requester, 40)
        place.worker()
        words = ("dead", "replay", "--all", "--yes", "--rate", "0.5", "--operator", "anna")
        first = spawn(place, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            eventually(lambda: sum(one.done for one in batches(place)) > 1, 60)
            (running,) = batches(place)
            batch = running.name
            assert (running.runner_name or "").startswith("anna")
            resume = ("dead", "replay", "--batch", batch, "--yes", "--operator", "bert")
            beside = place.command(*resume)
            assert (beside.returncode, "anna" in beside.stderr) == (7, True), beside.stderr
            stopped = place.command("dead", "stop", batch, "--operator", "bert")
            assert stopped.returncode == 0, stopped.stderr
            _, said = first.communicate(timeout=60)
        finally:
            first.kill()
        assert (first.returncode, b"stopped by bert" in said) == (6, True), said.decode()
        (ended,) = batches(place)
        assert (ended.runner_name, ended.people) == (None, ("anna",))
        half = ended.done
        assert 0 < half < 40
        assert place.command(*resume).returncode == 0
        members = dead(place, "replays", batch)
        assert ids(members) == set(sent)
        done_by = [one["operator"] for one in members]
        assert (done_by.count("anna"), done_by.count("bert")) == (half, 40 - half)
        assert {one["begun_by"] for one in members} == {"anna"}
        (row,) = dead(place, "replays")
        assert (row["operator"], row["people"]) == ("anna", ["anna", "bert"])
        audited = json.loads(place.command("audit", "-o", "json").stdout)
        (entry,) = [one for one in audited if one["action"] == "dead replay"]
        assert {"anna", "bert"} <= set(entry["operator"].split(", "))


def test_groups_are_by_cause_and_each_of_them_can_be_selected(
    workshop: Workshop, requester: Requester
) -> None:
    """One code and one operation, and three causes that are mended in three ways."""
    workshop.worker(ECS_ADMIN_CLOUD="")
    known = renewal(tenant_id="tenant-a")
    requester.order_result_of(requester.order(json.dumps(known), "order.renew"))
    sent: dict[str, list[str]] = {"unit": [], "conflict": []}
    for _ in range(3):
        unit = renewal(durationUnit="fortnight", tenant_id="tenant-b", orderId=new_order_id())
        sent["unit"].append(requester.order(json.dumps(unit), "order.renew"))
    # Names its project by the id, where the operator knows the name.
    project = workshop.tenant().project_id
    for _ in range(2):
        other = known | {"consoleOrderFlowId": uuid.uuid4().hex, "tenant_id": project}
        sent["conflict"].append(requester.order(json.dumps(other), "order.renew"))
    sent["admin"] = [requester.order(json.dumps(renewal()), "order.renew") for _ in range(6)]
    eventually(lambda: requester.depth("ecs.dead") == 11, 60)
    groups = dead(workshop, "list", "--summary")
    assert [(one["count"], one["code"], one["operation"]) for one in groups] == [
        (6, PARAMETER, "order.renew"),
        (3, PARAMETER, "order.renew"),
        (2, PARAMETER, "order.renew"),
    ]
    assert "ECS_ADMIN_CLOUD" in groups[0]["error"]
    assert groups[2]["reason"] == "conflicting_duplicate"
    for words, expected in (
        (["--reason", "conflicting_duplicate"], "conflict"),
        (["--error", "ecs_admin_cloud"], "admin"),
        (["--tenant", "tenant-b"], "unit"),
        (["--tenant", "tenant-a"], "conflict"),
        (["--group", groups[1]["group"]], "unit"),
    ):
        for command in (["list"], ["show"], ["replay", "--dry-run"]):
            if command == ["list"] or words[0] == "--group":
                rows = dead(workshop, *command, *words)
                assert ids(rows) == set(sent[expected]), (command, words)
    table = workshop.command("dead", "list").stdout
    assert groups[0]["group"] in table
    assert dead(workshop, "discard", "--group", groups[1]["group"], "--yes")[0]["done"] == 3
    left = ids(dead(workshop, "list"))
    assert left == {*sent["conflict"], *sent["admin"]}
    assert dead(workshop, "list", "--group", groups[1]["group"], code=5) == []


def test_nothing_is_taken_by_an_oversight(workshop: Workshop, requester: Requester) -> None:
    workshop.worker()
    sent = [requester.publish("ecs.commands", "server.action", b"{") for _ in range(2)]
    eventually(lambda: requester.depth("ecs.dead") == 2)
    for words, code in (
        (["discard", "--yes"], 2),
        (["replay", "--yes"], 2),
        (["discard", "--limit", "1", "--yes"], 2),
        (["show"], 2),
        (["export", "all.jsonl"], 2),
        (["discard", "--all", "--code", PARAMETER, "--yes"], 2),
        (["replay", "typo", "--yes"], 5),
        (["replay", "typo", "--dry-run"], 5),
        (["discard", "--id", sent[0], "--id", "typo", "--yes"], 5),
        (["discard", "--group", "00000000", "--yes"], 5),
        (["list", "--id", "typo"], 5),
        (["edit", "typo", "--body", "/dev/null", "--yes"], 5),
        (["restore", "typo", "--yes"], 5),
        (["restore", "--yes"], 2),
        (["archive", "typo"], 5),
        (["stop", "typo"], 5),
    ):
        done = workshop.command("dead", *words)
        assert done.returncode == code, (words, done.stdout + done.stderr)
        assert done.stderr.count("\n") == 1, (words, done.stderr)
    assert ids(dead(workshop, "list")) == set(sent)
    assert dead(workshop, "discard", "--all", "--yes")[0]["done"] == 2


def test_what_was_typed_before_the_question_is_no_answer(
    workshop: Workshop, requester: Requester
) -> None:
    """On a real pseudo-terminal: a `y` that was meant for something else."""
    workshop.worker()
    requester.publish("ecs.commands", "server.action", b"{")
    eventually(lambda: requester.depth("ecs.dead") == 1)
    ours, theirs = pty.openpty()
    process = spawn(
        workshop, "dead", "discard", "--all", stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        os.write(ours, b"y\n")
        seen = b""
        limit = time.monotonic() + 60
        while b"[y/N]" not in seen and time.monotonic() < limit:
            if select.select([ours], [], [], 0.2)[0]:
                seen += os.read(ours, 4096)
        assert b"[y/N]" in seen
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)  # it waits for an answer
        os.write(ours, b"n\n")
        assert process.wait(30) == 7
    finally:
        process.kill()
        os.close(ours)
    assert requester.depth("ecs.dead") == 1


# The archive.


def test_what_was_discarded_is_put_back_as_it_was(place: Workshop, tmp_path: Path) -> None:
    token = new_token()
    with Requester(place.broker_url) as requester:
        place.worker()
        body = {"operation": "server.action", "token": token, "body": {"x": "中文"}}
        sent = requester.publish(
            "ecs.commands", "server.action", body, headers={"x-mine": 7}, correlation_id="c-1"
        )
        other = start_of_nothing(requester, reply_to="ecs.orders")
        eventually(lambda: requester.depth("ecs.dead") == 2)
        before = {one["id"]: one for one in dead(place, "show", "--all")}
        (row,) = dead(place, "discard", sent, "--yes", "--why", "a test", "--operator", "anna")
        assert ids(dead(place, "list")) == {other}
        (kept,) = dead(place, "archive")
        assert (kept["id"], kept["kind"], kept["why"]) == (sent, "discarded", "a test")
        assert (kept["operator"], kept["batch"]) == ("anna", row["batch"])
        (whole,) = dead(place, "archive", sent)
        assert whole["body"] == {**body, "token": "***"}
        file = tmp_path / "kept.jsonl"
        done = place.command("dead", "export", str(file), "--archived", "--all")
        assert done.returncode == 0, done.stderr
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert json.loads(file.read_text())["body"] == {**body, "token": "***"}
        assert place.command("dead", "export", str(file), "--all").returncode == 2
        assert place.command("dead", "export", "-", "--id", other).stdout.count("\n") == 1
        (back,) = dead(place, "restore", "--batch", row["batch"], "--yes", "--operator", "bert")
        assert back["restored"] == 1
        again = {one["id"]: one for one in dead(place, "show", "--all")}
        restored = again[sent]["headers"].pop("x-ecs-restored")
        assert restored.startswith(kept["archive"])
        for part in ("body", "properties", "failed_at", "code", "error", "origin", "key"):
            assert again[sent][part] == before[sent][part], part
        counts = ("x-delivery-count", "x-acquired-count")
        for headers in (again[sent]["headers"], before[sent]["headers"]):
            for name in counts:
                headers.pop(name, None)
        assert again[sent]["headers"] == before[sent]["headers"]
        (kept,) = dead(place, "archive")
        assert (kept["restored_by"], kept["restored_at"] is not None) == ("bert", True)
        # What is back already is not put back twice; discarded again, it is kept again.
        assert dead(place, "restore", kept["archive"], "--yes", code=6)[0]["restored"] == 0
        assert dead(place, "discard", sent, "--yes")[0]["done"] == 1
        assert len(dead(place, "archive")) == 2
        actions = [one["action"] for one in json.loads(place.command("audit", "-o", "json").stdout)]
        assert {"dead discard", "dead restore"} <= set(actions)
    assert token.encode() not in file.read_bytes()


def test_a_worker_prunes_what_was_discarded_thirty_days_ago(workshop: Workshop) -> None:
    url = workshop.settings["ECS_JOURNAL_URL"]

    def old(kind: str, days: float) -> Archived:
        return Archived(
            id=str(uuid.uuid4()),
            kind=kind,
            batch=None,
            archived_at=time.time() - days * 86400,
            operator="anna",
            real_user=None,
            why=None,
            name=f"{kind} {days}",
            message_id=None,
            operation=None,
            tenant=None,
            origin="ecs.servers",
            code=PARAMETER,
            reason=None,
            error=None,
            failed_at="",
            message="{}",
            body=b"{}",
        )

    async def fill() -> None:
        journal = Journal(url)
        await journal.open()
        await journal.archive([old(DISCARDED, 31), old(DISCARDED, 29), old(EDITED, 31)])
        await journal.close()

    asyncio.run(fill())
    workshop.worker()
    left = {f"{DISCARDED} 29", f"{EDITED} 31"}
    eventually(lambda: {one["key"] for one in dead(workshop, "archive")} == left)


# Editing.


def test_a_dead_letter_is_edited_checked_and_replayed(
    workshop: Workshop, requester: Requester, tmp_path: Path
) -> None:
    workshop.worker()
    server_id = workshop.tenant().make_server(disk=None)
    wrong = {
        "operation": "server.action",
        "tenant_id": "tenant-a",
        "server_id": server_id,
        "body": {"reboot": {"type": "HARDER"}},
    }
    sent = requester.publish("ecs.commands", "server.action", wrong)
    eventually(lambda: requester.depth("ecs.dead") == 1)
    file = tmp_path / "body.json"
    words = ("dead", "edit", sent, "--body", str(file), "--operator", "anna", "--why", "a typo")

    def refused(body: Any) -> str:
        file.write_text(body if isinstance(body, str) else json.dumps(body))
        done = workshop.command(*words, "--yes")
        assert done.returncode == 7, done.stdout + done.stderr
        return done.stderr

    right = wrong | {"body": {"reboot": {"type": "HARD"}}}
    assert "is the same" in refused(wrong)
    assert "no JSON" in refused("{")
    assert "a worker would refuse" in refused(wrong | {"body": {"reboot": {"type": "SOFTER"}}})
    secret = new_token()
    for name in ("token", "adminPass"):
        said = refused(right | {name: secret})
        assert f"holds a secret ({name})" in said
        assert secret not in said
    file.write_text(json.dumps(right))
    rehearsed = json.loads(workshop.command(*words, "--dry-run", "-o", "json").stdout)
    assert (rehearsed[0]["would"], rehearsed[0]["done"]) == ("run", False)
    assert dead(workshop, "show", sent)[0]["body"] == wrong
    done = workshop.command(*words, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "HARDER" in done.stderr
    (edited,) = dead(workshop, "show", sent)
    assert edited["body"] == right
    assert requester.depth("ecs.dead") == 1
    (original,) = dead(workshop, "archive", sent)
    assert (original["kind"], original["operator"], original["why"]) == ("edited", "anna", "a typo")
    assert (original["body"], original["edited"]) == (wrong, right)
    assert edited["headers"]["x-ecs-edited"] == original["archive"]
    assert dead(workshop, "replay", sent, "--yes")[0]["done"] == 1
    requester.last_update_of("server", sent)
    assert workshop.tenant().actions(server_id) == ["create", "reboot"]
    audited = json.loads(workshop.command("audit", "-o", "json").stdout)
    assert [one["target"] for one in audited if one["action"] == "dead edit"] == [sent]
    assert secret not in workshop.journal_dump()


def test_counts_by_cause_are_set_right_by_a_list(workshop: Workshop, requester: Requester) -> None:
    workshop.worker()
    for _ in range(3):
        requester.publish("ecs.commands", "server.action", {})
    eventually(lambda: requester.depth("ecs.dead") == 3)
    eventually(lambda: causes(workshop) == {(PARAMETER, ""): 3})
    requester.take_all("ecs.dead")  # past the command: nobody has told the journal
    assert causes(workshop) == {(PARAMETER, ""): 3}
    dead(workshop, "list")
    assert causes(workshop) == {}
    requester.publish("ecs.commands", "server.action", {})
    eventually(lambda: causes(workshop) == {(PARAMETER, ""): 1})
    assert dead(workshop, "discard", "--all", "--yes")[0]["done"] == 1
    assert causes(workshop) == {}
    assert dead(workshop, "restore", dead(workshop, "archive")[0]["archive"], "--yes")
    assert causes(workshop) == {(PARAMETER, ""): 1}


def test_a_message_with_headers_that_no_database_takes_is_discarded_like_any_other(
    place: Workshop,
) -> None:
    """Whoever may publish to `ecs.dead` writes what he likes into them."""
    headers = {
        "x-ecs-error-code": "1\x00\x1b[31m",
        "x-ecs-error": "\x00'; DROP TABLE requests",
        "x-ecs-reason": "a\x00b",
        "x-ecs-origin-queue": "ecs.orders\x00",
        "x-ecs-project": "p\x00",
        "x-ecs-identity": "proven",
        "x-ecs-failed-at": "\x00",
    }
    place.worker().stop()
    with Requester(place.broker_url) as requester:
        requester.publish("", "ecs.dead", b"{}", message_id="m\x001", headers=headers)
        eventually(lambda: requester.depth("ecs.dead") == 1, 20)
        (group,) = {row["group"] for row in dead(place, "list")}
        dead(place, "discard", "--group", group, "--yes")
        assert requester.depth("ecs.dead") == 0
        (kept,) = dead(place, "archive")
        dead(place, "restore", kept["archive"], "--yes")
        eventually(lambda: requester.depth("ecs.dead") == 1, 20)

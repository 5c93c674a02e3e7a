"""`ecs-worker status` and `show`: the real command beside real workers, and without any (R45)."""

import json
import os
import signal
import subprocess
import sys
from typing import Any

from kombu import Connection

from sandbox.documents import change_configure, new_order_id
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support import REPOSITORY
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.admin.peek import MOST_RETURNED
from workers.admin.reports import read_workers
from workers.admin.state import WorkerStatus
from workers.heartbeat import STARTING
from workers.journal import Operations


def order_for(workshop: Workshop, server_id: str, order_id: str) -> str:
    tenant = workshop.tenant()
    made = json.loads(change_configure(server_id, tenant.image, order_id=order_id))
    return json.dumps(made | {"tenant_id": "tenant-a"})


def found(workshop: Workshop, key: str, **settings: str) -> dict[str, Any]:
    done = workshop.command("show", key, "-o", "json", **settings)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def status(workshop: Workshop, *words: str, code: int = 0, **settings: str) -> dict[str, Any]:
    done = workshop.command("status", *words, "-o", "json", **settings)
    assert done.returncode == code, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_an_order_without_a_worker_is_found_in_its_queue_and_then_followed(
    workshop: Workshop,
) -> None:
    first, order_id = new_order_id(), new_order_id()
    server_id = workshop.tenant().make_server(disk=10)
    workshop.worker().stop()  # makes the journal
    with Requester(workshop.broker_url) as requester:
        requester.order(order_for(workshop, server_id, first))
        sent = requester.order(order_for(workshop, server_id, order_id))
        eventually(lambda: requester.depth("ecs.orders") == 2)
        told = found(workshop, order_id)
        (message,) = told["messages"]
        assert (message["place"], message["queue"]) == ("input_queue", "ecs.orders")
        assert (message["position"], message["operation"]) == (2, "order.changeConfigure")
        assert "no worker consumes it: start one (ecs-worker run)" in told["answer"]
        assert told["requests"] == []
        # Nothing was taken out, and what stands still is said by status, too.
        assert requester.depth("ecs.orders") == 2
        seen = status(workshop)
        orders = next(one for one in seen["queues"] if one["name"] == "ecs.orders")
        assert (orders["ready"], orders["consumers"]) == (2, 0)
        assert orders["oldest_at"] is not None
        assert any("ecs.orders: 2 messages wait" in one for one in seen["findings"])
        workshop.worker()
        assert requester.order_result_of(sent).body["code"] == 200
        eventually(lambda: found(workshop, order_id)["requests"][0]["state"] == "settled")
        told = found(workshop, order_id)
        (request,) = told["requests"]
        assert request["place"] == "answered"
        kinds = [one["kind"] for one in request["timeline"]]
        assert kinds[0] == "received"
        assert {"effect", "update", "result"} <= set(kinds)
        times = [one["at"] for one in request["timeline"]]
        assert times == sorted(times)


def test_a_worker_that_starts_is_no_trouble(workshop: Workshop) -> None:
    workshop.worker().stop()  # makes the journal
    told: list[WorkerStatus] = []
    operations = Operations(workshop.settings["ECS_JOURNAL_URL"], "ecs")
    worker = workshop.worker(wait=False)
    while not any(one.problems or all(q.consuming for q in one.queues) for one in told):
        told = [one for one in read_workers(operations) if one.works]
        for seen in told:
            assert seen.problems == ()
            assert {q.why_not for q in seen.queues} <= {None, STARTING}
    worker.wait_ready()
    seen = status(workshop)
    assert seen["findings"] == []
    assert all(
        q["consuming"] for one in seen["workers"] for q in one["queues"] if one["state"] == "alive"
    )


def test_an_order_that_waits_for_its_next_attempt_says_why_and_when(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    delays = {"ECS_RETRY_DELAYS": "60"}
    workshop.worker(**delays)
    order_id = new_order_id()
    server_id = workshop.tenant().make_server(disk=10)
    simulated.fault("api.nova", match="^GET", user="ecs-worker", error="overloaded", status=503)
    with Requester(workshop.broker_url) as requester:
        requester.order(order_for(workshop, server_id, order_id))
        eventually(lambda: requester.depth("ecs.retry.60") == 1, 30)
    (request,) = found(workshop, order_id, **delays)["requests"]
    assert (request["place"], request["queue"]) == ("retry_queue", "ecs.retry.60")
    assert request["goes_on_at"] == request["waits_for"]["until"]
    assert "http_503" in request["why"]
    assert "overloaded" in request["why"]
    (retry,) = [one for one in request["timeline"] if one["kind"] == "retry"]
    assert retry["until"] == request["goes_on_at"]
    seen = status(workshop, **delays)
    queue = next(one for one in seen["queues"] if one["name"] == "ecs.retry.60")
    assert (queue["ready"], queue["next_at"]) == (1, request["goes_on_at"])
    assert [(one["stage"], one["oldest"]) for one in seen["requests"]] == [
        ("waiting_retry", order_id)
    ]
    table = workshop.command("show", order_id, **delays)
    assert table.returncode == 0
    assert "http_503" in table.stdout


def test_an_order_behind_another_one_says_what_that_one_waits_for(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    worker = workshop.worker()
    server_id = workshop.tenant().make_server(disk=10)
    first, second, third = new_order_id(), new_order_id(), new_order_id()
    simulated.fault("virt.finish_migration", match=server_id, held=True)
    with Requester(workshop.broker_url) as requester:
        for order_id in (first, second, third):
            requester.order(order_for(workshop, server_id, order_id))
            eventually(lambda one=order_id: is_waiting(workshop, one), 30)
        (ahead,) = found(workshop, first)["requests"]
        assert ahead["place"] == "worker"
        assert f"waits for server {server_id}" in ahead["why"]
        (behind,) = found(workshop, second)["requests"]
        assert f"behind order.changeConfigure {first}" in behind["why"]
        assert f"order.changeConfigure {first} waits for server {server_id}" in behind["why"]
        # However long the line is, what its first waits for is said.
        (last,) = found(workshop, third)["requests"]
        assert f"behind order.changeConfigure {second} and 1 more" in last["why"]
        assert (
            f"The first of them, order.changeConfigure {first} waits for server {server_id}"
            in last["why"]
        )
        # All have a living worker, which says so itself.
        eventually(lambda: len(status(workshop)["workers"]) == 1)
        (told,) = status(workshop)["workers"]
        assert told["state"] == "alive"
        assert f"{told['pid']} has it" in ahead["why"] or "a worker has it" in ahead["why"]
        # One that hangs is named wherever it has something.
        os.kill(told["pid"], signal.SIGSTOP)
        eventually(lambda: status(workshop)["workers"][0]["state"] == "silent", 40)
        assert "has told nothing since" in found(workshop, third)["answer"]
        assert any("it hangs, or cannot reach" in one for one in status(workshop)["findings"])
        paused = workshop.command("pause", "images", "-o", "json")
        assert paused.returncode == 6
        assert f"pid {told['pid']} lives and has told nothing since" in paused.stderr
        os.kill(told["pid"], signal.SIGCONT)
        worker.kill()
        told = found(workshop, first)
        assert told["requests"][0]["place"] == "input_queue"
        assert "no worker has it, its message is in ecs.orders" in told["answer"]
        # Until its row is old, a killed worker may only be slow.
        eventually(lambda: "start one (ecs-worker run)" in found(workshop, first)["answer"], 30)
        assert status(workshop)["workers"][0]["state"] == "dead"


def is_waiting(workshop: Workshop, order_id: str) -> bool:
    done = workshop.command("show", order_id, "-o", "json")
    requests = json.loads(done.stdout)["requests"]
    return bool(requests) and requests[0]["waits_for"] is not None


def test_limits_and_what_cannot_be_reached_have_exit_codes_of_their_own(
    workshop: Workshop,
) -> None:
    workshop.worker().stop()
    with Requester(workshop.broker_url) as requester:
        for _ in range(3):
            requester.order("{}")
        eventually(lambda: requester.depth("ecs.orders") == 3)
    assert status(workshop, "--max-ready", "3", "--max-dead", "0")["beyond_limits"] == []
    for words in (
        ("--max-ready", "2"),
        ("--max-ready", "orders=2"),
        ("--max-age", "ecs.orders=0s"),
        ("--min-workers", "1"),
    ):
        (line,) = status(workshop, *words, code=5)["beyond_limits"]
        assert "ecs.orders" in line or "workers" in line
    for words in (("--max-ready", "many"), ("--max-age", "ecs.nonsense=5m")):
        done = workshop.command("status", *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    # What can be known is shown all the same.
    nowhere = "amqp://guest:guest@127.0.0.1:1//"
    seen = status(workshop, code=4, ECS_BROKER_URL=nowhere)
    assert (seen["queues"], len(seen["unknown"])) == ([], 1)
    assert seen["dependencies"][1]["is_up"] is True
    seen = status(workshop, code=4, ECS_JOURNAL_URL="sqlite:////nowhere/journal.db")
    assert any(one["ready"] == 3 for one in seen["queues"])
    for settings in ({"ECS_BROKER_URL": nowhere}, {"ECS_JOURNAL_URL": "sqlite:////nowhere/j.db"}):
        done = workshop.command("show", "17", "-o", "json", **settings)
        assert done.returncode == 4
        assert json.loads(done.stdout)["unknown"]


def test_of_what_nobody_knows_is_said_so_and_looking_does_no_harm(workshop: Workshop) -> None:
    workshop.worker().stop()
    with Requester(workshop.broker_url) as requester:
        requester.order(json.dumps({"orderId": "17", "orderStatus": "paySuccess"}))
        eventually(lambda: requester.depth("ecs.orders") == 1)
        # The broker gives up on a message that is given back too often: looks are bounded.
        for _ in range(8):
            done = workshop.command("show", "no-such-order", "-o", "json")
            assert done.returncode == 5
        told = json.loads(done.stdout)
        assert "each look counts as a failed delivery" in told["unknown"][0]
        with Connection(workshop.broker_url) as connection:
            message = connection.channel().basic_get("ecs.orders")
            assert message.headers["x-delivery-count"] == MOST_RETURNED


def test_watching_goes_on_with_what_changes(workshop: Workshop) -> None:
    command = [sys.executable, "-m", "workers", "status", "--watch", "--interval", "0.5"]
    watching = subprocess.Popen(
        [*command, "-o", "jsonl"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)} | workshop.settings,
        cwd=workshop.folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watching.stdout is not None
        # There is no journal yet: what the broker tells is shown all the same, and goes on.
        assert len(json.loads(watching.stdout.readline())["unknown"]) == 1
        with Requester(workshop.broker_url) as requester:
            requester.order("{}")
            eventually(lambda: requester.depth("ecs.orders") == 1)
        for line in watching.stdout:
            queues = {one["name"]: one for one in json.loads(line)["queues"]}
            if queues["ecs.orders"]["ready"] == 1:
                break
    finally:
        watching.kill()
        watching.wait()

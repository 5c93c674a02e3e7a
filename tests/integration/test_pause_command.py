"""`ecs-worker pause`, `resume`, `cancel` and `audit` with two workers, a real broker and a cloud."""

import json
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from sandbox.worker import WorkerProcess
from tests.support.metrics import numbers
from tests.support.orders import ended, paid, publish
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from tests.upgrade.versions import BEFORE_1_0, unpack
from workers.admin import heartbeats
from workers.admin.heartbeats import Liveness, WorkerSeen
from workers.journal import Operations

pytestmark = pytest.mark.slow
MONTHLY = {"charge_type": "monthly"}


@pytest.fixture
def workers(workshop: Workshop) -> tuple[WorkerProcess, WorkerProcess]:
    workshop.settings |= {"ECS_RETRY_DELAYS": "2,20", "ECS_COMMAND_TIMEOUT": "60"}
    return workshop.worker(), workshop.worker()


def night(workshop: Workshop, *words: str, code: int = 0) -> tuple[list[dict[str, Any]], str]:
    """Run a command as the night shift; return its rows and what it said on stderr."""
    found = workshop.command(*words, "--operator", "night shift", "-o", "json")
    assert found.returncode == code, found.stdout + found.stderr
    return json.loads(found.stdout) if found.stdout else [], found.stderr


def seen(workshop: Workshop) -> list[WorkerSeen]:
    with closing(Operations(workshop.settings["ECS_JOURNAL_URL"], "ecs").open()) as journal:
        return heartbeats.workers(journal)


def renewal(server_id: str, **fields: Any) -> dict[str, Any]:
    return paid("renew", server_id, duration="1", durationUnit="M", **fields)


def test_a_paused_kind_waits_for_all_workers_and_is_seen_everywhere(
    workshop: Workshop, workers: tuple[WorkerProcess, WorkerProcess]
) -> None:
    tenant = workshop.tenant()
    servers = [tenant.make_server(metadata=MONTHLY) for _ in range(3)]
    with Requester(workshop.broker_url) as requester:
        rows, said = night(
            workshop, "pause", "orders", "images", "--reason", "Cinder moves", "--for", "1h"
        )
        assert "2 of 2 workers obey" in said
        assert [(one["kind"], one["reason"], one["operator"]) for one in rows] == [
            ("images", "Cinder moves", "night shift"),
            ("orders", "Cinder moves", "night shift"),
        ]
        assert all(one["real_user"] and one["until"] for one in rows)
        orders = [publish(requester, renewal(one)) for one in servers]
        # What is not paused goes on.
        assert requester.result_of(requester.command("server.list")).body["code"] == 200
        tags = requester.command("server.tags.update", server_id=servers[0], tags="web")
        assert requester.result_of(tags).body["code"] == 200
        assert requester.depth("ecs.orders") == len(orders)
        for worker in workers:
            with urllib.request.urlopen(f"{worker.url}/readyz", timeout=5) as answer:
                told = json.loads(answer.read())
            assert (told["status"], told["problems"]) == ("ok", [])
            assert [line.partition(" until ")[0] for line in told["paused"]] == [
                "images are paused",
                "orders are paused",
            ]
            assert "by night shift: Cinder moves" in told["paused"][0]
            found = numbers(worker.metrics())
            assert found.one("ecs_paused", kind="orders", queue="ecs.orders") == 1
            assert found.one("ecs_paused", kind="reads", queue="ecs.reads") == 0
        for one in seen(workshop):
            queues = {queue.queue: queue for queue in one.report.queues}
            assert not queues["ecs.orders"].consuming
            assert "by night shift" in (queues["ecs.orders"].why or "")
            assert queues["ecs.reads"].consuming
            assert queues["ecs.reads"].why is None
        # One that starts obeys, too, and a restart changes nothing.
        workers[0].stop()
        workshop.worker()
        requester.listen(1.0)
        assert requester.depth("ecs.orders") == len(orders)

        (row,), said = night(workshop, "resume", "orders", "--reason", "it has moved")
        assert (row["kind"], row["operator"], row["reason"]) == (
            "orders",
            "night shift",
            "Cinder moves",
        )
        assert "2 of 2 workers obey" in said
        for order in orders:
            assert requester.order_result_of(order).body["code"] == 200
    assert night(workshop, "resume", "orders")[1].startswith("orders: nothing was paused")
    audit = json.loads(workshop.command("audit", "-o", "json").stdout)
    assert [(one["action"], one["target"], one["reason"]) for one in audit] == [
        ("resume", "orders", "it has moved"),
        ("pause", "images", "Cinder moves"),
        ("pause", "orders", "Cinder moves"),
    ]
    for one in audit:
        assert (one["operator"], one["real_user"]) == ("night shift", rows[0]["real_user"])
        assert one["origin"]
    assert '"event":"queue.paused"' in workshop.logs().replace(" ", "")


def test_what_has_not_begun_goes_back_and_what_has_begun_goes_on(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    workshop.worker(ECS_CONCURRENCY="2", ECS_COMMAND_TIMEOUT="60")
    tenant = workshop.tenant()
    servers = [tenant.make_server() for _ in range(12)]
    simulated.fault("api.nova", match="^PUT .*/tags", delay=25.0)
    with Requester(workshop.broker_url) as requester:
        sent = [
            requester.command("server.tags.update", server_id=one, tags="web") for one in servers
        ]
        eventually(lambda: any("/tags" in call for call in simulated.calls()))
        assert requester.depth("ecs.servers") == 0, "the worker holds them all"
        night(workshop, "pause", "servers", "--reason", "Nova is slow")
        begun = len(servers) - requester.depth("ecs.servers")
        assert 1 <= begun <= 4, "a place for each of the two kinds of deliveries at most"
        requester.wait(lambda _: len(requester.heard) >= begun, 60)
        requester.listen(2.0)
        assert requester.depth("ecs.servers") == len(servers) - begun
        simulated.clear_faults()
        night(workshop, "resume", "servers")
        assert {requester.result_of(one, 60).body["code"] for one in sent} == {200}


def test_a_pause_of_reads_ends_by_itself(
    workshop: Workshop, workers: tuple[WorkerProcess, WorkerProcess]
) -> None:
    del workers
    with Requester(workshop.broker_url) as requester:
        began = time.monotonic()
        night(workshop, "pause", "reads", "--for", "6s")
        asked = requester.command("server.list")
        requester.listen(1.0)
        assert requester.depth("ecs.reads") == 1
        assert requester.result_of(asked, 30).body["code"] == 200
        assert time.monotonic() - began > 5.0


def test_an_order_that_waited_for_a_lock_does_not_begin_while_orders_are_paused(
    workshop: Workshop, workers: tuple[WorkerProcess, WorkerProcess], simulated: SimulatedOpenStack
) -> None:
    del workers
    tenant = workshop.tenant()
    server_id = tenant.make_server(name="slow-to-stop", metadata=MONTHLY)
    simulated.fault("virt.power_off", match="slow-to-stop", delay=25.0)
    with Requester(workshop.broker_url) as requester:
        stop = requester.command("server.action", server_id=server_id, body={"os-stop": None})
        assert requester.result_of(stop).body["code"] == 200
        order = publish(requester, renewal(server_id))
        eventually(lambda: requester.depth("ecs.orders") == 0)
        requester.listen(1.0)
        night(workshop, "pause", "orders")
        requester.last_update_of("server", stop)
        eventually(lambda: requester.depth("ecs.orders") == 1, 30)
        assert not [one for one in requester.heard if one.correlation_id == order]
        night(workshop, "resume", "orders")
        assert requester.order_result_of(order).body["code"] == 200


def test_an_order_is_cancelled_before_it_comes_and_in_between_and_not_when_it_has_begun(
    workshop: Workshop, workers: tuple[WorkerProcess, WorkerProcess], simulated: SimulatedOpenStack
) -> None:
    del workers
    tenant = workshop.tenant()
    waiting, retried, carried_out = (tenant.make_server(metadata=MONTHLY) for _ in range(3))
    before = tenant.server(waiting)["metadata"]
    with Requester(workshop.broker_url) as requester:
        # In its queue, which is paused.
        night(workshop, "pause", "orders")
        order = renewal(waiting)
        sent = publish(requester, order)
        refused = workshop.command("cancel", order["orderId"])
        assert (refused.returncode, refused.stdout) == (7, "")
        of_nobody = ("cancel", order["orderId"], "--yes", "--tenant", "tenant-of-nobody")
        _, said = night(workshop, *of_nobody, code=7)
        assert "cannot be looked up" in said, "it would wait for an order that never comes"
        (row,), said = night(
            *(workshop, "cancel", order["orderId"], "--yes", "--reason", "twice"),
            *("--tenant", "tenant-a"),
        )
        assert row["outcome"] == "waiting"
        assert "--withdraw" in said
        shown = json.loads(workshop.command("show", order["orderId"], "-o", "json").stdout)
        assert "night shift cancelled it" in shown["messages"][0]["why"]
        assert "(twice)" in shown["messages"][0]["why"]
        night(workshop, "resume", "orders")
        result, statuses = ended(requester, sent, 30)
        check_cancelled(result.body, order)
        assert statuses[-1] == "failed"
        assert tenant.server(waiting)["metadata"] == before

        # In a retry queue, with nothing begun.
        simulated.fault("api.nova", match=f"^GET .*{retried}", error="overloaded", status=503)
        again = renewal(retried)
        sent = publish(requester, again)
        eventually(
            lambda: requester.depth("ecs.retry.2") + requester.depth("ecs.retry.20") == 1, 40
        )
        # However long the key is, the table has the outcome.
        table = workshop.command("cancel", again["orderId"], "--yes")
        assert (table.returncode, table.stdout.splitlines()[1].split()[0]) == (0, "cancelled")
        simulated.clear_faults()
        result, _ = ended(requester, sent, 40)
        check_cancelled(result.body, again)
        # A copy gets the same.
        copy = publish(requester, again)
        assert requester.order_result_of(copy).body == result.body

        # Begun, and done.
        last = renewal(carried_out)
        sent = publish(requester, last)
        assert requester.order_result_of(sent).body["code"] == 200
        _, said = night(workshop, "cancel", last["orderId"], "--yes", code=7)
        assert "has its result already" in said
        assert requester.depth("ecs.dead") == 0
    audit = json.loads(workshop.command("audit", "--key", again["orderId"], "-o", "json").stdout)
    assert [(one["action"], one["details"]["outcome"]) for one in audit] == [
        ("cancel", "cancelled")
    ]


def check_cancelled(body: dict[str, Any], order: dict[str, Any]) -> None:
    assert body["code"] == "101.001040", body
    assert body["data"]["reason"] == "cancelled"
    assert body["data"]["orderId"] == order["orderId"]
    assert body["data"]["productSetList"][0]["resourceChanged"] is False


def test_a_worker_of_the_version_before_answers_what_is_cancelled_and_is_named_by_a_pause(
    workshop: Workshop, simulated: SimulatedOpenStack, tmp_path: Path
) -> None:
    """It knows neither pauses nor cancellations."""
    before_1_0 = unpack(BEFORE_1_0, tmp_path)
    workshop.settings["ECS_RETRY_DELAYS"] = "2,20"
    workshop.worker().stop()  # it migrates the journal
    workshop.worker(PYTHONPATH=str(before_1_0))
    tenant = workshop.tenant()
    server_id = tenant.make_server(metadata=MONTHLY)
    before = tenant.server(server_id)["metadata"]
    with Requester(workshop.broker_url) as requester:
        simulated.fault("api.nova", match=f"^GET .*{server_id}", error="overloaded", status=503)
        order = renewal(server_id)
        sent = publish(requester, order)
        eventually(lambda: requester.depth("ecs.retry.20") == 1, 60)
        (row,), _ = night(workshop, "cancel", order["orderId"], "--yes")
        assert row["outcome"] == "cancelled"
        simulated.clear_faults()
        result = requester.order_result_of(sent, 60).body
        assert (result["code"], result["data"]["reason"]) == ("101.001040", "cancelled")
        assert result["data"]["orderId"] == order["orderId"]
        requester.last_update_of("order", order["orderId"], resource_id=order["orderId"])
        assert tenant.server(server_id)["metadata"] == before
        _, said = night(workshop, "pause", "orders", code=6)
        assert "ecs.orders still has 1 consumers" in said


@pytest.fixture
def stopped(workshop: Workshop, workers: tuple[WorkerProcess, WorkerProcess]) -> list[WorkerSeen]:
    killed, drained = workers
    eventually(lambda: len(seen(workshop)) == 2)
    killed.kill()
    drained.stop()
    return seen(workshop)


def test_a_worker_that_drained_says_so_and_one_that_was_killed_is_found_dead(
    workshop: Workshop, stopped: list[WorkerSeen]
) -> None:
    assert sorted(one.liveness for one in stopped) == [Liveness.ALIVE, Liveness.ENDED], (
        "the killed one has told of itself some seconds ago"
    )
    assert all(one.row.pid and one.row.version and one.row.region for one in stopped)
    eventually(
        lambda: sorted(one.liveness for one in seen(workshop)) == [Liveness.DEAD, Liveness.ENDED],
        heartbeats.OLD_AFTER + 5,
    )

"""Pruned orders: what is left of them answers and refuses as the whole did, on both databases."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import REPOSITORY
from workers.journal import (
    AuditFilter,
    Begun,
    ContentConflict,
    History,
    Journal,
    JournalError,
    Kind,
    Known,
    NewRequest,
    Operations,
    RequestFilter,
    Retention,
    State,
)

ORDER = NewRequest("order:p:17", "17", Kind.ORDER, "order.changeConfigure", "p", "digest", 1000.0)
#: As `order_result` makes it.
RESULT = {
    "code": 200,
    "message": "OK",
    "http": 200,
    "data": {
        "userId": "u",
        "consoleOrderFlowId": "f",
        "orderId": "17",
        "productSetList": [
            {
                "productSetStatus": "success",
                "resourceChanged": True,
                "billType": "hourlySettlement",
                "orderType": "changeConfigure",
                "duration": "1",
                "durationUnit": "H",
                "productList": [
                    {
                        "productLineCode": "ECS",
                        "itemList": [{"code": "CPU", "value": "2"}] * 20,
                        "instanceId": "s1",
                        "instanceStatus": "ACTIVE",
                        "statusTime": "2026-11-23 10:00:00",
                        "before": {"status": "ACTIVE"},
                        "after": {"status": "ACTIVE"},
                        "requestIds": ["req-1"],
                        "kept": {"ports": ["p1"]},
                    }
                ],
            }
        ],
    },
}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/journal.db"
    added: str = request.getfixturevalue("postgres").add_database(tmp_path.name.replace("[", "-"))
    return added


@pytest.fixture
async def journal(url: str) -> AsyncIterator[Journal]:
    found = Journal(url)
    await found.open()
    yield found
    await found.close()


async def ended(
    journal: Journal, request: NewRequest, result: dict[str, Any] = RESULT, *, settled: bool = True
) -> None:
    outcome = await journal.begin(request, (f"server:{request.name}",))
    assert isinstance(outcome, Begun)
    claim = outcome.claim
    await journal.intend(claim, "resize:s1", "marker")
    await journal.record(claim, "resize:s1", {"status": 202}, "req-1")
    await journal.remember(claim, "project:s1", "p")
    await journal.finish(claim, result, [{"resource": "order", "final": True}])
    if settled:
        await journal.settle(request.key)


async def many(journal: Journal, number: int, prefix: str = "k") -> None:
    orders = [replace(ORDER, key=f"{prefix}{n}", name=f"{prefix}{n}") for n in range(number)]
    await asyncio.gather(*(ended(journal, one) for one in orders))


async def test_a_pruned_order_is_known_with_its_outcome_and_refuses_another_content(
    journal: Journal,
) -> None:
    await ended(journal, ORDER)
    assert await journal.prune_orders(older_than=-1.0) == 1
    known = await journal.begin(ORDER)
    assert isinstance(known, Known)
    assert (known.settled, known.updates) == (True, [])
    assert (known.result["code"], known.result["message"], known.result["http"]) == (200, "OK", 200)
    data = known.result["data"]
    assert data["pruned"] is True
    assert (data["userId"], data["consoleOrderFlowId"], data["orderId"]) == ("u", "f", "17")
    (one,) = data["productSetList"]
    assert (one["productSetStatus"], one["resourceChanged"]) == ("success", True)
    assert one["productList"] == [
        {
            "productLineCode": "ECS",
            "instanceId": "s1",
            "instanceStatus": "ACTIVE",
            "statusTime": "2026-11-23 10:00:00",
            "before": None,
            "after": None,
            "requestIds": [],
            "kept": {"ports": ["p1"]},
        }
    ]
    assert await journal.begin(replace(ORDER, digest="another")) == ContentConflict()
    (found,) = await journal.find("17")
    assert found.pruned_at == pytest.approx(time.time(), abs=60)
    assert (found.state, found.digest, found.received_at) == (State.SETTLED, "digest", 1000.0)
    # By it each tenant of a softDown is shown its own servers.
    assert [effect.name for effect in found.effects] == ["project:s1"]
    # Once.
    assert await journal.prune_orders(older_than=-1.0) == 0


async def test_only_settled_orders_that_are_old_enough_are_pruned(
    journal: Journal, url: str
) -> None:
    await ended(journal, ORDER)
    await ended(journal, replace(ORDER, key="k2", name="n2"), settled=False)
    await ended(journal, replace(ORDER, key="k3", name="n3", kind=Kind.COMMAND))
    assert isinstance(await journal.begin(replace(ORDER, key="k4", name="n4")), Begun)
    retention = Retention(url)
    assert retention.prunable(time.time() - 3600).orders == 0
    assert await journal.prune_orders(older_than=3600) == 0
    found = retention.prunable(time.time() + 1)
    assert (found.orders, found.newest) == (1, found.oldest)
    assert found.bytes > 1000
    assert list(retention.prune(time.time() + 1)) == [1]
    assert retention.prunable(time.time() + 1).orders == 0
    retention.close()
    history = History(url).open()
    pruned = {
        one.name for key in ("17", "n2", "n3", "n4") for one in history.find(key) if one.pruned_at
    }
    history.close()
    assert pruned == {"17"}


async def test_many_are_pruned_in_small_transactions_and_the_space_is_given_back(
    journal: Journal, url: str
) -> None:
    await many(journal, 450)
    retention = Retention(url)
    before = retention.space()
    assert list(retention.prune(time.time() + 1)) == [200, 200, 50]
    retention.vacuum()
    after = retention.space()
    if url.startswith("sqlite"):
        assert (after.bytes < before.bytes, after.free) == (True, 0)
    # New orders take the place of what was pruned.
    await many(journal, 450, "new")
    assert retention.space().bytes < before.bytes * 1.6
    retention.close()
    assert isinstance(await journal.begin(replace(ORDER, key="k0")), Known)


async def test_a_softdown_keeps_the_outcome_of_each_instance(journal: Journal) -> None:
    instance = {
        "subFlowId": "s",
        "operateType": "stopServer",
        "instanceId": "i1",
        "result": "fail",
        "code": "101.001012",
        "message": "m",
        "reason": "state",
        "instanceStatus": "ERROR",
        "statusTime": "2026-11-23 10:00:00",
        "before": {"status": "ERROR"},
        "after": None,
        "requestIds": ["r"],
        "more": {"a": 1},
    }
    data = {"region": "r", "flowId": "f", "reason": "state", "instanceList": [instance]}
    result = {"code": "101.001012", "message": "m", "http": 400, "data": data}
    await ended(journal, ORDER, result)
    await journal.prune_orders(older_than=-1.0)
    known = await journal.begin(ORDER)
    assert isinstance(known, Known)
    left = {name: value for name, value in instance.items() if name != "more"}
    left |= {"before": None, "requestIds": []}
    assert known.result == {
        **result,
        "data": {**data, "instanceList": [left], "pruned": True},
    }


async def test_a_result_without_data_is_pruned_too(journal: Journal) -> None:
    result = {"code": "101.001040", "message": "m", "http": 400, "data": None}
    await ended(journal, ORDER, result)
    assert await journal.prune_orders(older_than=-1.0) == 1
    known = await journal.begin(ORDER)
    assert isinstance(known, Known)
    assert known.result == result


async def test_two_who_prune_at_once_prune_each_order_once(journal: Journal, url: str) -> None:
    await many(journal, 300)
    retentions = [Retention(url), Retention(url)]
    runs = [one.prune(time.time() + 1) for one in retentions]
    counts = [count for pair in zip(*runs, strict=False) for count in pair]
    counts += [count for run in runs for count in run]
    for one in retentions:
        one.close()
    assert sum(counts) == 300


async def test_ctrl_c_stops_a_prune_between_two_transactions_and_the_same_command_goes_on(
    journal: Journal, url: str, tmp_path: Path
) -> None:
    await many(journal, 1000)
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(REPOSITORY),
        "ECS_JOURNAL_URL": url,
        "ECS_TRUST_PUBLISHERS": "true",
    }
    words = ("journal", "prune", "--before", "0s", "--yes", "-o", "json")
    # The signal comes when the first transaction is done, however slow the machine is.
    script = (
        "import os, signal, sys\n"
        "from workers.journal.retention import PruneOrders\n"
        "run = PruneOrders.run_all\n"
        "def once(*given):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return run(*given)\n"
        "if sys.argv.pop(1) == 'stop':\n"
        "    PruneOrders.run_all = once\n"
        "from workers.cli import main\n"
        "main()\n"
    )
    rows = {}
    for how in ("stop", "go on"):
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", script, how, *words],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        (row,) = json.loads(done.stdout)
        rows[how] = (done.returncode, row["orders"], row["pruned"], done.stderr)
    stopped = "stopped: 200 of 1000 orders are pruned; the same command goes on\n"
    assert rows == {"stop": (6, 1000, 200, stopped), "go on": (0, 800, 800, "")}
    with closing(Operations(url, "ecs").open()) as operations:
        recorded = operations.audit(AuditFilter())
    assert [one.details["orders"] for one in recorded] == [800, 200]


async def test_an_export_shows_one_instant_whatever_is_written_meanwhile(
    journal: Journal, url: str
) -> None:
    await many(journal, 600)
    with closing(History(url).open()) as history, closing(history.export(RequestFilter())) as found:
        first, _ = next(found)
        await ended(journal, replace(ORDER, key="later", name="later", received_at=2000.0))
        while await journal.prune_orders(older_than=-1.0):
            pass
        rest = [request for request, _ in found]
    assert {one.key for one in (first, *rest)} == {f"k{number}" for number in range(600)}
    assert [one.key for one in (first, *rest) if one.pruned_at or not one.effects] == []


def test_a_journal_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal at"):
        Retention(f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []

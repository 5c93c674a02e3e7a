"""`ecs-worker journal export` and `journal prune`, the real commands beside a running worker."""

import gzip
import json
import os
import re
import sqlite3
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from sandbox.postgres import PrivatePostgres
from sandbox.requester import Requester
from tests.support.orders import carried_out, paid, reported, soft_down
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology
from workers.journal import AuditFilter, Operations

SECRET = "nobody-may-read-this"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def asked(
    request: pytest.FixtureRequest,
    broker: PrivateBroker,
    simulated: SimulatedOpenStack,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Workshop, dict[str, Any]]]:
    """A worker that has answered a renewal, a softDown and a command, and goes on running."""
    folder = tmp_path_factory.mktemp(f"kept-{request.param}")
    url = broker.add_vhost(folder.name)
    declare(url, topology())
    with Workshop(url, simulated, folder) as workshop:
        if request.param == "postgresql":
            server: PrivatePostgres = request.getfixturevalue("postgres")
            workshop.settings["ECS_JOURNAL_URL"] = server.add_database(folder.name)
        workshop.worker()
        server_id = workshop.tenant().make_server(disk=None)
        orders = {
            "renewal": paid("renew", server_id, consoleCustomization={"adminPass": SECRET}),
            "stop": soft_down((server_id, "stopServer"), tenant="tenant-a"),
        }
        with Requester(url) as requester:
            for order in orders.values():
                result, _ = carried_out(requester, order)
                assert result.body["code"] == 200
            reboot = requester.command(
                "server.action", server_id=server_id, body={"os-start": None}
            )
            assert requester.result_of(reboot).body["code"] == 200
            requester.last_update_of("server", reboot)
        yield workshop, {**orders, "command": reboot, "server": server_id}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    assert (done.returncode, done.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_an_export_has_every_request_as_show_prints_it_and_no_secret(
    asked: tuple[Workshop, dict[str, Any]], tmp_path: Path
) -> None:
    workshop, ids = asked
    file = tmp_path / "all.jsonl"
    (row,) = rows(workshop.command("journal", "export", str(file), "-o", "json"))
    found = lines(file)
    assert row == {"file": str(file), "requests": 3, "bytes": file.stat().st_size}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["all.jsonl"]
    assert [one["name"] for one in found] == [
        ids["renewal"]["orderId"],
        ids["stop"]["flowId"],
        ids["command"],
    ]
    assert SECRET not in file.read_text()
    for one in found:
        (shown,) = rows(workshop.command("journal", "show", one["key"], "-o", "json"))
        assert {name: one[name] for name in shown} == shown
        # What was exported is shown as the journal itself shows it.
        again = workshop.command("journal", "show", one["name"], "--from", str(file))
        page = workshop.command("journal", "show", one["name"]).stdout
        age = r"\d+[smhd] ago"
        assert re.sub(age, "", again.stdout) == re.sub(age, "", page)
        assert rows(
            workshop.command("journal", "show", one["name"], "--from", str(file), "-o", "json")
        ) == [one]


def test_an_export_is_filtered_compressed_or_printed(
    asked: tuple[Workshop, dict[str, Any]], tmp_path: Path
) -> None:
    workshop, ids = asked
    packed = tmp_path / "renewals.jsonl.gz"
    done = workshop.command("journal", "export", str(packed), "--operation", "order.renew")
    assert done.returncode == 0, done.stderr
    with gzip.open(packed, "rt", encoding="utf-8") as file:
        (one,) = map(json.loads, file)
    assert one["name"] == ids["renewal"]["orderId"]
    shown = workshop.command("journal", "show", one["name"], "--from", str(packed))
    assert "200 OK" in shown.stdout
    printed = workshop.command("journal", "export", "-", "--before", "2100-01-01")
    assert json.loads(printed.stdout.partition("\n")[0])["name"] == one["name"]
    assert printed.stderr == "3 requests exported\n"
    assert workshop.command("journal", "export", "-", "--before", "1h").stdout == ""


def test_an_export_replaces_no_file_unless_told_and_leaves_none_behind_that_is_not_whole(
    asked: tuple[Workshop, dict[str, Any]], tmp_path: Path
) -> None:
    workshop, _ = asked
    file = tmp_path / "kept.jsonl"
    file.write_text("mine")
    done = workshop.command("journal", "export", str(file))
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr == f"{file} exists: name another file, or --force to replace it\n"
    assert file.read_text() == "mine"
    assert workshop.command("journal", "export", str(file), "--force").returncode == 0
    assert len(lines(file)) == 3
    done = workshop.command("journal", "export", str(tmp_path / "none" / "x.jsonl"))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "cannot be written: No such file or directory" in done.stderr
    done = workshop.command("journal", "show", "x", "--from", str(tmp_path / "none.jsonl"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    done = workshop.command("journal", "show", "no-such-key", "--from", str(file))
    assert (done.returncode, len(done.stderr.splitlines())) == (5, 1)
    file.write_text('{"name": "x"}\n')
    done = workshop.command("journal", "show", "x", "--from", str(file))
    assert done.stderr == f"line 1 of {file} is none of an export of this version\n"
    # What is no file is never replaced by one.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = workshop.command("journal", "export", str(pipe), "--force")
    assert (done.returncode, "is no file" in done.stderr, pipe.is_fifo()) == (7, True, True)
    link = tmp_path / "link.jsonl"
    link.symlink_to(file)
    assert workshop.command("journal", "export", str(link), "--force").returncode == 0
    assert (link.is_symlink(), len(lines(file))) == (True, 3)


def test_pruning_asks_or_is_told_and_a_pruned_order_is_answered_and_never_done_again(
    asked: tuple[Workshop, dict[str, Any]],
) -> None:
    workshop, ids = asked
    tenant, server = workshop.tenant(), ids["server"]
    done = workshop.command("journal", "prune", "--older-than", "0s")
    assert (done.returncode, done.stdout) == (7, "")
    assert "without a terminal --yes is required" in done.stderr
    assert workshop.command("journal", "prune").returncode == 2
    (none,) = rows(workshop.command("journal", "prune", "--before", "30d", "--yes", "-o", "json"))
    assert (none["orders"], none["pruned"]) == (0, 0)
    dry = ("journal", "prune", "--before", "0s", "--dry-run", "-o", "json")
    (would,) = rows(workshop.command(*dry))
    assert (would["orders"], would["bytes"] > 1000, "pruned" in would) == (2, True, False)
    before = tenant.server(server)["metadata"], tenant.actions(server)
    prune = ("journal", "prune", "--before", "0s", "--yes", "--vacuum", "--operator", "zhang")
    (did,) = rows(workshop.command(*prune, "-o", "json"))
    assert (did["orders"], did["pruned"]) == (2, 2)
    assert rows(workshop.command(*dry))[0]["orders"] == 0
    (shown,) = rows(workshop.command("journal", "show", ids["renewal"]["orderId"], "-o", "json"))
    assert (shown["effects"], shown["course"], shown["updates"]) == ([], [], [])
    assert shown["result"]["data"]["pruned"] is True
    page = workshop.command("journal", "show", ids["renewal"]["orderId"]).stdout
    assert "pruned" in page
    with Requester(workshop.broker_url) as requester:
        result = requester.order_result_of(requester.order(json.dumps(ids["renewal"])))
        assert reported(result) == (200, "success", True)
        (product,) = result.body["data"]["productSetList"][0]["productList"]
        assert (product["instanceId"], product["instanceStatus"]) == (server, "ACTIVE")
        result = requester.order_result_of(requester.order(json.dumps(ids["stop"])))
        (instance,) = result.body["data"]["instanceList"]
        assert (instance["instanceId"], instance["result"]) == (server, "success")
        for key in (ids["renewal"]["orderId"], ids["stop"]["flowId"]):
            told = requester.result_of(requester.command("order.show", key=key)).body
            assert (told["data"]["state"], told["data"]["progress"]) == ("done", None)
            assert told["data"]["result"]["data"]["pruned"] is True
        # Another content under the key is refused as before.
        result = requester.order_result_of(
            requester.order(json.dumps(ids["renewal"] | {"duration": "99"}))
        )
        assert result.body["data"]["reason"] == "conflicting_duplicate"
    assert (tenant.server(server)["metadata"], tenant.actions(server)) == before


def test_who_exported_and_pruned_what_is_on_record(
    asked: tuple[Workshop, dict[str, Any]], tmp_path: Path
) -> None:
    workshop, _ = asked
    file = tmp_path / "audited.jsonl"
    done = workshop.command("journal", "export", str(file), "--operator", "li")
    assert done.returncode == 0
    with closing(Operations(workshop.settings["ECS_JOURNAL_URL"], "ecs").open()) as journal:
        found = journal.audit(AuditFilter())
    exported = next(one for one in found if one.target == str(file))
    assert (exported.action, exported.operator) == ("journal export", "li")
    assert exported.details["requests"] == 3
    (pruned,) = [one for one in found if one.action == "journal prune"]
    assert (pruned.operator, pruned.details["orders"]) == ("zhang", 2)


def test_a_worker_prunes_by_itself_after_the_days_of_ecs_orders_kept(
    workshop: Workshop,
) -> None:
    workshop.worker()
    server_id = workshop.tenant().make_server(disk=None)
    with Requester(workshop.broker_url) as requester:
        for _ in range(2):
            carried_out(requester, paid("renew", server_id))
    assert workshop.running.terminate() == 0
    journal = workshop.folder / "journal.db"
    with sqlite3.connect(journal) as connection:
        (key,) = connection.execute("SELECT min(key) FROM requests").fetchone()
        connection.execute(
            "UPDATE requests SET updated_at = ? WHERE key = ?", (time.time() - 91 * 86400, key)
        )
    workshop.worker(ECS_ORDERS_KEPT="90")
    eventually(lambda: '"journal.pruned"' in workshop.logs())
    with sqlite3.connect(journal) as connection:
        pruned = connection.execute(
            "SELECT key FROM requests WHERE pruned_at IS NOT NULL"
        ).fetchall()
        kept = connection.execute("SELECT DISTINCT request_key FROM effects").fetchall()
    assert pruned == [(key,)]
    assert len(kept) == 1
    assert key not in kept[0]
    done = workshop.command("journal", "list", ECS_ORDERS_KEPT="0")
    assert done.returncode == 3
    assert done.stderr.startswith("ECS_ORDERS_KEPT: ")

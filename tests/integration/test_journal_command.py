"""`ecs-worker journal`, the real command beside a running worker."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.broker import PrivateBroker
from sandbox.documents import change_configure, new_order_id
from sandbox.openstack import SimulatedOpenStack
from sandbox.postgres import PrivatePostgres
from sandbox.requester import Requester
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def asked(
    request: pytest.FixtureRequest,
    broker: PrivateBroker,
    simulated: SimulatedOpenStack,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Workshop, dict[str, str]]]:
    """A worker that has answered an order, a command and a refused command, and goes on running."""
    folder = tmp_path_factory.mktemp(f"asked-{request.param}")
    url = broker.add_vhost(folder.name)
    declare(url, topology())
    with Workshop(url, simulated, folder) as workshop:
        if request.param == "postgresql":
            server: PrivatePostgres = request.getfixturevalue("postgres")
            workshop.settings["ECS_JOURNAL_URL"] = server.add_database(folder.name)
        workshop.worker()
        yield workshop, carried_out(workshop)


def carried_out(workshop: Workshop) -> dict[str, str]:
    tenant = workshop.tenant()
    server_id, order_id = tenant.make_server(disk=10), new_order_id()
    order = json.loads(change_configure(server_id, tenant.image, order_id=order_id)) | {
        "tenant_id": "tenant-a"
    }
    with Requester(workshop.broker_url) as requester:
        assert requester.order_result_of(requester.order(json.dumps(order))).body["code"] == 200
        reboot = requester.command(
            "server.action", server_id=server_id, body={"reboot": {"type": "HARD"}}
        )
        requester.result_of(reboot)
        requester.last_update_of("server", reboot)
        unknown = requester.command(
            "server.action", server_id=str(uuid.uuid4()), body={"os-start": None}
        )
        requester.result_of(unknown)
    return {"order": order_id, "reboot": reboot, "unknown": unknown, "server": server_id}


def shown(workshop: Workshop, *words: str) -> list[dict[str, Any]]:
    done = workshop.command("journal", *words, "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def test_the_history_of_an_order_is_complete(asked: tuple[Workshop, dict[str, str]]) -> None:
    workshop, ids = asked
    (found,) = shown(workshop, "show", ids["order"])
    assert found["key"].startswith("order:")
    assert found["key"].endswith(f":{ids['order']}")
    assert (found["operation"], found["state"], found["deliveries"]) == (
        "order.changeConfigure",
        "settled",
        1,
    )
    assert (found["result"]["code"], found["replays"]) == (200, [])
    effects = {one["name"]: one for one in found["effects"]}
    resize = effects[f"resize:{ids['server']}"]
    assert resize["outcome"] == {"status": 202}
    assert resize["request_id"].startswith("req-")
    assert resize["intended_at"].endswith("Z")
    assert not [name for name in effects if name.startswith("told:") or name == "plan"]
    assert [one["status"] for one in found["course"]][:2] == ["accepted", "validating"]
    assert found["updates"][-1]["final"] is True
    # By its whole key, too.
    assert shown(workshop, "show", found["key"]) == [found]


def test_a_history_is_printed_as_a_report(asked: tuple[Workshop, dict[str, str]]) -> None:
    workshop, ids = asked
    done = workshop.command("journal", "show", ids["order"])
    assert done.returncode == 0
    for words in (
        "settled: its result is published",
        "200 OK",
        f"resize:{ids['server']}",
        "done (202)",
        "status updates",
        "succeeded",
    ):
        assert words in done.stdout
    assert "eyJ" not in done.stdout
    refused = workshop.command("journal", "show", ids["unknown"]).stdout
    assert "no effects in OpenStack" in refused
    assert "101.001033" in refused


def test_a_key_that_is_not_known_is_one_line_and_exit_5(
    asked: tuple[Workshop, dict[str, str]],
) -> None:
    done = asked[0].command("journal", "show", "no-such-key")
    assert (done.returncode, done.stdout) == (5, "")
    assert len(done.stderr.splitlines()) == 1


def test_requests_are_listed_newest_first_and_filtered(
    asked: tuple[Workshop, dict[str, str]],
) -> None:
    workshop, ids = asked
    names = [row["key"].rpartition(":")[2] for row in shown(workshop, "list")]
    assert names == [ids["unknown"], ids["reboot"], ids["order"]]
    tenant = shown(workshop, "list")[0]["tenant"]
    for words, expected in (
        (["--operation", "server.action"], ["unknown", "reboot"]),
        (["--limit", "1"], ["unknown"]),
        (["--state", "running"], []),
        (["--tenant", tenant], ["unknown", "reboot", "order"]),
        (["--tenant", "another"], []),
        (["--since", "1h"], ["unknown", "reboot", "order"]),
        (["--since", "2100-01-01"], []),
    ):
        found = [row["key"].rpartition(":")[2] for row in shown(workshop, "list", *words)]
        assert found == [ids[one] for one in expected], words
    table = workshop.command("journal", "list").stdout
    assert ids["order"] in table
    assert "101.001033" in table


def test_wrong_options_are_a_usage_error(asked: tuple[Workshop, dict[str, str]]) -> None:
    for words in (["--state", "asleep"], ["--since", "yesterday"], ["--limit", "0"]):
        done = asked[0].command("journal", "list", *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert (
            done.stderr.rstrip().endswith("see ecs-worker journal list --help")
            or "--state" in done.stderr
        )
    for line in (
        ["nonsense"],
        ["journal", "show"],
        ["dead", "replay", "--rate", "fast"],
        ["check", "--nonsense"],
    ):
        done = asked[0].command(*line)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), (
            done.stderr
        )


def test_a_missing_journal_is_reported(workshop: Workshop) -> None:
    done = workshop.command("journal", "list")
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1
    down = workshop.command(
        "journal", "list", ECS_JOURNAL_URL="postgresql+psycopg://x:secret-word@127.0.0.1:1/none"
    )
    assert down.returncode == 4
    assert "secret-word" not in down.stderr + down.stdout

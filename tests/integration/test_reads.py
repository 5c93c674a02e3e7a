"""A read never waits behind changes: it has a queue, a window and places at OpenStack of its own."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support.orders import paid
from tests.support.stage import dying
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

#: More than are begun at once, and more than are delivered at once.
ACTIONS = 600
REBOOT = {"reboot": {"type": "HARD"}}


@pytest.fixture
def own_cloud() -> Iterator[SimulatedOpenStack]:
    with SimulatedOpenStack(pace=0.2) as cloud:
        yield cloud


def test_reads_are_answered_while_hundreds_of_actions_wait_for_nova(
    declared: str, own_cloud: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        Workshop(declared, own_cloud, tmp_path_factory.mktemp("reads")) as shop,
        Requester(declared) as requester,
    ):
        worker = shop.worker(ECS_PREFETCH="500", ECS_COMMAND_TIMEOUT="600")
        servers = shop.tenant().make_servers(60)
        # Nova answers no action until the reads have been answered.
        own_cloud.fault("api.nova", match="^POST .*/action", user="ecs-worker", held=True)
        held = {
            requester.command("server.action", server_id=servers[number % 60], body=REBOOT)
            for number in range(ACTIONS)
        }
        # All places for changes are taken that one tenant may have, and the window of their queue.
        eventually(lambda: sum("/action" in one for one in own_cloud.calls()) > 20)
        eventually(lambda: 0 < requester.depth("ecs.servers") <= ACTIONS - 500)
        reads = [
            requester.command("server.list"),
            requester.command("server.show", server_id=servers[0]),
            requester.command("server.tags.list", server_id=servers[1]),
            requester.command("image.list"),
            requester.command("image.list_private", tag="ECS"),
            requester.command("order.plan", order=paid("renew", servers[2], duration="1")),
        ]
        assert [requester.result_of(one).body["code"] for one in reads] == [200] * len(reads)
        assert not {one.correlation_id for one in requester.heard} & held
        assert not any("/action" in one for one in own_cloud.executed())
        worker.kill()
        own_cloud.clear_faults()


@pytest.mark.parametrize(
    ("point", "fault"),
    [("api.nova", {"match": "^GET", "held": True}), ("api.keystone", {"error": "down"})],
    ids=["cloud", "authentication"],
)
def test_a_read_is_answered_while_it_is_held_however_long_a_command_may_take(
    declared: str,
    own_cloud: SimulatedOpenStack,
    tmp_path: Path,
    point: str,
    fault: dict[str, Any],
) -> None:
    with (
        Workshop(declared, own_cloud, tmp_path) as shop,
        Requester(declared) as requester,
    ):
        constants = {"workers.pipeline.timeouts.HOLD": 2.0}
        worker = dying(shop, [], constants=constants, ECS_COMMAND_TIMEOUT="600")
        own_cloud.fault(point, **fault)
        answer = requester.result_of(requester.command("server.list"))
        assert answer.body["code"] == "101.001040"
        assert "request.requeued" not in shop.logs()
        own_cloud.clear_faults()
        worker.kill()


def test_reads_are_answered_while_the_journal_takes_nothing(workshop: Workshop) -> None:
    worker = workshop.worker()
    server_id = workshop.tenant().make_server()
    change = {"server_id": server_id, "body": REBOOT}
    with (
        Requester(workshop.broker_url) as requester,
        closing(sqlite3.connect(workshop.folder / "journal.db", isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        changes = [requester.command("server.action", **change)]
        eventually(lambda: any("journal is down" in one for one in worker.problems()), 30)
        changes.append(requester.command("server.action", **change))
        reads = [requester.command("server.list"), requester.command("image.list")]
        wrong = requester.command("server.show", server_id="none")
        assert [requester.result_of(one).body["code"] for one in reads] == [200, 200]
        assert requester.result_of(wrong).body["code"] == "101.001002"
        assert requester.depth("ecs.servers") == 1
        other.execute("ROLLBACK")
        assert [requester.result_of(one, 60).body["code"] for one in changes] == [200, 200]
    assert workshop.tenant().actions(server_id) == ["create", "reboot", "reboot"]

"""A tenant's flood holds up no other tenant, and what waits for its turn is lost by nothing."""

import json
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester, Source
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

pytestmark = pytest.mark.slow

HARD = {"reboot": {"type": "HARD"}}
STOP = {"os-stop": None}
START = {"os-start": {}}
#: A worker with places for few.
FEW = {"ECS_CONCURRENCY": "9", "ECS_OPENSTACK_THREADS": "9"}


def _waiting(shop: Workshop) -> int:
    (line,) = [one for one in shop.running.metrics().splitlines() if one.startswith("ecs_waiting ")]
    return int(float(line.split()[1]))


def _answered(requester: Requester) -> set[str | None]:
    return {one.correlation_id for one in requester.heard if one.source is Source.REPLY}


def test_a_flood_that_the_cloud_holds_up_keeps_nobody_else_waiting(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    """All places that a tenant can have are taken by calls that hang, and behind them wait more
    requests of its own than are begun at once: in front of the pipeline, and for OpenStack.
    """
    mine = workshop.tenant()
    other = workshop.tenant("tenant-b")
    stopped = other.make_server(disk=None, metadata={"charge_type": "monthly"})
    servers = [mine.make_server(disk=None) for _ in range(12)]
    workshop.worker(**FEW)
    with Requester(workshop.broker_url) as requester:
        for tenant, server_id in (("tenant-a", servers[0]), ("tenant-b", stopped)):
            asked = requester.command("server.tags.list", tenant=tenant, server_id=server_id)
            requester.result_of(asked)
        simulated.fault("api.nova", match=f"^POST .*({'|'.join(servers)})/action", delay=25)
        flood = {
            requester.command("server.action", server_id=one, body=HARD)
            for one in servers
            for _ in range(3)
        }
        eventually(lambda: _waiting(workshop) >= len(flood) - 8)
        body = {"server_id": stopped, "tenant": "tenant-b"}
        stop = requester.command("server.action", body=STOP, **body)
        shown = requester.command("server.list", tenant="tenant-b")
        own_read = requester.command("server.list")
        for one in (stop, shown, own_read):
            assert requester.result_of(one).body["code"] == 200
        assert requester.last_update_of("server", stop).body["status"] == "SHUTOFF"
        assert not _answered(requester) & flood, "the flood is still held"
        simulated.clear_faults()
        workshop.running.kill()  # what hangs is not waited for


def test_the_requests_of_a_tenant_and_their_copies_keep_their_order(workshop: Workshop) -> None:
    """One is begun at a time; each is published twice."""
    workshop.worker(ECS_CONCURRENCY="1")
    tenant = workshop.tenant()
    server_id = tenant.make_server(disk=None, metadata={"charge_type": "monthly"})
    with Requester(workshop.broker_url) as requester:
        sent = []
        for number, body in enumerate((STOP, START, HARD, STOP, START)):
            for copy in "ab":
                told = {"message_id": f"{number}-{server_id}", "correlation_id": f"{number}{copy}"}
                requester.command("server.action", server_id=server_id, body=body, **told)
                sent.append(told["correlation_id"])
        assert [requester.result_of(one, 60).body["code"] for one in sent] == [200] * 10
        assert [one for one in dict.fromkeys(_in_order(requester)) if one in sent] == sent
    assert tenant.actions(server_id)[1:] == ["stop", "start", "reboot", "stop", "start"]


def _in_order(requester: Requester) -> list[str | None]:
    return [one.correlation_id for one in requester.heard if one.source is Source.REPLY]


def test_what_was_requeued_is_not_overtaken_by_what_is_delivered_for_the_first_time(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    """The window holds a stop and what is before it, and is lost; the start is behind the window."""
    tenant = workshop.tenant()
    server_id = tenant.make_server(disk=None, metadata={"charge_type": "monthly"})
    others = [tenant.make_server(disk=None) for _ in range(4)]
    simulated.fault("api.nova", match="^POST .*/action", delay=0.5)
    few = {"ECS_CONCURRENCY": "1", "ECS_PREFETCH": "5"}
    workshop.worker(**few)
    with Requester(workshop.broker_url) as requester:
        for one in others:
            requester.command("server.action", server_id=one, body=HARD)
        stop = requester.command("server.action", server_id=server_id, body=STOP)
        start = requester.command("server.action", server_id=server_id, body=START)
        eventually(lambda: _waiting(workshop) == 4)
        workshop.running.kill()
        workshop.worker(**few)
        assert [requester.result_of(one, 60).body["code"] for one in (stop, start)] == [200, 200]
    assert tenant.actions(server_id)[1:] == ["stop", "start"]


def test_what_passes_its_own_deadline_while_it_waits_is_answered_and_not_begun(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    hanging, late = tenant.make_server(disk=None), tenant.make_server(disk=None)
    simulated.fault("api.nova", match=f"^GET .*{hanging}", delay=15)
    workshop.worker(ECS_CONCURRENCY="1")
    with Requester(workshop.broker_url) as requester:
        first = requester.command("server.action", server_id=hanging, body=HARD)
        headers = {"x-ecs-deadline": int(time.time()) + 3}
        second = requester.command("server.action", server_id=late, body=HARD, headers=headers)
        answer = requester.result_of(second).body
        assert (answer["code"], answer["data"]) == ("101.001040", {"reason": "deadline"})
        assert first not in _answered(requester)
        simulated.clear_faults()
        assert requester.result_of(first).body["code"] == 200
    assert tenant.actions(late) == ["create"]


# A window of requests that wait.


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateBroker]:
    """A node that may be restarted."""
    with PrivateBroker() as found:
        declare(found.url, topology())
        # RabbitMQ 3.10 does not bring back a quorum queue that was declared a moment before.
        time.sleep(6)
        yield found


@pytest.fixture
def shop_of_node(
    node: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    with Workshop(node.url, simulated, tmp_path_factory.mktemp("window")) as found:
        yield found
        simulated.clear_faults()


def _killed(shop: Workshop, _: PrivateBroker) -> None:
    shop.running.kill()
    shop.worker(**FEW)


def _drained(shop: Workshop, _: PrivateBroker) -> None:
    ending = shop.running
    shop.worker(**FEW)
    ending.signal(signal.SIGTERM)
    assert ending.terminate() == 0


def _restarted(_: Workshop, node: PrivateBroker) -> None:
    node.restart()


def _without_journal(shop: Workshop, _: PrivateBroker) -> None:
    with closing(sqlite3.connect(shop.folder / "journal.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        eventually(lambda: any("journal is down" in one for one in shop.running.problems()), 30)
        other.execute("ROLLBACK")


@pytest.mark.parametrize("happens", [_killed, _drained, _restarted, _without_journal])
def test_a_window_of_waiting_requests_survives(
    happens: Callable[[Workshop, PrivateBroker], None],
    shop_of_node: Workshop,
    node: PrivateBroker,
    simulated: SimulatedOpenStack,
) -> None:
    """Each request has its one result and its one effect, and none is parked."""
    shop, tenant = shop_of_node, shop_of_node.tenant()
    shop.settings["ECS_COMMAND_TIMEOUT"] = "120"
    servers = [tenant.make_server(disk=None) for _ in range(12)]
    simulated.fault("api.nova", match="^POST .*/action", delay=0.5)
    shop.worker(**FEW)
    with Requester(shop.broker_url) as requester:
        sent = [
            requester.command("server.action", server_id=one, body=HARD)
            for _ in range(3)
            for one in servers
        ]
        eventually(lambda: _waiting(shop) >= 12)
        happens(shop, node)
    with Requester(shop.broker_url) as requester:
        eventually(lambda: all(tenant.actions(one).count("reboot") == 3 for one in servers), 120)
        # Whoever asks again gets the one result.
        for one, server_id in zip(sent, servers * 3, strict=True):
            requester.command("server.action", server_id=server_id, body=HARD, message_id=one)
        assert {requester.result_of(one, 60).body["code"] for one in sent} == {200}
        assert requester.depth("ecs.dead") == 0
    assert [tenant.actions(one).count("reboot") for one in servers] == [3] * len(servers)


def test_large_bodies_that_wait_for_memory_come_again_once_and_hold_up_no_read(
    workshop: Workshop, broker: PrivateBroker, simulated: SimulatedOpenStack
) -> None:
    """There is room for 64 of them; the broker gives up on what is requeued four times."""
    vhost, pad = workshop.broker_url.rpartition("/")[2], ["x" * 60_000] * 8
    limit = json.dumps({"delivery-limit": 3})
    arguments = ("--vhost", vhost, "--apply-to", "queues", "limit", r"^ecs\.servers$", limit)
    broker.rabbitmqctl("set_policy", *arguments)
    server_id = workshop.tenant().make_server(disk=None)
    simulated.fault("api.nova", match=f"^GET .*{server_id}", delay=1)
    body = {"os-start": {}}
    workshop.worker(ECS_OPENSTACK_THREADS="4")
    with Requester(workshop.broker_url) as requester:
        flood = {
            requester.command("server.action", server_id=server_id, body=body, pad=pad)
            for _ in range(130)
        }
        read = requester.command("image.list", pad=["x" * 6_000])
        assert requester.result_of(read).body["code"] == 200
        assert len(_answered(requester) & flood) < 40
        simulated.clear_faults()
        results = [requester.result_of(one, 90).body for one in flood]
        assert {one["code"] for one in results} == {"101.001012"}, "each was judged"
        assert requester.depth("ecs.dead") == 0

"""Workers of an earlier version are replaced one by one while requests come, and come back. Every
request has one result, nothing is done twice, nothing is dead-lettered.
"""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.postgres import PrivatePostgres
from sandbox.requester import Requester
from sandbox.worker import WorkerProcess
from tests.support.traffic import Traffic
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from tests.upgrade.versions import BEFORE_1_0, VERSION_1_0, WITHOUT_READS, unpack


@pytest.fixture
def old_version(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder of an earlier version, whose commit is the parameter."""
    return unpack(request.param, tmp_path)


@pytest.fixture
def own_cloud() -> Iterator[SimulatedOpenStack]:
    with SimulatedOpenStack(pace=0.2) as cloud:
        yield cloud


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("old_version", [WITHOUT_READS], indirect=True)
def test_old_workers_beside_new_ones_lose_nothing_and_do_nothing_twice(
    vhost: str, own_cloud: SimulatedOpenStack, tmp_path: Path, old_version: Path
) -> None:
    with Workshop(vhost, own_cloud, tmp_path) as shop:
        shown = shop.command("topology", "show", "-o", "json", PYTHONPATH=str(old_version))
        assert "server.#" in shown.stdout
        assert "ecs.reads" not in shown.stdout
        tenant = shop.tenant()
        servers = tenant.make_servers(8)
        renewed = [tenant.make_server(disk=None) for _ in range(3)]
        old = shop.worker(PYTHONPATH=str(old_version))
        with Requester(vhost) as requester:
            traffic = Traffic(requester, servers, renewed)
            traffic.renew()
            traffic.until(lambda: len(requester.heard) > 20, 30)
            new = shop.worker(wait=False)
            traffic.renew()
            traffic.until(lambda: not new.problems(), 30)
            # The old one has the retired bindings made again: a read comes to both queues.
            beside = len(traffic.reads)
            traffic.until(
                lambda: any(len(traffic.answers(one)) > 1 for one in traffic.reads[beside:]), 60
            )
            old.signal(signal.SIGTERM)
            traffic.renew()
            traffic.until(lambda: not old.alive, 60)
            for _ in range(5):
                traffic.ask()
            everything = [*traffic.reads, *traffic.reboots, *traffic.tags, *traffic.orders]
            requester.wait(lambda _: all(map(traffic.answers, everything)), 180)
            for message_id, server_id in traffic.reboots.items():
                requester.last_update_of("server", message_id, resource_id=server_id)
            requester.listen(1.0)

            for one in everything:
                found = traffic.answers(one)
                assert {answer.body["code"] for answer in found} == {200}
                assert len({answer.properties["message_id"] for answer in found}) == 1
            for one in (*traffic.reboots, *traffic.tags, *traffic.orders):
                assert len(traffic.answers(one)) == 1
            for one in traffic.reboots:
                assert sum(update.is_final for update in requester.updates_of(one)) == 1
            for server_id in servers:
                asked = [one for one in traffic.reboots.values() if one == server_id]
                assert tenant.actions(server_id) == ["create", *["reboot"] * len(asked)]
            done = own_cloud.executed()
            assert sum("PUT" in one and "/tags" in one for one in done) == len(traffic.tags)
            assert sum(one.endswith("/metadata metadata") for one in done) == len(traffic.orders)
            assert [requester.depth(one) for one in ("ecs.dead", "ecs.undelivered")] == [0, 0]

            # With the old one gone, no binding of its stays: a read comes once.
            assert shop.command("topology", "apply").returncode == 0
            last = [requester.command("server.list") for _ in range(20)]
            requester.wait(lambda _: all(map(traffic.answers, last)), 30)
            eventually(lambda: requester.depth("ecs.servers") == 0)
            requester.listen(1.0)
            assert [len(traffic.answers(one)) for one in last] == [1] * len(last)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("old_version", [BEFORE_1_0, VERSION_1_0], indirect=True)
def test_an_upgrade_can_be_taken_back_and_done_again_under_traffic(
    vhost: str,
    own_cloud: SimulatedOpenStack,
    tmp_path: Path,
    old_version: Path,
    postgres: PrivatePostgres,
) -> None:
    with Workshop(vhost, own_cloud, tmp_path) as shop:
        journal = postgres.add_database(f"upgrade_{tmp_path.name.replace('-', '_')}"[:60])
        shop.settings["ECS_JOURNAL_URL"] = journal
        before = {"PYTHONPATH": str(old_version)}
        tenant = shop.tenant()
        servers = tenant.make_servers(6)
        renewed = [tenant.make_server(disk=None) for _ in range(5)]
        first = shop.worker(**before)
        earlier = _revision(journal)
        with Requester(vhost) as requester:
            traffic = Traffic(requester, servers, renewed)

            def while_asking(worker: WorkerProcess, *, ready: bool) -> None:
                """An order and other requests, until a worker is ready, or has ended."""
                traffic.renew()
                traffic.until(lambda: not worker.problems() if ready else not worker.alive, 60)

            traffic.renew()
            traffic.until(lambda: len(requester.heard) > 20, 30)
            # Forward: the new one migrates the journal, and the old one goes on beside it.
            new = shop.worker(wait=False)
            while_asking(new, ready=True)
            later = _revision(journal)
            assert (later > earlier) if old_version.name == BEFORE_1_0 else (later >= earlier)
            # Another old one starts on the journal as it is now.
            restarted = shop.worker(wait=False, **before)
            traffic.until(lambda: not restarted.problems(), 60)
            first.signal(signal.SIGTERM)
            traffic.until(lambda: not first.alive, 60)
            # Back: the old one alone.
            new.signal(signal.SIGTERM)
            while_asking(new, ready=False)
            while_asking(restarted, ready=True)
            known = traffic.orders[0]
            requester.order_result_of(known)
            assert _revision(journal) == later
            # And forward again.
            again = shop.worker(wait=False)
            traffic.until(lambda: not again.problems(), 60)
            restarted.signal(signal.SIGTERM)
            while_asking(restarted, ready=False)
            for _ in range(3):
                traffic.ask()

            everything = [*traffic.reads, *traffic.reboots, *traffic.tags, *traffic.orders]
            requester.wait(lambda _: all(map(traffic.answers, everything)), 180)
            for message_id, server_id in traffic.reboots.items():
                requester.last_update_of("server", message_id, resource_id=server_id)
            requester.listen(1.0)
            assert len(traffic.orders) == len(renewed)
            assert {one: [a.body["code"] for a in traffic.answers(one)] for one in everything} == {
                one: [200] for one in everything
            }
            for one in traffic.reboots:
                assert sum(update.is_final for update in requester.updates_of(one)) == 1
            for server_id in servers:
                asked = [one for one in traffic.reboots.values() if one == server_id]
                assert tenant.actions(server_id) == ["create", *["reboot"] * len(asked)]
            done = own_cloud.executed()
            assert sum("PUT" in one and "/tags" in one for one in done) == len(traffic.tags)
            assert sum(one.endswith("/metadata metadata") for one in done) == len(traffic.orders)
            assert [requester.depth(one) for one in ("ecs.dead", "ecs.undelivered")] == [0, 0]
        listed = shop.command("journal", "list", "--limit", "1000", "-o", "json")
        assert listed.returncode == 0, listed.stderr
        found = json.loads(listed.stdout)
        assert {one["state"] for one in found} == {"settled"}
        assert len(found) == len(everything) - len(traffic.reads)
        # As the page says: from 1.0.0 on, commands read later journals.
        theirs = shop.command("journal", "list", "--limit", "1000", "-o", "json", **before)
        if old_version.name == BEFORE_1_0:
            assert theirs.returncode == 4
            assert f"the journal is of revision {later}" in theirs.stderr
        else:
            assert theirs.returncode == 0, theirs.stderr
            assert {one["state"] for one in json.loads(theirs.stdout)} == {"settled"}


def _revision(journal: str) -> str:
    """The migration that a journal is at."""
    with psycopg.connect(journal.replace("+psycopg", "")) as connection:
        (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    return str(found[0])

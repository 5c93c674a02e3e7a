"""Orders that come again to a worker whose journal was lost, or restored from a backup that is
older than they are.
"""

import json
import signal
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.broker import PrivateBroker
from sandbox.documents import change_configure
from sandbox.requester import Heard, Requester
from tests.openstack.conftest import Cloud
from tests.support.dying_worker import Hold, Instant
from tests.support.invariants import Report, check_effects
from tests.support.kinds import (
    Ask,
    Asked,
    change,
    create_image,
    new_servers,
    renewal,
    taken_down,
    unsubscribe,
)
from tests.support.new_orders import new, quota, records
from tests.support.orders import carried_out, paid, product_of, reported, soft_down
from tests.support.stage import dying
from tests.support.tenant import Tenant
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

pytestmark = pytest.mark.slow

#: Every kind of order, and the command that leaves a mark.
KINDS: dict[str, Ask] = {
    "changeConfigure": change("changed", "resize"),
    "renew": renewal("renewed", "renew"),
    "new": new_servers("made", "create:1", 2, in_subnet=True),
    "unsubscribe": unsubscribe("unsubscribed", "delete:"),
    "stop": taken_down("taken-down", "stopServer", "os-stop"),
    "resume": taken_down("resumed", "resumeServer", "os-start"),
    "delete": unsubscribe("deleted", "delete:", unpaid=True),
    "createImage": create_image,
}
#: Where a worker dies: what is known only to the cloud then, for the journal goes with it.
DEATHS: dict[str, Ask] = {
    "resize": change("resize", "resize"),
    "extend": change("extend", "extend"),
    "confirm": change("confirm", "confirm"),
    "fee data": change("fee-data", "metadata"),
    "date": renewal("date", "renew"),
    "start": renewal("start", "os-start"),
    "volume": new_servers("volume", "volume:2.1", 2),
    "port": new_servers("port", "port:2", 2, in_subnet=True),
    "server": new_servers("server", "create:3", 5),
    "dates": new_servers("dates", "metadata:", 2),
    "delete": unsubscribe("delete", "delete:"),
    "mark": taken_down("mark", "stopServer", "mark"),
}


#: Where orders are when the backup is made: before this effect, and after those that come before
#: it.
MIDDLES: dict[str, Ask] = {
    "extend": change("mid-extend", "extend"),
    "confirm": change("mid-confirm", "confirm"),
    "fee data": change("mid-fee-data", "metadata"),
    "start": renewal("mid-start", "os-start"),
    "unmark": renewal("mid-unmark", "unmark"),
    "server": new_servers("mid-server", "create:2", 2),
    "dates": new_servers("mid-dates", "metadata:", 2),
    "delete": unsubscribe("mid-delete", "delete:", locked=False),
    "mark": taken_down("mid-mark", "stopServer", "mark"),
    "resume": taken_down("mid-resume", "resumeServer", "unmark"),
}


@pytest.fixture
def own(broker: PrivateBroker, cloud: Cloud, tmp_path: Path) -> Iterator[Workshop]:
    url = broker.add_vhost(f"marks-{tmp_path.name}")
    declare(url, topology())
    with Workshop(url, cloud, tmp_path) as found:
        yield found


@pytest.fixture
def backup(own: Workshop) -> Path:
    """A backup of a journal that knows of another order."""
    server_id = own.tenant().make_server(disk=None)
    own.worker()
    with Requester(own.broker_url) as requester:
        result, _ = carried_out(requester, paid("renew", server_id))
    assert reported(result) == (200, "success", True)
    assert own.running.terminate() == 0
    return copied(own)


def copied(own: Workshop) -> Path:
    copy = own.folder / "backup.db"
    with sqlite3.connect(own.folder / "journal.db") as journal, sqlite3.connect(copy) as kept:
        journal.backup(kept)
    return copy


def lose_journal(own: Workshop, backup: Path | None = None) -> None:
    """Have no worker and no journal any more, or an older one."""
    if own.running.alive:
        assert own.running.terminate() == 0
    for suffix in ("", "-wal", "-shm"):
        (own.folder / f"journal.db{suffix}").unlink(missing_ok=True)
    if backup is not None:
        (own.folder / "journal.db").write_bytes(backup.read_bytes())


def answered(requester: Requester, asked: Asked) -> Heard:
    if asked.is_order:
        return requester.order_result_of(asked.message_id, 240)
    return requester.result_of(asked.message_id, 240)


def ask_again(own: Workshop, asked: list[Asked], lose: Callable[[], None]) -> list[list[Heard]]:
    """The results of all that is asked for, from a worker with its journal and from one without."""
    found = []
    for loses in (False, True):
        if loses:
            lose()
        own.worker()
        with Requester(own.broker_url) as requester:
            for one in asked:
                one.publish(requester)
            found.append([answered(requester, one) for one in asked])
    return found


def gist(result: Heard) -> Any:
    """Return what a result says but for times, request ids and what there was before."""
    body = result.body
    if "productSetList" in body["data"]:
        fields = ("instanceId", "instanceStatus")
        return body["code"], [
            (
                one["productSetStatus"],
                [[product[name] for name in fields] for product in one["productList"]],
            )
            for one in body["data"]["productSetList"]
        ]
    if "instanceList" in body["data"]:
        fields = ("instanceId", "instanceStatus", "result")
        return body["code"], [
            [one[name] for name in fields] for one in body["data"]["instanceList"]
        ]
    return body


def is_changed(result: Heard) -> bool | None:
    sets = result.body["data"].get("productSetList")
    return all(one["resourceChanged"] for one in sets) if sets else None


def check_cloud(asked: list[Asked], tenant: Tenant, cloud: Any) -> None:
    """Nothing was executed twice, and everything is as it must be (I2)."""
    executed, found = getattr(cloud, "executed", list)(), Report()
    for one in asked:
        check_effects(one, tenant, executed or None, found)
    assert not found.broken, "\n".join(found.broken)


def url_of(own: Workshop, postgres: Any) -> str:
    url: str = postgres.add_database(f"marks_{uuid.uuid4().hex[:8]}")
    own.settings["ECS_JOURNAL_URL"] = url
    return url


@pytest.mark.once_on_real
@pytest.mark.timeout(600)
@pytest.mark.parametrize("journal", ["lost", "restored", "a fresh database"])
def test_every_kind_of_order_has_its_result_again_and_nothing_is_done_twice(
    own: Workshop, cloud: Cloud, journal: str, request: pytest.FixtureRequest
) -> None:
    older = request.getfixturevalue("backup") if journal == "restored" else None
    if journal == "a fresh database":
        postgres = request.getfixturevalue("postgres")
        url_of(own, postgres)

        def lose() -> None:
            assert own.running.terminate() == 0
            url_of(own, postgres)

    else:

        def lose() -> None:
            lose_journal(own, older)

    tenant = own.tenant()
    asked = {name: ask(tenant, cloud) for name, ask in KINDS.items()}
    first, second = ask_again(own, list(asked.values()), lose)
    check_cloud(list(asked.values()), tenant, cloud)
    for name, one, other in zip(asked, first, second, strict=True):
        assert gist(one) == gist(other), name
        # That a server is gone tells not by which order.
        assert is_changed(other) is (False if name == "unsubscribe" else is_changed(one)), name


@pytest.mark.long_on_real
@pytest.mark.timeout(600)
def test_what_a_dead_worker_had_done_is_not_done_again_by_one_without_its_journal(
    own: Workshop, cloud: Cloud
) -> None:
    """Each order is cut off as the cloud has carried out another of its calls."""
    tenant = own.tenant()
    asked = {name: ask(tenant, cloud) for name, ask in DEATHS.items()}
    holds = [Hold(one.message_id, Instant.CALL_EXECUTED, one.effect) for one in asked.values()]
    worker = dying(own, holds)
    with Requester(own.broker_url) as requester:
        for one in asked.values():
            one.publish(requester)
        eventually(lambda: not worker.alive, 240)
        assert (own.folder / "held").exists(), (own.folder / "missing").read_text()
        lose_journal(own)
        own.worker()
        results = {name: answered(requester, one) for name, one in asked.items()}
    assert {name: one.body["code"] for name, one in results.items()} == dict.fromkeys(asked, 200)
    check_cloud(list(asked.values()), tenant, cloud)


@pytest.mark.long_on_real
@pytest.mark.timeout(600)
def test_a_backup_from_the_middle_of_an_order_has_nothing_done_twice(
    own: Workshop, cloud: Cloud
) -> None:
    """Its plan and its first steps are known, and not that all of it was done since."""
    tenant = own.tenant()
    asked = {name: ask(tenant, cloud) for name, ask in MIDDLES.items()}
    holds = [Hold(one.message_id, Instant.EFFECT_NOT_BEGUN, one.effect) for one in asked.values()]
    worker = dying(own, holds, stay=True)
    with Requester(own.broker_url) as requester:
        for one in asked.values():
            one.publish(requester)
        eventually((own.folder / "held").exists, 240)
        middle = copied(own)
        worker.signal(signal.SIGUSR1)
        first = {name: answered(requester, one) for name, one in asked.items()}
    dates = [one["metadata"].get("next_fee_time") for one in tenant.servers_ever()]
    lose_journal(own, middle)
    own.worker()
    with Requester(own.broker_url) as requester:
        for one in asked.values():
            one.publish(requester)
        second = {name: answered(requester, one) for name, one in asked.items()}
    check_cloud(list(asked.values()), tenant, cloud)
    assert {name: gist(one) for name, one in first.items()} == {
        name: gist(one) for name, one in second.items()
    }
    assert dates == [one["metadata"].get("next_fee_time") for one in tenant.servers_ever()]


@pytest.mark.long_on_real
@pytest.mark.timeout(300)
def test_what_later_orders_have_made_of_a_server_stays(own: Workshop, cloud: Cloud) -> None:
    tenant = own.tenant()
    resized, renewed, stopped = (tenant.make_server(disk=None) for _ in range(3))
    tenant.set_metadata(renewed, next_fee_time="2099-01-31 08:30:00")
    orders = [
        sized(resized, "S1.medium.2", 2, 4),
        sized(resized, "S1.large.2", 4, 8),
        paid("renew", renewed, duration="1", durationUnit="M"),
        paid("renew", renewed, duration="2", durationUnit="M"),
        soft_down((stopped, "stopServer"), tenant="tenant-a"),
        paid("renew", stopped),
        soft_down((stopped, "resumeServer"), tenant="tenant-a"),
    ]
    own.worker()
    with Requester(own.broker_url) as requester:
        first = [carried_out(requester, one)[0] for one in orders]
        until = tenant.server(renewed)["metadata"]["next_fee_time"]
        assert until == "2099-04-30 08:30:00"
        before = {one: tenant.actions(one) for one in (resized, renewed, stopped)}
    lose_journal(own)
    own.worker()
    with Requester(own.broker_url) as requester:
        again = [carried_out(requester, one)[0] for one in orders]
    assert [one.body["code"] for one in (*first, *again)] == [200] * 14
    assert {one: tenant.actions(one) for one in (resized, renewed, stopped)} == before
    assert tenant.server(resized)["flavor"]["original_name"] == "S1.large.2"
    assert tenant.server(renewed)["metadata"]["next_fee_time"] == until
    assert tenant.server(stopped)["status"] == "ACTIVE"
    assert [is_changed(one) for one in again[:4]] == [True] * 4
    # From when it was moved nobody knows any more; where it is now, everybody.
    product = product_of(again[3])
    assert product["before"] is None
    assert product["after"]["feeData"]["next_fee_time"] == until


def sized(server_id: str, flavor: str, cpu: int, memory: int) -> dict[str, Any]:
    """A changeConfigure order without a time of payment: any of them might be the newest."""
    order = paid("changeConfigure", server_id, statusTime="")
    items = (("std", flavor), ("CPU", str(cpu)), ("memory", str(memory)))
    listed = [{"code": code, "value": value, "name": code} for code, value in items]
    order["productList"] = [{**order["productList"][0], "itemList": listed}]
    return order


@pytest.mark.long_on_real
@pytest.mark.timeout(300)
def test_servers_that_were_made_count_though_one_is_gone_and_the_quota_is_used_up(
    own: Workshop, cloud: Cloud
) -> None:
    """Made are two, one is unsubscribed; the order comes again to a worker that knows of neither."""
    tenant, admin = own.tenant(), own.tenant("admin")
    order = new(tenant, count=2, chosen={"instanceName": f"pair-{uuid.uuid4().hex[:6]}"})
    before = records(tenant)
    own.worker()
    with Requester(own.broker_url) as requester:
        first, _ = carried_out(requester, order)
        ids = [product_of(first, number)["instanceId"] for number in range(2)]
        for one in ids:
            tenant.adopt(one)
        dates = tenant.server(ids[0])["metadata"]
        carried_out(requester, paid("unsubscribe", ids[1]))
    lose_journal(own)
    own.worker()
    with Requester(own.broker_url) as requester, quota(tenant, admin, "compute", instances=0):
        again, statuses = carried_out(requester, order)
    assert reported(again) == reported(first) == (200, "success", True)
    assert statuses[-1] == "succeeded"
    shown = [product_of(again, number) for number in range(2)]
    assert [one["instanceId"] for one in shown] == [ids[0], None]
    assert [one["instanceStatus"] for one in shown] == ["ACTIVE", None]
    assert (records(tenant) - before).servers == {ids[0]}
    assert tenant.server(ids[0])["metadata"] == dates


@pytest.mark.timeout(300)
def test_a_part_that_cannot_become_whole_is_taken_away(own: Workshop, cloud: Cloud) -> None:
    """The worker dies, its journal is lost, and there is no room for the rest any more."""
    tenant, admin = own.tenant(), own.tenant("admin")
    before = records(tenant)
    asked = new_servers("part", "create:2", 2, in_subnet=True)(tenant, cloud)
    holds = [
        Hold(asked.message_id, Instant.CALL_EXECUTED, "^create:1$"),
        Hold(asked.message_id, Instant.EFFECT_NOT_BEGUN, "^create:2$"),
    ]
    worker = dying(own, holds)
    with Requester(own.broker_url) as requester:
        asked.publish(requester)
        eventually(lambda: not worker.alive, 120)
        made = records(tenant) - before
        assert (len(made.servers), len(made.volumes)) == (1, 4)
        lose_journal(own)
        with quota(tenant, admin, "compute", instances=0):
            own.worker()
            result = answered(requester, asked)
    assert reported(result) == ("101.001040", "fail", False)
    assert result.body["data"]["reason"] == "quota"
    left = records(tenant) - before
    assert (left.servers, left.volumes) == (frozenset(), frozenset())
    assert not left.ports


@pytest.mark.timeout(300)
def test_a_server_that_an_earlier_softdown_has_marked_is_not_stopped_twice(
    own: Workshop, cloud: Cloud
) -> None:
    """Its owner had started it himself, and the mark stayed; what was stopped again has been paid
    for since.
    """
    tenant = own.tenant()
    server_id = tenant.make_server(disk=None)
    tenant.set_metadata(server_id, soft_down="stopped")
    order = soft_down((server_id, "stopServer"), tenant="tenant-a")
    own.worker()
    with Requester(own.broker_url) as requester:
        results = [carried_out(requester, one)[0] for one in (order, paid("renew", server_id))]
    lose_journal(own)
    own.worker()
    with Requester(own.broker_url) as requester:
        results.append(carried_out(requester, order)[0])
    assert [one.body["code"] for one in results] == [200] * 3
    assert tenant.server(server_id)["status"] == "ACTIVE"
    assert tenant.actions(server_id) == ["create", "stop", "start"]


@pytest.mark.timeout(300)
def test_a_renewal_that_failed_leaves_no_mark_and_may_come_again(own: Workshop, cloud: Any) -> None:
    tenant = own.tenant()
    server_id = tenant.make_server(disk=None, metadata={"next_fee_time": "2099-12-01 00:00:00"})
    tenant.stop(server_id)
    tenant.set_metadata(server_id, soft_down="stopped")
    before = tenant.server(server_id)["metadata"]
    order = paid("renew", server_id, duration="1", durationUnit="M")
    cloud.fault("virt.power_on", match=server_id, error="no power", times=1)
    own.worker()
    with Requester(own.broker_url) as requester:
        result, _ = carried_out(requester, order)
    assert reported(result) == ("101.001040", "fail", False)
    assert tenant.server(server_id)["metadata"] == before
    lose_journal(own)
    own.worker()
    with Requester(own.broker_url) as requester:
        result, _ = carried_out(requester, order)
    assert reported(result) == (200, "success", True)
    metadata = tenant.server(server_id)["metadata"]
    assert (metadata["next_fee_time"], "soft_down" in metadata) == ("2100-01-01 00:00:00", False)


@pytest.mark.timeout(300)
def test_a_resize_that_somebody_else_began_is_not_gone_on_with(own: Workshop, cloud: Cloud) -> None:
    """The tenant's own, which waits to be confirmed, to the very flavor that is ordered."""
    tenant = own.tenant()
    server_id = tenant.make_server(disk=10)
    tenant.act(server_id, {"resize": {"flavorRef": tenant.flavors["S1.medium.2"]}})
    tenant.wait(server_id, lambda one: one["status"] == "VERIFY_RESIZE")
    order = json.loads(change_configure(server_id, tenant.image))
    own.worker()
    with Requester(own.broker_url) as requester:
        result, _ = carried_out(requester, order | {"tenant_id": "tenant-a"})
    assert reported(result) == ("101.001012", "fail", False)
    assert tenant.server(server_id)["status"] == "VERIFY_RESIZE"
    tenant.act(server_id, {"confirmResize": None})
    tenant.wait(server_id, lambda one: one["status"] == "ACTIVE")

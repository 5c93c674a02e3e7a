"""Workers of two regions on one virtual host, each with its namespace, its cloud and its journal."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.broker import PrivateBroker
from sandbox.documents import REGION
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support.orders import ended, paid, product_of, publish, reported, soft_down
from tests.support.tenant import Tenant
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.names import Names
from workers.amqp.topology import declare, topology

pytestmark = pytest.mark.slow

NORTH, SOUTH = "cn-north-3", "cn-south-1"


class Region:
    """A worker's surroundings in one region."""

    def __init__(self, shop: Workshop, namespace: str) -> None:
        self.shop = shop
        self.namespace = namespace
        # By its clouds.yaml alone.
        del shop.settings["ECS_REGION"]
        shop.settings |= {"ECS_NAMESPACE": namespace, "ECS_RETRY_DELAYS": "2"}
        declare(shop.broker_url, topology((2,), Names(namespace)))

    @property
    def dead(self) -> str:
        return f"{self.namespace}.dead"

    def requester(self) -> Requester:
        return Requester(self.shop.broker_url, namespace=self.namespace)

    def tenant(self) -> Tenant:
        return self.shop.tenant()


@pytest.fixture(scope="module")
def clouds() -> Iterator[tuple[SimulatedOpenStack, SimulatedOpenStack]]:
    with SimulatedOpenStack(0.2, NORTH) as north, SimulatedOpenStack(0.2, SOUTH) as south:
        yield north, south


@pytest.fixture
def regions(
    vhost: str,
    clouds: tuple[SimulatedOpenStack, SimulatedOpenStack],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Region, Region]]:
    north_folder, south_folder = (tmp_path_factory.mktemp(one) for one in ("north", "south"))
    with (
        Workshop(vhost, clouds[0], north_folder) as north,
        Workshop(vhost, clouds[1], south_folder) as south,
    ):
        yield Region(north, "north"), Region(south, "south_2")


def renewal(server_id: str, region: str, **fields: Any) -> dict[str, Any]:
    order = paid("renew", server_id, duration="1", durationUnit="M", **fields)
    order["productList"][0]["region"] = region
    return order


def test_two_regions_share_a_virtual_host_and_each_carries_out_its_own(
    regions: tuple[Region, Region], broker: PrivateBroker
) -> None:
    north, south = regions
    north.shop.worker()
    south.shop.worker()
    here, there = north.tenant().make_server(disk=None), south.tenant().make_server(disk=None)
    with north.requester() as norths, south.requester() as souths:
        for requester, server_id, region in ((norths, here, "CN-North-3"), (souths, there, SOUTH)):
            result, _ = ended(requester, publish(requester, renewal(server_id, region)))
            assert reported(result) == (200, "success", True)
            shown = requester.result_of(requester.command("server.show", server_id=server_id)).body[
                "data"
            ]["server"]
            assert shown["regionId"] == region.lower()
        assert (len(norths.heard), len(souths.heard)) == (len(norths.heard), len(norths.heard))

        # One of the other region's, sent into the wrong namespace.
        executed, heard = north.shop.cloud.executed(), len(souths.heard)
        for order in (renewal(there, SOUTH), soft_down((there, "delete"), region=SOUTH)):
            result, statuses = ended(norths, publish(norths, order))
            assert (result.body["code"], result.body["data"]["reason"], statuses) == (
                "101.001002",
                "region",
                ["failed"],
            )
        souths.listen(0.5)
        assert len(souths.heard) == heard, "the other region's users hear nothing of it"
        assert [
            one
            for one in north.shop.cloud.executed()[len(executed) :]
            if not one.startswith("keystone")
        ] == []
        assert (norths.depth(north.dead), norths.depth(south.dead)) == (2, 0)
        assert south.tenant().actions(there) == ["create"]

        # The worker's own queues are those of its namespace, with retry queues of whatever delay.
        for queue in (
            "north.orders",
            "north.order-results",
            "north.retry.2",
            "north.retry.77",
            "north.dead",
        ):
            message_id = norths.command("server.show", server_id=here, reply_to=queue)
            eventually(lambda one=message_id: one in parked_ids(north), 10)
        # An unknown command is undelivered in its own namespace.
        lost = norths.publish("north.commands", "volume.create", {"operation": "volume.create"})
        eventually(lambda: lost in parked_ids(north), 10)
        assert parked_ids(south) == {}
    vhost = north.shop.broker_url.rpartition("/")[2]
    for what in ("list_queues", "list_exchanges"):
        listed = broker.rabbitmqctl("-q", "--no-table-headers", what, "-p", vhost, "name").split()
        assert [one for one in listed if one.startswith("ecs.")] == []


def parked_ids(region: Region) -> dict[str, str]:
    """Ids and origins of what is parked in a region's namespace."""
    done = region.shop.command("dead", "list", "-o", "json")
    assert done.returncode == 0, done.stderr
    return {one["id"]: one["origin"] for one in json.loads(done.stdout)}


def test_an_operator_puts_what_is_anothers_in_again_and_it_is_refused_again(
    regions: tuple[Region, Region],
) -> None:
    north, _ = regions
    north.shop.worker()
    server_id = north.tenant().make_server(disk=None)
    with north.requester() as requester:
        order = renewal(server_id, SOUTH)
        ended(requester, publish(requester, order))
        (told,) = json.loads(
            north.shop.command("dead", "replay", "--all", "--dry-run", "-o", "json").stdout
        )
        assert told["would"] == "parked"
        assert "region" in told["detail"]
        assert north.shop.command("dead", "replay", "--all", "--yes").returncode == 0
        eventually(lambda: requester.depth(north.dead) == 1, 20)
        # Nothing is known of it, so the same order may still come with its right region.
        assert json.loads(north.shop.command("journal", "list", "-o", "json").stdout or "[]") == []
    assert north.tenant().actions(server_id) == ["create"]
    assert "order_id" not in north.tenant().server(server_id)["metadata"]


def test_an_order_that_was_begun_is_not_denied_by_a_worker_of_another_region(
    regions: tuple[Region, Region],
) -> None:
    """ECS_REGION was changed between two tries: what was done must not be told as never begun."""
    north, _ = regions
    tenant = north.tenant()
    server_id = tenant.make_server(disk=None)
    first = north.shop.worker()
    with north.requester() as requester:
        order = paid("changeConfigure", server_id)
        order["productList"][0] |= {
            "region": REGION,
            "itemList": [{"code": "std", "value": "S1.medium.2", "name": "S1.medium.2"}],
        }
        north.shop.cloud.fault("api.nova", match="^POST .*action", error="overloaded", status=503)
        message_id = publish(requester, order)
        requester.wait(lambda one: one.body.get("status") == "waiting_retry")
        first.terminate()
        north.shop.cloud.clear_faults()
        wrong = north.shop.worker(ECS_REGION="cn-west-9")
        eventually(lambda: requester.depth(north.dead) == 1, 30)
        requester.listen(1)
        assert not any(one.is_final or "code" in one.body for one in requester.heard), (
            "no result denies it"
        )
        wrong.terminate()
        north.shop.worker()
        assert north.shop.command("dead", "replay", "--all", "--yes").returncode == 0
        result = requester.order_result_of(message_id, 60)
    assert reported(result) == (200, "success", True)
    assert product_of(result)["after"]["flavor"] == "S1.medium.2"


def lines_of(shop: Workshop, *words: str, **settings: str) -> tuple[int, list[str]]:
    """The exit code of a command, and its lines on stderr."""
    done = shop.command(*words, **settings)
    return done.returncode, done.stderr.splitlines()


def test_a_worker_that_does_not_know_its_region_does_not_start(
    regions: tuple[Region, Region],
) -> None:
    shop = regions[0].shop
    clouds = json.loads(shop.cloud.clouds_yaml.read_text())
    path = shop.folder / "clouds.yaml"
    shop.settings["OS_CLIENT_CONFIG_FILE"] = str(path)

    def write(**names: str | None) -> None:
        for cloud, region in names.items():
            entry = clouds["clouds"][cloud.replace("_", "-")]
            entry |= {"region_name": region}
            if region is None:
                del entry["region_name"]
        path.write_text(json.dumps(clouds))

    order = shop.folder / "order.json"
    order.write_text(json.dumps(paid("renew", "00000000-0000-4000-8000-000000000000")))
    write(ecs_worker=None, admin=None)
    for words in (("run",), ("plan", str(order))):
        code, (line,) = lines_of(shop, *words)
        assert (code, line.partition(":")[0]) == (3, "ECS_REGION")
    checked = {one["check"]: one for one in json.loads(shop.command("check", "-o", "json").stdout)}
    assert (checked["region"]["result"], checked["keystone"]["result"]) == ("failed", "ok")
    checked = json.loads(shop.command("check", "-o", "json", ECS_REGION="cn-east-1").stdout)
    assert "cn-east-1" in next(one["found"] for one in checked if one["check"] == "region")
    # An admin who looks in another region would find no server, and say of all that they are gone.
    write(ecs_worker="cn-north-3", admin="cn-south-1")
    code, (line,) = lines_of(shop, "run")
    assert (code, line.partition(":")[0]) == (3, "ECS_ADMIN_CLOUD")
    path.unlink()
    code, (line,) = lines_of(shop, "run")
    assert (code, line.partition(":")[0]) == (3, "ECS_REGION")


def test_a_cloud_of_several_regions_needs_one_to_be_chosen(
    declared: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("several")
    with (
        SimulatedOpenStack(0.2, f"{NORTH},{SOUTH}") as cloud,
        Workshop(declared, cloud, folder) as shop,
    ):
        assert shop.worker().problems() == []
        clouds = json.loads(cloud.clouds_yaml.read_text())
        for entry in clouds["clouds"].values():
            del entry["region_name"]
        path = folder / "clouds.yaml"
        path.write_text(json.dumps(clouds))
        shop.settings["OS_CLIENT_CONFIG_FILE"] = str(path)
        worker = shop.worker(wait=False)
        eventually(lambda: any(f"{NORTH}, {SOUTH}" in one for one in worker.problems()), 30)
        done = shop.command("check", "-o", "json")
        assert done.returncode == 5
        found = {one["check"]: one for one in json.loads(done.stdout)}
        assert (found["rights"]["result"], SOUTH in found["rights"]["found"]) == ("failed", True)

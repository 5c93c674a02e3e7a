"""A cloud that is down for everybody: consuming pauses, readiness says why, and nothing is drained
into retries.
"""

import uuid
from collections.abc import Iterator

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester, Source
from tests.support.orders import paid, publish
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow
NO_SERVER = "101.001033"


@pytest.fixture
def own_cloud() -> Iterator[SimulatedOpenStack]:
    with SimulatedOpenStack(pace=0.2) as cloud:
        yield cloud


def change_of_nothing(requester: Requester) -> str:
    """A change of a server that there is not: Nova must be asked, and no lock is waited for."""
    return requester.command("server.tags.update", server_id=str(uuid.uuid4()), tags="web")


def test_a_worker_leaves_the_queue_alone_while_nova_is_down(
    declared: str, own_cloud: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Workshop(declared, own_cloud, tmp_path_factory.mktemp("pause")) as shop:
        worker = shop.worker(ECS_PREFETCH="10", ECS_COMMAND_TIMEOUT="5")
        own_cloud.fault("api.nova", error="overloaded", status=503)
        with Requester(declared) as requester:
            sent = [change_of_nothing(requester) for _ in range(200)]
            eventually(lambda: any("compute is down" in one for one in worker.problems()), 30)
            requester.listen(6.0)  # those that were under way come to their end
            answered = len(requester.heard)
            assert answered <= 40, "a few prefetches at most were taken before it was noticed"
            requester.listen(3.0)
            assert len(requester.heard) == answered, "nothing more is taken"
            assert requester.depth("ecs.servers") == 200 - answered
            own_cloud.clear_faults()
            results = [requester.result_of(one) for one in sent]
        assert {one.body["code"] for one in results} == {NO_SERVER, "101.001040"}
        assert sum(one.body["code"] == NO_SERVER for one in results) >= 160
        eventually(lambda: not worker.problems(), 15)


@pytest.mark.parametrize("number", [2_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_many_requests_wait_while_nova_is_down_and_none_is_parked(
    declared: str,
    own_cloud: SimulatedOpenStack,
    tmp_path_factory: pytest.TempPathFactory,
    number: int,
) -> None:
    """Fault 53."""
    with (
        Workshop(declared, own_cloud, tmp_path_factory.mktemp("many")) as shop,
        Requester(declared) as requester,
    ):
        own_cloud.fault("api.nova", error="overloaded", status=503)
        sent = {change_of_nothing(requester) for _ in range(number)}
        worker = shop.worker(ECS_COMMAND_TIMEOUT="120", ECS_PREFETCH="50")
        eventually(lambda: any("compute is down" in one for one in worker.problems()), 30)
        called = len(own_cloud.calls())
        requester.listen(10.0)
        assert len(own_cloud.calls()) - called < 200, (
            "those that were taken, and a look now and then"
        )
        assert requester.heard == []
        own_cloud.clear_faults()
        requester.wait(lambda _: len(requester.heard) >= number, 240)
        assert {one.correlation_id for one in requester.heard} == sent
        assert {one.body["code"] for one in requester.heard} == {NO_SERVER}
        assert requester.depth("ecs.dead") == 0


def test_a_read_is_answered_in_its_time_while_changes_wait_for_nova(
    declared: str, own_cloud: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        Workshop(declared, own_cloud, tmp_path_factory.mktemp("reads")) as shop,
        Requester(declared) as requester,
    ):
        worker = shop.worker(ECS_COMMAND_TIMEOUT="4")
        own_cloud.fault("api.nova", error="overloaded", status=503)
        for _ in range(3):
            change_of_nothing(requester)
        eventually(lambda: any("compute is down" in one for one in worker.problems()), 30)
        change = change_of_nothing(requester)
        failed = requester.result_of(requester.command("server.list"), 20).body
        assert (failed["code"], failed["data"]) == ("101.001040", {"reason": "http_503"})
        # What does not ask Nova works.
        assert requester.result_of(requester.command("image.list")).body["code"] == 200
        assert requester.depth("ecs.servers") == 1
        own_cloud.clear_faults()
        assert requester.result_of(change).body["code"] == NO_SERVER
        assert requester.result_of(requester.command("server.list")).body["code"] == 200
        assert requester.depth("ecs.dead") == 0


def test_a_command_is_answered_in_its_time_though_nova_says_nothing(
    declared: str, own_cloud: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        Workshop(declared, own_cloud, tmp_path_factory.mktemp("slow")) as shop,
        Requester(declared) as requester,
    ):
        shop.worker(ECS_COMMAND_TIMEOUT="3")
        server_id = shop.tenant().make_server()
        own_cloud.fault("api.nova", match="^GET", user="ecs-worker", delay=8)
        asked = {
            requester.command(operation, server_id=server_id, body={"reboot": {"type": "HARD"}})
            for operation in ("server.show", "server.tags.list", "server.action")
        }
        answers = [requester.result_of(one, 10).body for one in asked]
        assert [(one["code"], one["data"]) for one in answers] == [
            ("101.001040", {"reason": "timeout"})
        ] * 3
    assert not [one for one in own_cloud.executed() if one.endswith("/action reboot")]


def test_an_account_that_is_locked_out_stops_the_consuming_and_no_order_is_lost(
    declared: str, own_cloud: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Fault 43: 401 from everybody, until somebody puts the account right."""
    with (
        Workshop(declared, own_cloud, tmp_path_factory.mktemp("locked")) as shop,
        Requester(declared) as requester,
    ):
        worker = shop.worker(ECS_COMMAND_TIMEOUT="5")
        tenant = shop.tenant()
        servers = [tenant.make_server(metadata={}) for _ in range(4)]
        own_cloud.fault("api.keystone", error="not authorised", status=401)
        for service in ("nova", "cinder", "glance", "neutron"):
            own_cloud.fault(f"api.{service}", user="ecs-worker", error="not authorised", status=401)
        first = [
            publish(requester, paid("renew", one, duration="1", durationUnit="M"))
            for one in servers[:2]
        ]
        told = requester.command("server.tags.list", server_id=servers[0])
        eventually(lambda: any("identity is down" in one for one in worker.problems()), 60)
        assert requester.result_of(told).body["code"] == "101.001040"
        later = [
            publish(requester, paid("renew", one, duration="1", durationUnit="M"))
            for one in servers[2:]
        ]
        requester.listen(5.0)
        assert requester.depth("ecs.orders") == len(later), "nothing is taken that cannot be done"
        assert [one for one in requester.heard if one.source is Source.ORDER_RESULT] == []
        own_cloud.clear_faults()
        for message_id in first + later:
            assert requester.order_result_of(message_id, 90).body["code"] == 200
        eventually(lambda: not worker.problems(), 15)
        assert requester.depth("ecs.dead") == 0
        posts = [one for one in own_cloud.executed() if one.endswith("/metadata metadata")]
        assert len(posts) == len(servers)

"""A cloud that is down for everybody: consuming pauses, readiness says why, and nothing is drained into retries."""

from collections.abc import Iterator

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.workshop import Workshop, eventually


@pytest.fixture
def own_cloud() -> Iterator[SimulatedOpenStack]:
    with SimulatedOpenStack(pace=0.2) as cloud:
        yield cloud


def test_a_worker_leaves_the_queue_alone_while_nova_is_down(
    declared: str, own_cloud: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Workshop(declared, own_cloud, tmp_path_factory.mktemp("pause")) as shop:
        worker = shop.worker(ECS_PREFETCH="10", ECS_COMMAND_TIMEOUT="5")
        server_id = shop.tenant().make_server()
        own_cloud.fault("api.nova", error="overloaded", status=503)
        with Requester(declared) as requester:
            sent = [requester.command("server.tags.list", server_id=server_id) for _ in range(200)]
            eventually(lambda: any("compute is down" in one for one in worker.problems()), 30)
            requester.listen(6.0)  # those that were under way come to their end
            answered = len(requester.heard)
            assert answered <= 40, "a few prefetches at most were taken before it was noticed"
            requester.listen(3.0)
            assert len(requester.heard) == answered, "nothing more is taken"
            assert requester.depth("ecs.servers") == 200 - answered
            own_cloud.clear_faults()
            results = [requester.result_of(one) for one in sent]
        assert {one.body["code"] for one in results} == {200, "101.001040"}
        assert sum(one.body["code"] == 200 for one in results) >= 160
        eventually(lambda: not worker.problems(), 15)

"""Metrics of a worker: what they say of queues, retries and calls, and that each series is there
before anything has happened.
"""

import math
import uuid
from collections.abc import Iterator

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.postgres import PrivatePostgres
from sandbox.requester import Requester
from tests.support.metrics import Numbers, numbers
from tests.support.orders import paid, publish
from tests.support.waiting import eventually
from tests.support.workshop import Workshop


@pytest.fixture
def own_cloud() -> Iterator[SimulatedOpenStack]:
    with SimulatedOpenStack(pace=0.2) as cloud:
        yield cloud


@pytest.fixture
def shop(declared: str, own_cloud: SimulatedOpenStack, tmp_path: object) -> Iterator[Workshop]:
    with Workshop(declared, own_cloud, tmp_path) as found:  # type: ignore[arg-type]
        yield found
        own_cloud.clear_faults()  # before what the test made is taken away


def test_series_are_there_before_anything_has_happened(workshop: Workshop) -> None:
    worker = workshop.worker()
    found = numbers(worker.metrics())
    for name, labels in (
        ("ecs_results_total", {"operation": "order.new", "code": "101.001040"}),
        ("ecs_results_total", {"operation": "server.list", "code": "200"}),
        ("ecs_messages_total", {"event": "dead_lettered"}),
        ("ecs_retries_total", {"reason": "http_503"}),
        ("ecs_retries_total", {"reason": "turn"}),
        ("ecs_openstack_calls_total", {"service": "compute", "method": "GET", "status": "503"}),
        (
            "ecs_openstack_calls_total",
            {"service": "image", "method": "POST", "status": "no_answer"},
        ),
        ("ecs_broker_reconnects_total", {}),
        ("ecs_log_lines_lost_total", {}),
        ("ecs_publications_unconfirmed", {}),
    ):
        assert found.one(name, **labels) == 0.0, name
    assert found.one("ecs_ready") == 1.0
    assert found.one("ecs_dependency_up", dependency="journal") == 1.0
    ((labels, value),) = found.all("ecs_build_info")
    assert value == 1.0
    assert set(labels) == {"version", "python"}


def test_counters_are_named_as_such(workshop: Workshop) -> None:
    """Whoever reads a gauge that only grows by `rate` gets nonsense at each restart."""
    found = numbers(workshop.worker().metrics())
    assert {name for name, kind in found.kinds.items() if kind == "counter"} == {
        name for name in found.kinds if name.endswith("_total")
    }
    assert all(name.startswith("ecs_") for name in found.kinds)


def test_queues_are_counted_also_those_that_nobody_reads(shop: Workshop) -> None:
    with Requester(shop.broker_url) as requester:
        requester.publish("ecs.commands", "volume.create", {"operation": "volume.create"})
        worker = shop.worker(ECS_RETRY_DELAYS="7,60")
        eventually(lambda: requester.depth("ecs.dead") == 1)

        def now() -> Numbers:
            return numbers(worker.metrics())

        eventually(lambda: now().one("ecs_queue_messages", queue="ecs.dead") == 1.0, 30)
        found = now()
        assert {labels["queue"] for labels, _ in found.all("ecs_queue_messages")} >= {
            *("ecs.reads", "ecs.servers", "ecs.images", "ecs.orders"),
            *("ecs.order-results", "ecs.undelivered", "ecs.dead", "ecs.retry.7", "ecs.retry.60"),
        }
        # The depths may have been read while the worker still began with one queue after another.
        eventually(lambda: now().one("ecs_queue_consumers", queue="ecs.orders") == 1.0, 60)
        assert found.one("ecs_queue_consumers", queue="ecs.dead") == 0.0
        assert found.one("ecs_oldest_message_seconds", queue="ecs.orders") == 0.0
        eventually(lambda: sum(v for _, v in now().all("ecs_dead_letters")) == 1.0, 30)
        eventually(lambda: now().total("ecs_dead_letters", cause="unknown") == 0.0, 30)
        (cause,) = [one["cause"] for one, v in now().all("ecs_dead_letters") if v]
        assert cause.startswith("101.001002")


def test_retries_are_counted_by_reason_and_failing_calls_by_status(
    shop: Workshop, own_cloud: SimulatedOpenStack
) -> None:
    worker = shop.worker(ECS_RETRY_DELAYS="60")
    server_id = shop.tenant().make_server()
    own_cloud.fault("api.nova", error="overloaded", status=503)
    with Requester(shop.broker_url) as requester:
        publish(requester, paid("unsubscribe", server_id))

        def retried() -> bool:
            return numbers(worker.metrics()).one("ecs_retries_total", reason="http_503") == 1.0

        eventually(retried, 40)
        found = numbers(worker.metrics())
    assert found.total("ecs_openstack_calls_total", service="compute", status="503") >= 1.0
    assert found.one("ecs_messages_total", event="retried") == 1.0
    eventually(
        lambda: numbers(worker.metrics()).one("ecs_queue_messages", queue="ecs.retry.60") == 1.0, 30
    )
    # The circuit breaker has found out, or finds out, that Nova is down: changes are not consumed.
    eventually(
        lambda: numbers(worker.metrics()).one("ecs_dependency_up", dependency="compute") == 0.0, 30
    )
    assert numbers(worker.metrics()).one("ecs_ready") == 0.0


def test_what_waits_has_an_age_and_a_tenant(shop: Workshop, own_cloud: SimulatedOpenStack) -> None:
    """One place for changes: the second of them waits for the first, which Nova holds up."""
    worker = shop.worker(ECS_CONCURRENCY="1")
    own_cloud.fault("api.nova", held=True)
    with Requester(shop.broker_url) as requester:
        for _ in range(3):
            requester.command("server.tags.update", server_id=str(uuid.uuid4()), tags="web")

        def states() -> dict[str, float]:
            return {
                labels["state"]: value
                for labels, value in numbers(worker.metrics()).all("ecs_tenant_requests")
                if labels["tenant"] not in ("-", "other")
            }

        eventually(lambda: states() == {"running": 1.0, "waiting": 2.0}, 20)
        found = numbers(worker.metrics())
        assert found.one("ecs_waiting") == 2.0
        assert found.one("ecs_oldest_message_seconds", queue="ecs.servers") > 0.0
        own_cloud.clear_faults()
        eventually(lambda: numbers(worker.metrics()).one("ecs_in_flight") == 0.0, 60)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_journals_figures_are_shown(
    shop: Workshop, own_cloud: SimulatedOpenStack, postgres: PrivatePostgres, database: str
) -> None:
    url = (
        {"ECS_JOURNAL_URL": postgres.add_database(f"figures_{uuid.uuid4().hex[:8]}")}
        if database == "postgresql"
        else {}
    )
    server_id = shop.tenant().make_server()
    worker = shop.worker(**url, ECS_RETRY_DELAYS="60")
    own_cloud.fault("api.nova", match="DELETE", error="overloaded", status=503)
    with Requester(shop.broker_url) as requester:
        publish(requester, paid("unsubscribe", server_id))

        def waits() -> bool:
            found = numbers(worker.metrics())
            about = {"kind": "order", "waits_for": "retry"}
            return (
                found.one("ecs_workers") == 1.0
                and found.one("ecs_unfinished_requests", **about) == 1.0
                and found.one("ecs_oldest_unfinished_seconds", **about) > 0.0
            )

        eventually(waits, 60)


def test_without_a_broker_depths_are_not_known_rather_than_old(shop: Workshop) -> None:
    worker = shop.worker(wait=False, ECS_BROKER_URL="amqp://guest:guest@127.0.0.1:1//")

    def is_served() -> bool:
        return not any("refused" in one for one in worker.problems())

    eventually(is_served, 60)
    found = numbers(worker.metrics())
    assert math.isnan(found.one("ecs_queue_messages", queue="ecs.orders"))
    assert found.one("ecs_ready") == 0.0
    assert found.one("ecs_dependency_up", dependency="broker") == 0.0

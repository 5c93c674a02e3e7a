"""Traces of OpenTelemetry, as a real collector receives them."""

import json
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox.gateway import GatewayProcess
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Heard, Requester
from tests.support.collector import Collector, Span
from tests.support.orders import paid, publish
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
#: Milliseconds after which spans are exported; by default five seconds.
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100"}


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    with Collector(tmp_path) as found:
        yield found


def traced(collector: Collector) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, **SOON}


def finished(collector: Collector, trace_id: str, name: str) -> list[Span]:
    """The spans of a trace once the one of this name is there: it ends last."""
    eventually(lambda: any(one.name == name for one in collector.of_trace(trace_id)), 30)
    return collector.of_trace(trace_id)


def headers_of(heard: Heard) -> dict[str, Any]:
    return dict(heard.headers)


def test_the_trace_of_an_order_from_its_publisher_to_its_result(
    workshop: Workshop, collector: Collector
) -> None:
    server_id = workshop.tenant().make_server()
    worker = workshop.worker(**traced(collector))
    order = paid("unsubscribe", server_id)
    with Requester(workshop.broker_url) as requester:
        message_id = publish(
            requester, order, headers={"traceparent": TRACEPARENT, "tracestate": "vendor=1"}
        )
        result = requester.order_result_of(message_id)
        update = requester.last_update_of("order", message_id)
    assert result.body["code"] == 200, result.body
    spans = finished(collector, TRACE, "ecs.orders process")
    by_id = {one.span_id: one for one in spans}
    named: dict[str, list[Span]] = {}
    for one in spans:
        named.setdefault(one.name, []).append(one)

    # One tree, whose root is the publisher's span: queue, handling, stages, calls, result.
    (waited,), (handled,) = named["ecs.orders wait"], named["ecs.orders process"]
    assert waited.parent_id == PARENT
    assert handled.parent_id == waited.span_id
    for stage in ("parse", "authenticate", "claim", "run", "finish"):
        (one,) = named[stage]
        assert one.parent_id == handled.span_id, stage
    assert all(one is waited or one.parent_id in by_id for one in spans), "none hangs in the air"
    (run,), (finish,) = named["run"], named["finish"]
    calls = [one for one in spans if one.kind == "client"]
    assert {"GET compute", "DELETE compute"} <= {one.name for one in calls}
    deleted = next(one for one in calls if one.name == "DELETE compute")
    assert deleted.parent_id == run.span_id
    assert deleted.attributes["url.path"].endswith(f"/servers/{server_id}")
    assert deleted.attributes["http.response.status_code"] == 204
    assert deleted.attributes["openstack.request_id"].startswith("req-")
    (published,) = named["ecs.results publish"]
    assert (published.kind, published.parent_id) == ("producer", finish.span_id)
    assert handled.kind == "consumer"
    assert handled.attributes["messaging.message.id"] == message_id
    assert handled.attributes["ecs.request"] == order["orderId"]
    assert handled.attributes["ecs.operation"] == "order.unsubscribe"
    assert handled.attributes["ecs.tenant"] == workshop.tenant().project_id
    assert (handled.attributes["ecs.outcome"], handled.attributes["ecs.code"]) == ("answered", 200)
    assert handled.start <= run.start <= run.end <= finish.end <= handled.end
    assert {one.service for one in spans} == {"ecs-worker"}
    assert {one.trace_state for one in spans} == {"vendor=1"}

    # Result and updates continue it, each under the span that published it.
    assert headers_of(result)["traceparent"] == f"00-{TRACE}-{published.span_id}-01"
    assert headers_of(result)["tracestate"] == "vendor=1"
    assert headers_of(update)["traceparent"].split("-")[1] == TRACE
    assert headers_of(update)["traceparent"].split("-")[2] in {
        one.span_id for one in named["ecs.status publish"]
    }

    # Each of its log lines names the trace.
    lines = [
        json.loads(line) for line in worker.log.read_text().splitlines() if order["orderId"] in line
    ]
    assert {line.get("trace_id") for line in lines} == {TRACE}


def test_openstack_is_asked_under_the_span_of_the_call(
    declared: str, collector: Collector, tmp_path: Path
) -> None:
    with SimulatedOpenStack(pace=0.2) as cloud, Workshop(declared, cloud, tmp_path) as shop:
        shop.worker(**traced(collector))
        with Requester(declared) as requester:
            sent = requester.command("server.list", headers={"traceparent": TRACEPARENT})
            requester.result_of(sent)
        spans = finished(collector, TRACE, "ecs.reads process")
        asked = [one for one in spans if one.kind == "client"]
        seen = cloud.trace_contexts()
    assert asked
    # The first one of a project logs in, in a thread, which belongs to the request, too.
    assert any(one.name == "POST keystoneauth" for one in asked)
    for one in asked:
        assert f"00-{TRACE}-{one.span_id}-01" in seen, one.name


def test_a_retry_and_a_failing_call_are_in_one_trace(
    declared: str, collector: Collector, tmp_path: Path
) -> None:
    with SimulatedOpenStack(pace=0.2) as cloud, Workshop(declared, cloud, tmp_path) as shop:
        server_id = shop.tenant().make_server()
        shop.worker(**traced(collector), ECS_RETRY_DELAYS="1")
        cloud.fault("api.nova", error="overloaded", status=503)
        with Requester(declared) as requester:
            message_id = publish(
                requester, paid("unsubscribe", server_id), headers={"traceparent": TRACEPARENT}
            )
            eventually(
                lambda: any(
                    one.attributes.get("ecs.outcome") == "retried" for one in collector.spans
                ),
                40,
            )
            cloud.clear_faults()
            assert requester.order_result_of(message_id).body["code"] == 200
        eventually(
            lambda: any(
                one.attributes.get("ecs.outcome") == "answered" for one in collector.of_trace(TRACE)
            )
        )
    spans = collector.of_trace(TRACE)
    failed = [one for one in spans if one.attributes.get("http.response.status_code") == 503]
    assert failed
    assert all(one.is_error for one in failed)
    attempts = [one for one in spans if one.name == "ecs.orders process"]
    assert [one.attributes.get("ecs.outcome") for one in attempts][:1] == ["retried"]
    waits = [one for one in spans if one.name == "ecs.orders wait"]
    retried = {one.span_id for one in spans if one.name == "ecs.retry publish"}
    assert {one.parent_id for one in waits[1:]} <= retried
    assert all(one.end - one.start >= 0.99 for one in waits[1:]), "the retry queue's delay"


def test_the_gateway_begins_a_trace_and_the_client_hands_it_on(
    workshop: Workshop, collector: Collector, tmp_path: Path
) -> None:
    workshop.worker(**traced(collector))
    gateway = GatewayProcess(workshop.settings | traced(collector), tmp_path)
    try:
        gateway.start()
        answer = requests.get(
            f"{gateway.url}/v1/servers/1/10",
            headers={"X-Tenant-Id": "tenant-a", "traceparent": TRACEPARENT},
            timeout=30,
        )
        assert answer.status_code == 200
        spans = finished(collector, TRACE, "GET /v1/servers/{pageNo}/{pageSize}")
        eventually(
            lambda: any(one.name == "ecs.reads process" for one in collector.of_trace(TRACE))
        )
        spans = collector.of_trace(TRACE)
    finally:
        gateway.stop()
    by_name = {one.name: one for one in spans}
    server, sent = by_name["GET /v1/servers/{pageNo}/{pageSize}"], by_name["server.list publish"]
    assert (server.kind, server.parent_id, server.service) == ("server", PARENT, "ecs-gateway")
    assert (sent.kind, sent.parent_id, sent.service) == ("producer", server.span_id, "ecs-gateway")
    assert by_name["ecs.reads wait"].parent_id == sent.span_id
    assert by_name["ecs.reads process"].service == "ecs-worker"
    assert not [one for one in collector.spans if "metrics" in one.name or "readyz" in one.name]


def test_no_secret_and_no_body_gets_into_a_span(workshop: Workshop, collector: Collector) -> None:
    secret = f"hunter2-{uuid.uuid4().hex}"
    workshop.worker(**traced(collector))
    with Requester(workshop.broker_url) as requester:
        sent = [
            requester.command(
                "server.list", token=f"eyJhbGciOiJIUzI1NiJ9.{secret}.{secret}", searchValue=secret
            ),
            requester.command("server.tags.update", server_id=str(uuid.uuid4()), tags=secret),
            requester.command("server.action", server_id=secret, body={"os-start": None}),
        ]
        for one in sent:
            requester.result_of(one)
    eventually(
        lambda: {one.attributes.get("messaging.message.id") for one in collector.spans} >= set(sent)
    )
    told = json.dumps([dict(one.attributes) | {"n": one.name} for one in collector.spans])
    assert secret not in told


@pytest.mark.parametrize("receiver", ["nobody listens", "never answers"])
def test_a_receiver_that_is_away_harms_nothing(workshop: Workshop, receiver: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        port = hung.getsockname()[1] if receiver == "never answers" else 1
        worker = workshop.worker(
            **SOON,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_BSP_MAX_QUEUE_SIZE="64",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="32",
        )
        with Requester(workshop.broker_url) as requester:
            sent = [requester.command("server.list") for _ in range(100)]
            codes = {requester.result_of(one).body["code"] for one in sent}
        assert codes == {200}
        began = time.monotonic()
        assert worker.terminate() == 0
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
    ],
)
def test_an_exporter_that_is_not_there_is_refused_in_one_line(
    workshop: Workshop, variables: dict[str, str], says: str
) -> None:
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"} | variables
    done = workshop.command("run", **asked)
    assert done.returncode == 3
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "variables",
    [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}],
    ids=["disabled", "no exporter"],
)
def test_tracing_is_turned_off_by_the_standards_own_variables(
    workshop: Workshop, collector: Collector, variables: dict[str, str]
) -> None:
    worker = workshop.worker(**traced(collector), **variables)
    with Requester(workshop.broker_url) as requester:
        result = requester.result_of(
            requester.command("server.list", headers={"traceparent": TRACEPARENT})
        )
    # As it came: passed on, not continued.
    assert headers_of(result)["traceparent"] == TRACEPARENT
    assert worker.terminate() == 0
    assert collector.spans == []


def test_a_sampler_of_the_standard_is_honoured(workshop: Workshop, collector: Collector) -> None:
    worker = workshop.worker(**traced(collector), OTEL_TRACES_SAMPLER="parentbased_always_off")
    with Requester(workshop.broker_url) as requester:
        unasked = requester.command("server.list")
        asked = requester.command("server.list", headers={"traceparent": TRACEPARENT})
        for one in (unasked, asked):
            requester.result_of(one)
    assert worker.terminate() == 0
    named = {one.attributes.get("messaging.message.id") for one in collector.spans}
    assert asked in named
    assert unasked not in named


def test_without_otel_variables_nothing_of_it_is_loaded(workshop: Workshop) -> None:
    worker = workshop.worker()
    with Requester(workshop.broker_url) as requester:
        requester.result_of(requester.command("server.list"))
    loaded = Path(f"/proc/{worker.pid}/maps").read_text()
    assert "libpython" in loaded or "python" in loaded
    assert "google/_upb" not in loaded, "protobuf, which only the exporter needs"

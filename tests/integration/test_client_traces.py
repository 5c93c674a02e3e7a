"""The Python client in a program that traces with OpenTelemetry, and in one that does not."""

import json
import subprocess
import sys

from tests.support import REPOSITORY
from tests.support.responder import Responder

TRACEPARENT = f"00-{'1' * 32}-{'2' * 16}-01"
#: Calls, and prints its spans: name, span id and parent's id, trace id.
TRACING = """
import json, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from ecs_client import EcsClient

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
with EcsClient(sys.argv[1], tenant="tenant-a", user="u") as client:
    client.call("server.list")
    with trace.get_tracer("shop").start_as_current_span("checkout"):
        client.call("server.list")
        client.call("server.list", traceparent=sys.argv[2])
print(json.dumps([
    [one.name, one.kind.name, f"{one.context.span_id:016x}",
     f"{one.parent.span_id:016x}" if one.parent else "", f"{one.context.trace_id:032x}"]
    for one in exporter.get_finished_spans()
]))
"""
PLAIN = """
import sys
from ecs_client import EcsClient

with EcsClient(sys.argv[1], tenant="tenant-a", user="u") as client:
    client.call("server.list")
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_message_continues_the_span_in_which_it_is_published(declared: str) -> None:
    with Responder(declared) as responder:
        told = json.loads(run(TRACING, declared, TRACEPARENT))
    alone, inside, given = (dict(one.headers) for one in responder.requests)
    assert "traceparent" not in alone, "no span was active"
    (sent,), (shop,) = (
        [one for one in told if one[0] == name] for name in ("server.list publish", "checkout")
    )
    assert (sent[1], sent[3], sent[4]) == ("PRODUCER", shop[2], shop[4])
    assert inside["traceparent"].rpartition("-")[0] == f"00-{sent[4]}-{sent[2]}"
    assert given["traceparent"] == TRACEPARENT, "what is given counts"


def test_a_program_without_opentelemetry_loads_nothing_of_it(declared: str) -> None:
    with Responder(declared) as responder:
        run(PLAIN, declared)
    (sent,) = responder.requests
    assert "traceparent" not in dict(sent.headers)

"""A real OpenTelemetry collector (Rotel), and the end that it forwards traces to.

What the worker exports is taken, checked and sent on by a product that is not ours; what is looked
at is what came out of it.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import rotel
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

from sandbox.processes import Server, free_ports, listens

_AGENT = Path(str(rotel.__file__)).with_name("rotel-agent")


@dataclass(frozen=True)
class Span:
    """A span as it came out of the collector. Times are Unix seconds."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    trace_state: str
    start: float
    end: float
    is_error: bool
    attributes: Mapping[str, Any]


class Collector:
    """A collector and what it has forwarded; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._spans: list[Span] = []
        self._end = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._port, grpc = free_ports(2)
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self._command = [
            *(str(_AGENT), "start", "--log-file", str(folder / "rotel-agent.log")),
            *("--pid-file", str(folder / "rotel.pid")),
            *("--otlp-http-endpoint", f"127.0.0.1:{self._port}"),
            *("--otlp-grpc-endpoint", f"127.0.0.1:{grpc}"),
            *("--batch-timeout", "100ms", "--exporter", "otlp"),
            *("--otlp-exporter-protocol", "http"),
            *("--otlp-exporter-endpoint", f"http://127.0.0.1:{self._end.server_port}"),
        ]
        self._log = folder / "rotel.log"
        self._server: Server | None = None

    @property
    def spans(self) -> list[Span]:
        """The spans that have come out so far."""
        return list(self._spans)

    def of_trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace, in the order in which they began."""
        found = (one for one in self.spans if one.trace_id == trace_id)
        return sorted(found, key=lambda one: one.start)

    def stop(self) -> None:
        """End the collector; what is sent to it then meets nobody."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> "Collector":
        threading.Thread(target=self._end.serve_forever, daemon=True).start()
        self._server = Server(self._command, self._log)
        self._server.wait_until(lambda: listens(self._port), 20, "the collector")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._end.shutdown()
        self._end.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        spans = self._spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    import gzip  # noqa: PLC0415

                    body = gzip.decompress(body)
                spans.extend(_read(ExportTraceServiceRequest.FromString(body)))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                return

        return Handler


def _read(exported: ExportTraceServiceRequest) -> Iterable[Span]:
    for resource in exported.resource_spans:
        service = str(_values(resource.resource.attributes).get("service.name", ""))
        for scope in resource.scope_spans:
            for one in scope.spans:
                yield Span(
                    service=service,
                    name=one.name,
                    kind=ProtoSpan.SpanKind.Name(one.kind).removeprefix("SPAN_KIND_").lower(),
                    trace_id=one.trace_id.hex(),
                    span_id=one.span_id.hex(),
                    parent_id=one.parent_span_id.hex(),
                    trace_state=one.trace_state,
                    start=one.start_time_unix_nano / 1e9,
                    end=one.end_time_unix_nano / 1e9,
                    is_error=one.status.code == 2,
                    attributes=_values(one.attributes),
                )


def _values(attributes: Iterable[Any]) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}

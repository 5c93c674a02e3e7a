"""OpenTelemetry's traces, configured by its own standard variables (`OTEL_*`).

Spans are exported in batches by a thread of the SDK's. Its queue is bounded: while the receiver does
not take them, spans are dropped, and no request waits.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from handlers import tracing
from handlers.tracing import Span, Value, attribute_names
from messages.texts import without_urls
from workers.amqp.envelope import Envelope
from workers.amqp.headers import RETRY_HEADER, trace

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer as OtelTracer

#: The variables that say where traces go; one of them turns tracing on.
_DESTINATIONS = (
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)
#: By the value of OTEL_EXPORTER_OTLP_PROTOCOL, the exporter's name among the entry points.
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_NANO = 10**9


class TracingMisconfigured(Exception):
    """The variables of OpenTelemetry ask for what there is not. The text is one line."""


def wanted() -> bool:
    """Tell whether the environment asks for traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    return any(os.environ.get(name, "").strip() for name in _DESTINATIONS)


class Traces:
    """Makes spans and exports them; implements `handlers.tracing.Tracer`."""

    def __init__(self, service: str) -> None:
        """`service` is the name of the process in traces, unless `OTEL_SERVICE_NAME` or
        `OTEL_RESOURCE_ATTRIBUTES` says another one. Raises `TracingMisconfigured`.
        """
        # 150 ms and 15 MB, which only those pay who trace.
        from importlib.metadata import version  # noqa: PLC0415

        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.trace import (  # noqa: PLC0415
            SpanKind,
            get_current_span,
            set_span_in_context,
        )
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        named = Resource.create()
        own: dict[str, str] = {"service.version": version("ecs-worker")}
        if str(named.attributes[SERVICE_NAME]).startswith("unknown_service"):
            own[SERVICE_NAME] = service
        try:
            self._provider: TracerProvider = TracerProvider(
                resource=named.merge(Resource(own)), shutdown_on_exit=False
            )
            for exporter in _exporters():
                self._provider.add_span_processor(BatchSpanProcessor(exporter))
        except (ValueError, TypeError) as error:
            raise TracingMisconfigured(f"OTEL_*: {without_urls(str(error))}") from None
        self._tracer: OtelTracer = self._provider.get_tracer("ecs-worker", version("ecs-worker"))
        self._kinds: Mapping[str, Any] = {kind.name.lower(): kind for kind in SpanKind}
        self._propagator = TraceContextTextMapPropagator()
        self._get_current, self._in_context = get_current_span, set_span_in_context

    def begin(self) -> None:
        """Trace from now on."""
        global _traces  # noqa: PLW0603 - one for the process, like the log's configuration
        # Not as the global provider: FastAPI would add spans of its own to those of the gateway.
        _traces = self
        tracing.begin(self)

    def close(self) -> None:
        """Trace no longer, and export what is left. Blocks, for as long as the receiver makes the
        exporter wait.
        """
        global _traces  # noqa: PLW0603
        _traces = None
        tracing.begin(None)
        self._provider.shutdown()

    def span(
        self, name: str, kind: str, attributes: Mapping[str, Value | None]
    ) -> AbstractContextManager[Span]:
        """Make a span the current one inside. Calls that belong to no request, such as those by
        which the worker looks whether a service is up again, get none.
        """
        if kind == "client" and not self._get_current().get_span_context().is_valid:
            return tracing.NOTHING
        return self._span(name, kind, attributes)

    @contextmanager
    def _span(
        self,
        name: str,
        kind: str,
        attributes: Mapping[str, Value | None],
        parent: "Context | None" = None,
    ) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name,
            context=parent,
            kind=self._kinds[kind],
            attributes=attribute_names(attributes),
            # A traceback, and the text of an error, may say what a message said.
            record_exception=False,
            set_status_on_exception=False,
        ) as found:
            current = _Current(found)
            try:
                yield current
            except BaseException as error:
                # Many of them are outcomes, not failures: a repeat, a retry.
                current.note(ecs__ended_by=type(error).__name__)
                raise

    def headers(self) -> Mapping[str, str]:
        """Return `traceparent` and `tracestate` of the current span; empty where there is none."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier

    def current(self) -> Span:
        """Return the current span."""
        return _Current(self._get_current())

    def publication(self, name: str, attributes: Mapping[str, Value | None]) -> "Publishing":
        """Begin the span of a message that is published."""
        span = self._tracer.start_span(
            name, kind=self._kinds["producer"], attributes=attribute_names(attributes)
        )
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._in_context(span))
        return Publishing(carrier, span)

    @contextmanager
    def delivery(self, envelope: Envelope) -> Iterator[Span]:
        """Make a span for a message's time in its queue, and one around its handling, which is the
        current one inside.
        """
        arrived = int(envelope.arrived * _NANO)
        about: dict[str, Value | None] = {
            "messaging.system": "rabbitmq",
            "messaging.destination.name": envelope.queue,
            "messaging.message.id": envelope.message_id,
            "messaging.message.conversation_id": envelope.correlation_id,
        }
        waited = self._tracer.start_span(
            f"{envelope.queue} wait",
            context=self._propagator.extract(trace(envelope.headers)),
            kind=self._kinds["internal"],
            attributes=attribute_names(about),
            start_time=min(arrived, int(_queued_at(envelope) * _NANO)),
        )
        waited.end(arrived)
        parent = self._in_context(waited)
        about["messaging.operation.type"] = "process"
        with self._span(f"{envelope.queue} process", "consumer", about, parent) as found:
            yield found

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str]) -> Iterator[Span]:
        """Make a span around the answer to an HTTP request, which continues the trace that these
        headers name.
        """
        parent = self._propagator.extract(trace(headers))
        with self._span(name, "server", {}, parent) as found:
            yield found


class _Current:
    """A span that has begun."""

    __slots__ = ("_span",)

    def __init__(self, span: "OtelSpan") -> None:
        self._span = span

    @property
    def trace_id(self) -> str:
        """The id of its trace, 32 hexadecimal digits."""
        return f"{self._span.get_span_context().trace_id:032x}"

    def note(self, **attributes: Value | None) -> None:
        """Add attributes."""
        self._span.set_attributes(attribute_names(attributes))

    def rename(self, name: str) -> None:
        """Give it another name."""
        self._span.update_name(name)

    def fail(self, why: str) -> None:
        """Mark what the span stands for as failed."""
        from opentelemetry.trace import StatusCode  # noqa: PLC0415

        self._span.set_status(StatusCode.ERROR, why)


class Publishing:
    """The span of a message that is published, from handing it over until its confirm."""

    __slots__ = ("_span", "headers")

    def __init__(self, headers: Mapping[str, str], span: "OtelSpan") -> None:
        self.headers = headers
        self._span = span

    def end(self) -> None:
        """End it."""
        self._span.end()


#: None while tracing is off.
_traces: Traces | None = None


def delivery(envelope: Envelope) -> AbstractContextManager[Span]:
    """Return a context manager around the handling of a message."""
    return tracing.NOTHING if _traces is None else _traces.delivery(envelope)


def request(name: str, headers: Mapping[str, str]) -> AbstractContextManager[Span]:
    """Return a context manager around the answer to an HTTP request with these headers."""
    return tracing.NOTHING if _traces is None else _traces.request(name, headers)


def _queued_at(envelope: Envelope) -> float:
    """Return when a message came into its queue (Unix seconds): when it was published, to the
    second, or when it went into the retry queue that it comes from.
    """
    if envelope.is_first:
        return float(envelope.timestamp or envelope.arrived)
    delay = envelope.headers.get(RETRY_HEADER)
    waited = int(delay) if isinstance(delay, str) and delay.isascii() and delay.isdigit() else 0
    return envelope.arrived - min(waited, 86400)


def _exporters() -> "Iterator[SpanExporter]":
    """Make the exporters that the environment names, by the SDK's own entry points: further
    packages may bring more. Raises `TracingMisconfigured`.
    """
    for name in (os.environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        yield _entry_point(name.strip()).load()()


def _entry_point(name: str) -> "EntryPoint":
    from importlib.metadata import entry_points  # noqa: PLC0415

    asked, variable = name, "OTEL_TRACES_EXPORTER"
    if name == "otlp":
        variable = "OTEL_EXPORTER_OTLP_PROTOCOL"
        asked = (
            os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            or os.environ.get(variable)
            or "http/protobuf"
        ).strip()
        name = _PROTOCOLS.get(asked, asked)
    known = entry_points(group="opentelemetry_traces_exporter")
    for one in known:
        if one.name == name:
            return one
    raise TracingMisconfigured(
        f"{variable}: there is no exporter for {asked!r} here; otlp (with http/protobuf) and console are installed"
    )

"""Continues the trace of the program that publishes, where it traces with OpenTelemetry, which need
not be installed.
"""

import sys
from collections.abc import Callable
from typing import Any


def continued(
    name: str, destination: str, message_id: str
) -> tuple[dict[str, str], Callable[[], None]]:
    """Begin a span for a message under the span that is active where it is published. Return the
    message's headers (`traceparent`, `tracestate`), and what ends the span.

    No headers where no span is active. A program in which one is has loaded OpenTelemetry: nothing
    is loaded for those that do not use it.
    """
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None or not api.get_current_span().get_span_context().is_valid:
        return {}, _nothing
    span = api.get_tracer("ecs-client").start_span(
        name,
        kind=api.SpanKind.PRODUCER,
        attributes={
            "messaging.system": "rabbitmq",
            "messaging.destination.name": destination,
            "messaging.message.id": message_id,
        },
    )
    context = span.get_span_context()
    headers = {
        "traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    }
    if state := context.trace_state.to_header():
        headers["tracestate"] = state
    return headers, span.end


def _nothing() -> None:
    return

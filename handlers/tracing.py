"""Spans of a trace, where tracing is on. Where it is off, nothing of OpenTelemetry is loaded, and a
span costs the call of a function.

No attribute holds what a message says but the ids by which it is found: texts are masked, bodies,
queries and headers are left out.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from messages.secrets import mask_text

#: Values of attributes.
Value = str | int | float | bool


class Span(Protocol):
    """A span that has begun. `trace_id` has 32 hexadecimal digits; None where tracing is off."""

    @property
    def trace_id(self) -> str | None: ...

    def note(self, **attributes: Value | None) -> None:
        """Add attributes; those that are None are left out. A `__` in a name becomes a dot."""

    def rename(self, name: str) -> None:
        """Give it another name."""

    def fail(self, why: str) -> None:
        """Mark what it stands for as failed."""


class Tracer(Protocol):
    """Makes spans. Each context manager makes its span the current one of this task."""

    def span(
        self, name: str, kind: str, attributes: Mapping[str, Value | None]
    ) -> AbstractContextManager[Span]: ...

    def headers(self) -> Mapping[str, str]:
        """Return `traceparent` and `tracestate` of the current span; empty where there is none."""

    def publication(self, name: str, attributes: Mapping[str, Value | None]) -> "Publishing":
        """Begin the span of a message that is published."""

    def current(self) -> Span: ...


class Publishing(Protocol):
    """The span of a message that is published, from handing it over until its confirm."""

    #: `traceparent` and `tracestate` for the message.
    headers: Mapping[str, str]

    def end(self) -> None: ...


class _Off:
    """A span where tracing is off."""

    __slots__ = ()
    trace_id = None

    def note(self, **attributes: Value | None) -> None:
        return

    def rename(self, name: str) -> None:
        return

    def fail(self, why: str) -> None:
        return


NOTHING: AbstractContextManager[Span] = nullcontext(_Off())
#: None while tracing is off.
_tracer: Tracer | None = None


def begin(tracer: Tracer | None) -> None:
    """Trace from now on, or no longer."""
    global _tracer  # noqa: PLW0603 - one for the process, like the log's configuration
    _tracer = tracer


def is_on() -> bool:
    """Tell whether traces are made."""
    return _tracer is not None


def span(name: str, kind: str = "internal") -> AbstractContextManager[Span]:
    """Return a context manager around what the span stands for; `kind` is OpenTelemetry's, in lower
    case.
    """
    if _tracer is None:
        return NOTHING
    return _tracer.span(name, kind, {})


def note(**attributes: Value | None) -> None:
    """Add attributes to the current span, as `Span.note`."""
    if _tracer is not None:
        _tracer.current().note(**attributes)


def call(service: str, method: str, path: str) -> AbstractContextManager[Span]:
    """Return a context manager around one call to OpenStack. Of the path its query is left out,
    which has names that customers chose.
    """
    if _tracer is None:
        return NOTHING
    attributes = {
        "http.request.method": method,
        "url.path": mask_text(path.partition("?")[0]),
        "peer.service": service,
    }
    return _tracer.span(f"{method} {service}", "client", attributes)


def headers() -> Mapping[str, str]:
    """Return the headers that continue the current trace; empty where there is none."""
    return _tracer.headers() if _tracer is not None else {}


def header_lines() -> bytes:
    """Return them as lines of an HTTP request."""
    if _tracer is None:
        return b""
    return b"".join(
        f"{name}: {value}\r\n".encode("latin-1") for name, value in _tracer.headers().items()
    )


def publication(name: str, attributes: Mapping[str, Value | None]) -> Publishing:
    """Begin the span of a message that is published, while tracing."""
    assert _tracer is not None
    return _tracer.publication(name, attributes)


def ended(span: Span, outcome: str) -> None:
    """Note on the span of a call to OpenStack what became of it: an HTTP status, or an error."""
    status = outcome.removeprefix("http_")
    if status.isdigit():
        span.note(http__response__status_code=int(status))
        if int(status) >= 400:
            span.fail(status)
    else:
        span.note(error__type=outcome)
        span.fail(outcome)


def attribute_names(attributes: Mapping[str, Any]) -> dict[str, Value]:
    """Return attributes under their names with dots, without those that are None, texts masked."""
    return {
        name.replace("__", "."): mask_text(value)[:_LONGEST] if isinstance(value, str) else value
        for name, value in attributes.items()
        if value is not None
    }


#: Characters of an attribute.
_LONGEST = 500

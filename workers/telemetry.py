"""Logs and metrics."""

import json
import logging
import os
import sys
import time
from typing import Any

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from messages.secrets import MASK, is_secret_name, mask, mask_text
from messages.texts import terminal_safe

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
#: The one control character that JSON does not escape and that is ASCII.
_DELETE = b"\x7f"
#: Lines that are written of one library's logger, and the seconds for which they count.
LIBRARY_LINES, LIBRARY_SECONDS = 10, 60.0
#: Characters of one value in a log line.
_LONGEST = 2000


class Lines:
    """A file of log lines that takes what it can: a disk that is full, or a reader that is gone, is
    no reason to fail a request. Nothing is kept for later.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        #: Lines that were not written, or not to their end.
        self.lost = 0

    def write(self, line: bytes | str) -> None:
        """Write it, or count it as lost."""
        rest = line.encode("utf-8", "backslashreplace") if isinstance(line, str) else line
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            self.lost += 1

    def flush(self) -> None:
        """It is written already."""


_stderr = Lines(2)


def configure_logs(log_format: str, level: str) -> None:
    """Log lines to stderr, as JSON objects or for a person's eyes; libraries' warnings, too."""
    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        _mask_secrets,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    factory: Any
    if log_format == "json":
        renderer: Any = structlog.processors.JSONRenderer(serializer=_dumps)
        factory = structlog.BytesLoggerFactory(file=_stderr)  # type: ignore[arg-type]
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        factory = structlog.PrintLoggerFactory(file=_stderr)  # type: ignore[arg-type]
    structlog.configure(
        processors=[*common, renderer] if log_format == "json" else [*common, _escape, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.ERROR, handlers=[_Forward()], force=True)
    # It tells of every reconnect in ten lines, which our own one line says better.
    logging.getLogger("pika").setLevel(logging.CRITICAL)


class _Forward(logging.Handler):
    """A library's log line as one of ours; of one logger only so many in a while.

    What strangers send, or how often they connect, must not decide how much is written.
    """

    def __init__(self) -> None:
        super().__init__()
        #: By logger: when its time began on the monotonic clock, lines in it, and lines that were
        #: left out.
        self._windows: dict[str, list[float]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        window = self._windows.setdefault(record.name, [now, 0, 0])
        if now - window[0] > LIBRARY_SECONDS:
            if window[2]:
                structlog.get_logger().warning(
                    "library.suppressed", logger=record.name, lines=int(window[2])
                )
            window[:] = [now, 0, 0]
        window[1] += 1
        if window[1] > LIBRARY_LINES:
            window[2] += 1
            return
        structlog.get_logger().log(
            record.levelno, "library", logger=record.name, said=record.getMessage()
        )


def _mask_secrets(_logger: Any, _method: str, event: Any) -> Any:
    """The last net under all that must not be logged in the first place, and under what is too long
    to be read.
    """
    for key, value in event.items():
        # In every line of every request: so the names, which are ours, are not looked through for
        # tokens.
        if value is not None and is_secret_name(key):
            event[key] = MASK
        elif isinstance(value, str):
            masked = mask_text(value)
            event[key] = (
                f"{masked[:_LONGEST]}…" if len(masked) > _LONGEST and key != "exception" else masked
            )
        elif isinstance(value, (dict, list)):
            event[key] = mask(value)
    return event


def _escape(_logger: Any, _method: str, event: Any) -> Any:
    """What a message brought along must not move the cursor of whoever reads; only a traceback has
    lines.
    """
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = terminal_safe(value, lines=key == "exception")
    return event


def _dumps(value: Any, default: Any = None, **_: Any) -> bytes:
    """A line that tells of trouble must not be trouble itself: what is no JSON is written as Python
    would.
    """
    try:
        line = orjson.dumps(value, default=default or _text)
    except TypeError:
        return json.dumps(value, default=_text, skipkeys=True).encode()
    if line.isascii() and _DELETE not in line:
        return line
    # Logs are read at terminals, too.
    return terminal_safe(line.decode(), json=True).encode()


def _text(value: Any) -> str:
    return mask_text(str(value))


class Metrics:
    """What is counted; names as Prometheus wants them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._results = Counter(
            "ecs_results_total", "Requests answered", ["operation", "code"], registry=self.registry
        )
        self._seconds = Histogram(
            "ecs_request_seconds",
            "From delivery to ack",
            ["operation"],
            registry=self.registry,
            buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
        )
        self._events = Counter(
            "ecs_messages_total", "What became of deliveries", ["event"], registry=self.registry
        )
        self._calls = Counter(
            "ecs_openstack_calls_total",
            "OpenStack calls",
            ["service", "method", "outcome"],
            registry=self.registry,
        )
        self._call_seconds = Histogram(
            "ecs_openstack_call_seconds",
            "One OpenStack call, the wait for a thread included",
            ["service"],
            registry=self.registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
        )
        Gauge(
            "ecs_log_lines_lost", "Log lines that could not be written", registry=self.registry
        ).set_function(lambda: _stderr.lost)
        self.in_flight = Gauge("ecs_in_flight", "Requests under way", registry=self.registry)
        self.reconnects = Gauge(
            "ecs_broker_reconnects", "Connections lost or not made", registry=self.registry
        )
        self._children: dict[tuple[str, ...], Any] = {}

    def answered(self, operation: str, code: object, seconds: float) -> None:
        """A request was answered and its message settled."""
        key = (operation, str(code))
        pair = self._children.get(key)
        if pair is None:
            pair = self._children[key] = (
                self._results.labels(*key),
                self._seconds.labels(operation),
            )
        pair[0].inc()
        pair[1].observe(seconds)

    def called(self, service: str, method: str, outcome: str, seconds: float) -> None:
        """OpenStack was called: with which HTTP status, or with what trouble instead of one."""
        self._calls.labels(service, method, outcome).inc()
        self._call_seconds.labels(service).observe(seconds)

    def event(self, name: str) -> None:
        """Something else happened to a delivery: ignored, parked, retried, duplicate, conflict."""
        self._events.labels(name).inc()

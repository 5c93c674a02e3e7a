"""Metrics for Prometheus: what the worker counts, and numbers that are read when they are asked for.

No label holds what a message says: each has a bounded set of values, and a series for each of those
that are known beforehand is there from the start, so that the first event is an increase, too.
"""

import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from messages.codes import Code
from messages.commands import Operation
from messages.orders import OrderType
from messages.results import WaitReason
from workers.telemetry import lost_lines

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

DeliveryEvent = Literal["ignored", "dead_lettered", "retried", "duplicate", "conflict"]

#: Seconds: a request, and a call to OpenStack.
_REQUEST_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_CALL_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
#: Operations of messages whose own cannot be told.
_UNKNOWN = ("unknown", "order.unknown")
_SERVICES = ("identity", "compute", "block_storage", "image", "network")
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
#: Statuses of calls that are there from the start. Those without a number had no answer.
_STATUSES = (
    *("200", "201", "202", "204", "400", "401", "403", "404", "409", "413", "429"),
    *("500", "502", "503", "504"),
    *("no_connection", "no_answer", "bad_answer"),
)
#: Why requests are tried again, beside `http_` and the status of OpenStack's answer.
_RETRY_REASONS = (
    *(WaitReason.TURN.value, WaitReason.RESOURCE.value),
    *("busy", "timeout", "journal", "internal", "keystone", "cloud_unavailable"),
    *("no_connection", "no_answer", "bad_answer", "not_sent", "cloud_configuration"),
    *("http_401", "http_413", "http_429", "http_500", "http_502", "http_503", "http_504"),
)
_HTTP_REASON = re.compile(r"http_[45]\d\d")
#: The value of a label for all that is none of the known ones, or beyond their number.
OTHER = "other"

#: Labels of one series, in the order of the metric's, and its value.
Series = Iterable[tuple[tuple[str, ...], float]]


class Metrics:
    """Counts events, and shows numbers of other parts as they are when they are asked for."""

    def __init__(self) -> None:
        # With an HTTP server of its own: 20 ms and 2 MB that most commands need not wait for.
        from prometheus_client import Counter, Histogram  # noqa: PLC0415

        self.registry = new_registry()
        self._results = Counter(
            "ecs_results_total",
            "Requests that got a result",
            ["operation", "code"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "ecs_request_seconds",
            "From the delivery of a request that was carried out until all of it is confirmed",
            ["operation"],
            registry=self.registry,
            buckets=_REQUEST_BUCKETS,
        )
        self._events = Counter(
            "ecs_messages_total",
            "Deliveries that were ignored, dead-lettered, retried, duplicates or conflicts",
            ["event"],
            registry=self.registry,
        )
        self._retries = Counter(
            "ecs_retries_total",
            "Requests that go on by way of a retry queue, or go back to their queue for it, by the reason",
            ["reason"],
            registry=self.registry,
        )
        self._calls = Counter(
            "ecs_openstack_calls_total",
            "OpenStack calls by HTTP status, or by the error where there was no answer",
            ["service", "method", "status"],
            registry=self.registry,
        )
        self._call_seconds = Histogram(
            "ecs_openstack_call_seconds",
            "One OpenStack call, the wait for a place included",
            ["service"],
            registry=self.registry,
            buckets=_CALL_BUCKETS,
        )
        self._shown = Shown(self.registry)
        self.show("ecs_log_lines_lost_total", "Log lines that could not be written", lost_lines)
        self._children: dict[tuple[str, ...], Any] = {}
        self._begin()

    def _begin(self) -> None:
        """Make the series that are known beforehand."""
        for operation in (*Operation, *(f"order.{one}" for one in OrderType), *_UNKNOWN):
            if operation not in _UNKNOWN:  # nothing of these is carried out
                self._seconds.labels(operation)
            for code in Code:
                self._results.labels(operation, str(code.wire))
        for event in get_args(DeliveryEvent):
            self._events.labels(event)
        for reason in (*_RETRY_REASONS, OTHER):
            self._retries.labels(reason)
        for service in _SERVICES:
            self._call_seconds.labels(service)
            for method in _METHODS:
                for status in _STATUSES:
                    self._calls.labels(service, method, status)

    def show(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show one number as it is when it is asked for: a counter where the name ends in `_total`,
        a gauge otherwise.
        """
        self.show_all(name, text, (), lambda: [((), value())])

    def show_all(
        self, name: str, text: str, labels: tuple[str, ...], values: Callable[[], Series]
    ) -> None:
        """Show several series of one metric, in the same way."""
        self._shown.add(name, text, labels, values)

    def answered(self, operation: str, code: object, seconds: float | None) -> None:
        """Count a request that got its result; `seconds` since its delivery, None where it was
        rejected: those would lower the times of the others.
        """
        key = (operation, str(code))
        pair = self._children.get(key)
        if pair is None:
            pair = self._children[key] = (
                self._results.labels(*key),
                self._seconds.labels(operation),
            )
        pair[0].inc()
        if seconds is not None:
            pair[1].observe(seconds)

    def called(self, service: str, method: str, outcome: str, seconds: float) -> None:
        """Count a call to OpenStack; `outcome` is the HTTP status, or the error without one."""
        key = (service, method, outcome)
        pair = self._children.get(key)
        if pair is None:
            # An answer that is an error worth another try has its status as `http_503`.
            status = outcome.removeprefix("http_")
            pair = self._children[key] = (
                self._calls.labels(service, method, status),
                self._call_seconds.labels(service),
            )
        pair[0].inc()
        pair[1].observe(seconds)

    def event(self, name: DeliveryEvent) -> None:
        """Count what else happened to a delivery."""
        self._events.labels(name).inc()

    def retried(self, reason: str) -> None:
        """Count a request that is to be tried again, by the word that says why."""
        is_known = reason in _RETRY_REASONS or _HTTP_REASON.fullmatch(reason) is not None
        self._retries.labels(reason if is_known else OTHER).inc()


def new_registry() -> "CollectorRegistry":
    """Return an empty registry. Of no counter is shown when it was made: that would be twice the
    series, which nobody asks for.
    """
    from prometheus_client import CollectorRegistry, disable_created_metrics  # noqa: PLC0415

    disable: Callable[[], None] = disable_created_metrics
    disable()
    return CollectorRegistry()


class Shown:
    """A collector of numbers that are read when they are asked for, on the loop: each must be there
    already. What must be asked for first is sampled beforehand.
    """

    def __init__(self, registry: Any) -> None:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

        self._kinds: dict[bool, Any] = {True: CounterMetricFamily, False: GaugeMetricFamily}
        self._metrics: list[tuple[str, str, tuple[str, ...], Callable[[], Series]]] = []
        registry.register(self)

    def add(
        self, name: str, text: str, labels: tuple[str, ...], values: Callable[[], Series]
    ) -> None:
        """Add a metric."""
        self._metrics.append((name, text, labels, values))

    def collect(self) -> Iterator["Metric"]:
        """Return all metrics as they are now; called for each scrape."""
        for name, text, labels, values in self._metrics:
            family = self._kinds[name.endswith("_total")](name, text, labels=labels)
            for found, value in values():
                family.add_metric(found, value)
            yield family


def build_info(version: str) -> Series:
    """Return the one series of `ecs_build_info` (labels `version` and `python`), which is 1."""
    return [((version, platform.python_version()), 1.0)]


def states(found: Mapping[str, bool]) -> Series:
    """Return a series for each name: 1 where it is so, otherwise 0."""
    return [((name,), float(is_so)) for name, is_so in found.items()]

"""The gateway's metrics for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

#: Methods that are counted by their names; all others as one.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 35)


class Metrics:
    """Counts answers. No label holds what a request says: a tenant, an id, an unknown URL."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answers = Counter(
            "ecs_gateway_requests_total",
            "Requests that were answered; route is - where the URL is unknown",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "ecs_gateway_request_seconds",
            "From a request's headers to the end of its answer; not of streams",
            ["route"],
            registry=self.registry,
            buckets=_BUCKETS,
        )

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a number as it is when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def answered(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Count an answer; `seconds` None: of a stream."""
        self._answers.labels(method if method in _METHODS else "other", route, str(status)).inc()
        if seconds is not None:
            self._seconds.labels(route).observe(seconds)

"""The gateway's metrics for Prometheus."""

from collections.abc import Callable
from importlib.metadata import version

from prometheus_client import Counter, Histogram

from gateway.routes import ROUTES
from workers.metrics import Shown, build_info, new_registry

#: Methods that are counted by their names; all others as one.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: Statuses that are there from the start for every route of the API; others come as they are used.
_STATUSES = ("200", "400", "401", "500", "503", "504")
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 35)


class Metrics:
    """Counts answers. No label holds what a request says: a tenant, an id, an unknown URL."""

    def __init__(self) -> None:
        self.registry = new_registry()
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

        self._shown = Shown(self.registry)
        self._shown.add(
            "ecs_build_info",
            "1; the labels say which version runs",
            ("version", "python"),
            lambda: build_info(version("ecs-worker")),
        )
        for route in ROUTES:
            path = route.path.replace(":path}", "}")  # as Starlette calls it
            self._seconds.labels(path)
            for status in _STATUSES:
                self._answers.labels(route.method, path, status)

    def show(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a number as it is when it is asked for: a counter where the name ends in `_total`, a
        gauge otherwise.
        """
        self._shown.add(name, text, (), lambda: [((), value())])

    def answered(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Count an answer; `seconds` None: of a stream."""
        self._answers.labels(method if method in _METHODS else "other", route, str(status)).inc()
        if seconds is not None:
            self._seconds.labels(route).observe(seconds)

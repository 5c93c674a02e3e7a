"""What a worker tells of itself every few seconds, for `ecs-worker status` and the console."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class _Report(BaseModel):
    """What another version tells besides, or does not tell, does not matter."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TenantReport(_Report):
    """Requests of one tenant that a worker holds: `begun`, and `waiting` for their turn."""

    begun: int = 0
    waiting: int = 0


class QueueReport(_Report):
    """One consumed queue, as one worker sees it. Rates are messages a second over the last minute;
    times are Unix seconds.
    """

    queue: str
    #: True while the broker delivers from it.
    consuming: bool = False
    #: Why it is not consumed, in words; None while it is.
    why: str | None = None
    #: Deliveries that the worker holds, and those of them that are begun.
    held: int = 0
    begun: int = 0
    #: Deliveries and acks since the start.
    delivered: int = 0
    settled: int = 0
    delivered_rate: float = 0.0
    settled_rate: float = 0.0
    #: When the oldest message that is held was published; None where none is held.
    oldest_published_at: float | None = None
    #: By project id; "" for those that are not authenticated yet.
    tenants: Mapping[str, TenantReport] = {}


class PauseReport(_Report):
    """A pause that the worker obeys."""

    kind: str
    since: float
    until: float | None = None
    reason: str = ""
    operator: str = ""
    id: str = ""


class WorkerReport(_Report):
    """What one worker tells of itself."""

    queues: tuple[QueueReport, ...] = ()
    #: As `/readyz` has them.
    problems: tuple[str, ...] = ()
    #: Dependencies that are down, each with the reason.
    down: Mapping[str, str] = {}
    pauses: tuple[PauseReport, ...] = ()
    in_flight: int = 0
    waiting: int = 0
    draining: bool = False

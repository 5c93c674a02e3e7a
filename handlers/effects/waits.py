"""The waits of a request: noted while it runs, and kept in the journal while nobody is at it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from messages.record import record
from messages.results import WaitReason

#: Seconds that a wait for a resource must last before it is noted: most are over by then, and cost
#: no write.
NOTED_AFTER = 1.0

ResourceKind = Literal["server", "image", "volume"]


@record
class ResourceState:
    """A resource and the state in which it was seen last, in OpenStack's own word."""

    kind: ResourceKind
    id: str
    status: str


@record
class Behind:
    """The request right ahead of another one; `tenant` is its project, "-" for none."""

    key: str
    name: str
    operation: str
    tenant: str


@record
class Wait:
    """The reason why a request waits; times are Unix seconds.

    `until`: when its next attempt begins, None while a worker is at it. `cause` and `detail` say
    why the last attempt failed, `detail` for operators alone. `others`: how many more resources are
    waited for, or requests are ahead.
    """

    reason: WaitReason
    since: float
    until: float | None = None
    cause: str | None = None
    detail: str | None = None
    resource: ResourceState | None = None
    behind: Behind | None = None
    others: int = 0

    def stored(self) -> dict[str, Any]:
        """Return the record that the journal keeps. Who is ahead is not kept: it changes."""
        resource = self.resource
        return {
            "reason": self.reason.value,
            "since": self.since,
            "until": self.until,
            "cause": self.cause,
            "detail": self.detail,
            "resource": [resource.kind, resource.id, resource.status] if resource else None,
            "others": self.others,
        }

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> "Wait | None":
        """Return the wait that the journal kept; None for a reason of a later version."""
        if stored["reason"] not in list(WaitReason):
            return None
        resource = stored.get("resource")
        return cls(
            reason=WaitReason(stored["reason"]),
            since=stored["since"],
            until=stored.get("until"),
            cause=stored.get("cause"),
            detail=stored.get("detail"),
            resource=ResourceState(*resource) if resource else None,
            others=stored.get("others", 0),
        )


class Waiting(Protocol):
    """A wait for a resource that is under way."""

    @property
    def seen(self) -> ResourceState | None:
        """Its state when it was seen last; None where it was not seen yet."""


class Waits:
    """The resources that one running request waits for.

    `note` is called with what is to be written, at most once in `noted_after` seconds: the wait
    that has lasted longest, and None once nothing is waited for any more.
    """

    __slots__ = ("_after", "_closed", "_note", "_noted", "_timer", "_waiting", "last")

    def __init__(
        self, note: Callable[[Wait | None], None], noted_after: float = NOTED_AFTER
    ) -> None:
        self._note = note
        self._after = noted_after
        self._closed = False
        self._noted: Wait | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: Since when each is waited for (Unix seconds), the longest first.
        self._waiting: dict[Waiting, float] = {}
        #: The resource whose wait ended last.
        self.last: ResourceState | None = None

    def on(self, waiting: Waiting) -> "OneWait":
        """Return a context inside which this is waited for."""
        return OneWait(self, waiting)

    def begin(self, waiting: Waiting) -> None:
        """Note that a wait begins."""
        self._waiting[waiting] = time.time()
        self._arm()

    def end(self, waiting: Waiting) -> None:
        """Note that a wait ends."""
        del self._waiting[waiting]
        self.last = waiting.seen
        if self._noted is not None:
            self._arm()

    def close(self) -> None:
        """Note nothing more: the request has ended, or goes on later."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(self._after, self._look)

    def _look(self) -> None:
        self._timer = None
        found = self._longest()
        if found is None and self._waiting:
            self._arm()  # the cloud has not said yet in which state it is
        elif found != self._noted:
            self._noted = found
            self._note(found)

    def _longest(self) -> Wait | None:
        for waiting, since in self._waiting.items():
            if (state := waiting.seen) is not None:
                noted = self._noted
                # Each look of the cloud at the same state is a wait of its own here.
                begun = noted.since if noted is not None and noted.resource == state else since
                others = len(self._waiting) - 1
                return Wait(WaitReason.RESOURCE, begun, resource=state, others=others)
        return None


class OneWait:
    """A wait as a context manager. Ten thousand may wait: it is kept smaller than a generator."""

    __slots__ = ("_waiting", "_waits")

    def __init__(self, waits: Waits, waiting: Waiting) -> None:
        self._waits = waits
        self._waiting = waiting

    def __enter__(self) -> None:
        self._waits.begin(self._waiting)

    def __exit__(self, *_: object) -> None:
        self._waits.end(self._waiting)


def note_nothing(_: Wait | None) -> None:
    """Note nothing, of what is in no journal."""

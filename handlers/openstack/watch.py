"""Waiting for changes that OpenStack makes by itself: one watch for each project and kind of
resource, shared by all who wait, and no thread.

A poll asks for everything that changed since the last one, in one call. A resource of which a
waiter has not heard for some time is asked for singly: a clock that differs, or a service that
forgets, must not make anybody wait for nothing.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Generic, Protocol, TypeVar

from handlers.effects.backoff import Deadline, delay_after
from handlers.openstack.errors import CloudRefusal, NotFound
from messages.errors import Transient

#: Up to so many are asked for singly; more by one list of everything.
FEW = 4
#: How far the first poll looks back, against clocks that differ.
_LOOK_BACK = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class WatchTiming:
    """Times of a watch, in seconds."""

    #: Between polls: the least while somebody has just begun to wait, the most while all wait long.
    poll: float = 0.5
    longest_poll: float = 2.0
    #: Of silence after which a resource is asked for singly; doubled each time, up to the longest.
    silence: float = 3.0
    longest_silence: float = 30.0


_TIMING = WatchTiming()


class Watched(Protocol):
    """A resource with `updated` by the service's own clock (ISO 8601, whole seconds)."""

    @property
    def id(self) -> str: ...
    @property
    def updated(self) -> str: ...


T = TypeVar("T", bound=Watched)


class Poller(Generic[T]):
    """The states of one resource for one waiter, in order."""

    def __init__(self, timing: WatchTiming) -> None:
        self._states: asyncio.Queue[T | Exception] = asyncio.Queue()
        self._last: T | None = None
        self._since = self._heard_at = monotonic()
        self._looks = 0
        self._timing = timing

    async def next(self, until: Deadline) -> T:
        """Return the resource in its next state; raises `NotFound` when it is gone, `TimeoutError`
        at the deadline.
        """
        async with asyncio.timeout(until.left):
            state = await self._states.get()
        if isinstance(state, Exception):
            raise state
        return state

    def put(self, state: T) -> None:
        """Pass on a state that is new; the first one always is."""
        self._heard_at = monotonic()
        if state != self._last:
            self._last = state
            self._states.put_nowait(state)

    def fail(self, error: Exception) -> None:
        """Pass on that the resource can no longer be seen, or no longer be asked for."""
        self._heard_at = monotonic()
        self._states.put_nowait(error)

    @property
    def age(self) -> float:
        """Seconds since the wait began."""
        return monotonic() - self._since

    def is_silent(self) -> bool:
        """True where it is time to ask singly; the next such question comes later."""
        timing = self._timing
        silence = delay_after(self._looks, timing.silence, timing.longest_silence)
        if monotonic() - self._heard_at < silence:
            return False
        self._looks += 1
        return True


class Watch(Generic[T]):
    """All who wait for one kind of resource in one project. Polls only while somebody waits."""

    def __init__(
        self,
        changed: Callable[[str], Awaitable[list[T]]],
        everything: Callable[[], Awaitable[list[T]]],
        get: Callable[[str], Awaitable[T]],
        timing: WatchTiming = _TIMING,
    ) -> None:
        """Three questions: `changed` since a time (ISO 8601), `everything`, and one by its id,
        which raises `NotFound` when it is gone.
        """
        self._changed = changed
        self._everything = everything
        self._get = get
        self._timing = timing
        self._pollers: defaultdict[str, set[Poller[T]]] = defaultdict(set)
        self._polling: asyncio.Task[None] | None = None

    @contextmanager
    def follow(self, resource_id: str) -> Iterator[Poller[T]]:
        """Follow a resource; every state that its poller returns was true after this call."""
        poller: Poller[T] = Poller(self._timing)
        self._pollers[resource_id].add(poller)
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll())
            self._polling.add_done_callback(self._poll_ended)
        try:
            yield poller
        finally:
            self._pollers[resource_id].discard(poller)
            if not self._pollers[resource_id]:
                del self._pollers[resource_id]

    @property
    def idle(self) -> bool:
        """True while nobody waits."""
        return not self._pollers

    def close(self) -> None:
        """Stop polling; a poller that waits already hears no more."""
        if self._polling is not None:
            self._polling.cancel()
            self._polling = None  # whoever begins to wait now starts it again

    def _poll_ended(self, polling: "asyncio.Task[None]") -> None:
        """Raise an unforeseen error to all who wait: without polls they would wait in vain."""
        if not polling.cancelled() and (error := polling.exception()) is not None:
            for poller in [poller for pollers in self._pollers.values() for poller in pollers]:
                poller.fail(
                    error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
                )

    async def _poll(self) -> None:
        since = (datetime.now(UTC) - _LOOK_BACK).strftime("%Y-%m-%dT%H:%M:%SZ")
        failures = 0
        while True:
            await asyncio.sleep(self._pause() * 2 ** min(failures, 3))
            if not self._pollers:
                return
            try:
                since = await self._ask(since)
                failures = 0
            except (Transient, CloudRefusal):
                # Each waiter has a deadline of its own; the cloud may be back before that.
                failures += 1

    async def _ask(self, since: str) -> str:
        # Only for those who waited before the question: an older answer would tell them of the
        # past.
        asking = {resource_id: tuple(pollers) for resource_id, pollers in self._pollers.items()}
        changed = await self._changed(since)
        for resource in changed:
            for poller in asking.get(resource.id, ()):
                poller.put(resource)
        # Every poller is asked, so that each counts its own silence.
        silent = {
            name: pollers
            for name, pollers in asking.items()
            if sum(poller.is_silent() for poller in pollers)
        }
        if len(silent) > FEW:
            for resource in await self._everything():
                for poller in silent.pop(resource.id, ()):
                    poller.put(resource)
        await asyncio.gather(*(self._look(name, pollers) for name, pollers in silent.items()))
        return max([since, *(resource.updated for resource in changed)])

    async def _look(self, resource_id: str, pollers: tuple[Poller[T], ...]) -> None:
        try:
            found = await self._get(resource_id)
        except NotFound as error:
            for poller in pollers:
                poller.fail(error)
        else:
            for poller in pollers:
                poller.put(found)

    def _pause(self) -> float:
        youngest = min(
            (poller.age for pollers in self._pollers.values() for poller in pollers), default=0.0
        )
        return min(max(self._timing.poll, youngest / 10), self._timing.longest_poll)

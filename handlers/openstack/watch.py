"""Waiting for what OpenStack does by itself: one watch for each project and kind, whoever waits,
and no thread.

A tick asks for everything that changed since the last one, in one call. What a waiter has not heard
of for some time is looked at singly: a clock that runs apart, or a service that forgets, must not
make anybody wait for nothing.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Generic, Protocol, TypeVar

from handlers.effects.backoff import Deadline
from handlers.openstack.errors import CloudRefusal, NotFound
from messages.errors import Transient

#: Seconds between ticks: the least for whoever has just begun to wait, the most for those who wait
#: long.
TICK, LONGEST_TICK = 0.5, 2.0
#: Seconds of silence after which a resource is looked at singly, doubled each time.
SILENCE, LONGEST_SILENCE = 3.0, 30.0
#: Up to so many are looked at singly; more by one list of everything.
FEW = 4
#: How far the first tick looks back, against clocks that differ.
LOOK_BACK = timedelta(seconds=60)


class Watched(Protocol):
    """What can be watched: `updated` is the service's own clock (ISO 8601, whole seconds)."""

    @property
    def id(self) -> str: ...
    @property
    def updated(self) -> str: ...


T = TypeVar("T", bound=Watched)


class Poller(Generic[T]):
    """What one waiter hears of one resource, in order."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[T | Exception] = asyncio.Queue()
        self._last: T | None = None
        self._since = self._heard_at = monotonic()
        self._silence = SILENCE

    async def next(self, until: Deadline) -> T:
        """The resource in its next state; `NotFound` when it is gone, `TimeoutError` at the
        deadline.
        """
        async with asyncio.timeout(until.left):
            news = await self._heard.get()
        if isinstance(news, Exception):
            raise news
        return news

    def hear(self, news: T) -> None:
        """Pass on what is new; the first news always is."""
        self._heard_at = monotonic()
        if news != self._last:
            self._last = news
            self._heard.put_nowait(news)

    def lost(self, error: Exception) -> None:
        """The resource can no longer be seen, or no longer be looked at."""
        self._heard_at = monotonic()
        self._heard.put_nowait(error)

    @property
    def age(self) -> float:
        """Seconds since the wait began."""
        return monotonic() - self._since

    def is_silent(self) -> bool:
        """Whether it is time to look singly; the next such look comes later."""
        if monotonic() - self._heard_at < self._silence:
            return False
        self._silence = min(self._silence * 2, LONGEST_SILENCE)
        return True


class Watch(Generic[T]):
    """All waiting for one kind of resource in one project. Ticks only while somebody waits."""

    def __init__(
        self,
        changed: Callable[[str], Awaitable[list[T]]],
        everything: Callable[[], Awaitable[list[T]]],
        get: Callable[[str], Awaitable[T]],
    ) -> None:
        """`changed` since a time (ISO 8601), `everything` there is, and one by its id: `NotFound`
        when it is gone.
        """
        self._changed = changed
        self._everything = everything
        self._get = get
        self._feeds: defaultdict[str, set[Poller[T]]] = defaultdict(set)
        self._ticking: asyncio.Task[None] | None = None

    @contextmanager
    def follow(self, resource_id: str) -> Iterator[Poller[T]]:
        """Hear of a resource; whatever is heard was true after this call."""
        feed: Poller[T] = Poller()
        self._feeds[resource_id].add(feed)
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._tick())
            self._ticking.add_done_callback(self._ticked)
        try:
            yield feed
        finally:
            self._feeds[resource_id].discard(feed)
            if not self._feeds[resource_id]:
                del self._feeds[resource_id]

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return not self._feeds

    def close(self) -> None:
        """Stop ticking; who waits already hears no more."""
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None  # whoever begins to wait now starts it again

    def _ticked(self, ticking: "asyncio.Task[None]") -> None:
        """An error that nobody foresaw is everybody's who waits: without ticks they would wait for
        nothing.
        """
        if not ticking.cancelled() and (error := ticking.exception()) is not None:
            for feed in [feed for feeds in self._feeds.values() for feed in feeds]:
                feed.lost(
                    error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
                )

    async def _tick(self) -> None:
        since = (datetime.now(UTC) - LOOK_BACK).strftime("%Y-%m-%dT%H:%M:%SZ")
        failures = 0
        while True:
            await asyncio.sleep(self._pause() * 2 ** min(failures, 3))
            if not self._feeds:
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
        asking = {resource_id: tuple(feeds) for resource_id, feeds in self._feeds.items()}
        changed = await self._changed(since)
        for resource in changed:
            for feed in asking.get(resource.id, ()):
                feed.hear(resource)
        await self._look_at({name: feeds for name, feeds in asking.items() if _silent(feeds)})
        return max([since, *(resource.updated for resource in changed)])

    async def _look_at(self, silent: dict[str, tuple[Poller[T], ...]]) -> None:
        if len(silent) > FEW:
            for resource in await self._everything():
                for feed in silent.pop(resource.id, ()):
                    feed.hear(resource)
        await asyncio.gather(*(self._look(name, feeds) for name, feeds in silent.items()))

    async def _look(self, resource_id: str, feeds: tuple[Poller[T], ...]) -> None:
        try:
            found = await self._get(resource_id)
        except NotFound as error:
            for feed in feeds:
                feed.lost(error)
        else:
            for feed in feeds:
                feed.hear(found)

    def _pause(self) -> float:
        youngest = min((feed.age for feeds in self._feeds.values() for feed in feeds), default=0.0)
        return min(max(TICK, youngest / 10), LONGEST_TICK)


def _silent(feeds: tuple[Poller[T], ...]) -> bool:
    # Every feed is asked, so that each counts its own silence.
    return sum(feed.is_silent() for feed in feeds) > 0

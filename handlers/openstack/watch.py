"""Waiting for changes that OpenStack makes by itself: one watch for each project and kind of
resource, shared by all who wait, and no thread.

A poll asks for everything that changed since the last one, in one call. A resource of which a
waiter has not heard for some time is asked for singly: a clock that differs, or a service that
forgets, must not make anybody wait for nothing. Where many are silent, everything is listed: at
once, and from then on page by page, so that each is seen as often as by whole lists.

The calls a second do not grow with the number of those who wait: a project costs one call a poll,
the polls of all projects share a rate (`Pace`), and so do the looks at what is silent.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from time import monotonic
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from handlers.effects.backoff import Deadline, delay_after, within
from handlers.effects.waits import ResourceState
from handlers.openstack.errors import CloudRefusal, NotFound
from messages.errors import Transient
from messages.record import record

#: Up to so many are asked for singly; more by one list of everything.
FEW = 4
#: How far the first poll looks back, against clocks that differ.
_LOOK_BACK = timedelta(seconds=60)


@record
class WatchTiming:
    """Times of a watch, in seconds, and rates, a second."""

    #: Between polls: the least while somebody has just begun to wait, the most while all wait long.
    poll: float = 0.5
    longest_poll: float = 2.0
    #: Of silence after which a resource is asked for singly; doubled each time, up to the longest.
    silence: float = 3.0
    longest_silence: float = 30.0
    #: Polls of all watches together, and single looks after the first one at each resource. Where
    #: more would be due, all are slowed down alike.
    polls: float = 20.0
    looks: float = 10.0
    #: Resources of one project that are listed because many are silent: a list of everything takes
    #: a call for each thousand, and its next page, or the next list, comes the later.
    listed: float = 100.0


_TIMING = WatchTiming()


class Pace:
    """The rate that the watches of a process share."""

    def __init__(self, timing: WatchTiming = _TIMING) -> None:
        self.timing = timing
        self._wanted: dict[object, float] = {}

    def pause(self, watch: object, wanted: float) -> float:
        """Return the seconds until the next poll of a watch that would like to poll after `wanted`
        seconds.
        """
        self._wanted[watch] = 1 / wanted
        return wanted * max(1.0, sum(self._wanted.values()) / self.timing.polls)

    def leave(self, watch: object) -> None:
        """Note that a watch polls no longer."""
        self._wanted.pop(watch, None)

    @property
    def least_silence(self) -> float:
        """Seconds between two looks at a resource, if each watch had as many as are asked singly."""
        return len(self._wanted) * FEW / self.timing.looks


class Watched(Protocol):
    """A resource with `updated` by the service's own clock (ISO 8601, whole seconds), and the state
    that people are told.
    """

    @property
    def id(self) -> str: ...
    @property
    def updated(self) -> str: ...
    @property
    def state(self) -> ResourceState: ...


T = TypeVar("T", bound=Watched)


class Poller(Generic[T]):
    """The states of one resource for one waiter, in order; a context manager, which ends the wait.

    Ten thousand may wait: it is kept small.
    """

    __slots__ = (
        "_last",
        "_looks",
        "_news",
        "_states",
        "_timing",
        "_watch",
        "heard_at",
        "question",
        "resource_id",
    )

    def __init__(self, watch: "Watch[T]", resource_id: str, timing: WatchTiming) -> None:
        self.resource_id = resource_id
        #: The number of the watch's last question before this wait.
        self.question = watch.questions
        #: When there was news last, by the monotonic clock.
        self.heard_at = monotonic()
        self._watch = watch
        self._timing = timing
        self._states: list[T | Exception] = []
        self._news: asyncio.Future[None] | None = None
        self._last: T | None = None
        self._looks = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watch.leave(self)

    @property
    def seen(self) -> ResourceState | None:
        """The state in which it was seen last; None where it was not seen yet."""
        return self._last.state if self._last is not None else None

    async def next(self, until: Deadline) -> T:
        """Return the resource in its next state; raises `NotFound` when it is gone, `TimeoutError`
        at the deadline.
        """
        if not self._states:
            self._news = asyncio.get_running_loop().create_future()
            with within(until):
                await self._news
        state = self._states.pop(0)
        if isinstance(state, Exception):
            raise state
        return state

    def put(self, state: T) -> None:
        """Pass on a state that is new; the first one always is."""
        self.heard_at = monotonic()
        if state != self._last:
            self._last = state
            self._pass_on(state)

    def fail(self, error: Exception) -> None:
        """Pass on that the resource can no longer be seen, or no longer be asked for."""
        self.heard_at = monotonic()
        self._pass_on(error)

    def _pass_on(self, state: T | Exception) -> None:
        self._states.append(state)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def is_silent(self, now: float, least: float) -> bool:
        """True where it is time to ask; `least` are the seconds between two looks."""
        timing = self._timing
        silence = delay_after(self._looks, timing.silence, timing.longest_silence)
        if self._looks > 0:
            silence = max(silence, least)
        return now - self.heard_at >= silence

    def looked(self) -> None:
        """Note that it is asked for: the next such question comes later."""
        self._looks += 1


#: Asks the service for a list, and yields it page by page.
Pages = AsyncIterator[list[T]]


class _Listing(Generic[T]):
    """A list of everything that goes on page by page. `question`: the one that asked for its first
    page.
    """

    __slots__ = ("pages", "question", "shown", "size")

    def __init__(self, pages: Pages[T], question: int) -> None:
        self.pages = pages
        self.question = question
        #: How many it has shown so far, and those of them for which somebody waits.
        self.size = 0
        self.shown: set[str] = set()


class Watch(Generic[T]):
    """All who wait for one kind of resource in one project. Polls only while somebody waits."""

    def __init__(
        self,
        changed: Callable[[str], Pages[T]],
        everything: Callable[[], Pages[T]],
        get: Callable[[str], Awaitable[T]],
        pace: Pace,
    ) -> None:
        """Three questions: `changed` since a time (ISO 8601), `everything`, and one by its id,
        which raises `NotFound` when it is gone.
        """
        #: How many questions have been asked.
        self.questions = 0
        self._changed = changed
        self._everything = everything
        self._get = get
        self._pace = pace
        self._timing = pace.timing
        self._pollers: dict[str, list[Poller[T]]] = {}
        #: When somebody began to wait last.
        self._latest = 0.0
        #: The list that goes on, and until when it does not; until when not everything is listed
        #: at once, and how many the last whole list has shown.
        self._listing: _Listing[T] | None = None
        self._page_at = self._list_at = 0.0
        self._size = 0
        self._polling: asyncio.Task[None] | None = None

    def follow(self, resource_id: str) -> Poller[T]:
        """Follow a resource; every state that its poller returns was true after this call."""
        poller: Poller[T] = Poller(self, resource_id, self._timing)
        self._pollers.setdefault(resource_id, []).append(poller)
        self._latest = poller.heard_at
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll())
            self._polling.add_done_callback(self._poll_ended)
        return poller

    def leave(self, poller: Poller[T]) -> None:
        """End a wait."""
        others = self._pollers[poller.resource_id]
        others.remove(poller)
        if not others:
            del self._pollers[poller.resource_id]

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
        if self._polling is None or self._polling.done():
            self._pace.leave(self)
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
        self.questions += 1
        question, latest = self.questions, since
        async for page in self._changed(since):
            for resource in page:
                latest = max(latest, resource.updated)
                self._put(resource, question)
        await self._look_at_silent(question)
        return latest

    def _put(self, resource: T, question: int) -> None:
        # Only for those who waited before the question: an older answer would tell them of the
        # past.
        for poller in self._pollers.get(resource.id, ()):
            if poller.question < question:
                poller.put(resource)

    async def _look_at_silent(self, question: int) -> None:
        now, least = monotonic(), self._pace.least_silence
        silent = {
            poller.resource_id: poller
            for pollers in self._pollers.values()
            for poller in pollers
            if poller.question < question and poller.is_silent(now, least)
        }
        if len(silent) > FEW:
            if now < self._page_at or (listing := await self._listed(question, silent)) is None:
                return
            # What the list has not shown is gone, or was waited for only after it had begun.
            silent = {
                name: poller
                for name, poller in silent.items()
                if name not in listing.shown and poller.question < listing.question
            }
        await asyncio.gather(*(self._look(poller, question) for poller in silent.values()))

    async def _listed(self, question: int, silent: dict[str, Poller[T]]) -> _Listing[T] | None:
        """List everything, or one more page of it where that was done not long ago. Return the list
        once it has come to its end.
        """
        at_once, listing = monotonic() >= self._list_at, self._listing
        if at_once or listing is None:
            listing = _Listing(self._everything(), question)
        self._listing = None  # one that fails is not gone on with
        async for page in listing.pages:
            listing.size += len(page)
            for resource in page:
                self._put(resource, question)
                if resource.id in self._pollers:
                    listing.shown.add(resource.id)
                if (poller := silent.get(resource.id)) is not None:
                    poller.looked()
            now, rate = monotonic(), self._timing.listed
            self._page_at = now + len(page) / rate
            self._list_at = now + max(self._size, listing.size) / rate
            if not at_once:
                self._listing = listing
                return None
        self._size = listing.size
        return listing

    async def _look(self, silent: Poller[T], question: int) -> None:
        silent.looked()
        try:
            found = await self._get(silent.resource_id)
        except NotFound as error:
            for poller in self._pollers.get(silent.resource_id, ()):
                if poller.question < question:
                    poller.fail(error)
        else:
            self._put(found, question)

    def _pause(self) -> float:
        wanted = max(self._timing.poll, (monotonic() - self._latest) / 10)
        return self._pace.pause(self, min(wanted, self._timing.longest_poll))

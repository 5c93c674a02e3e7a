"""Concurrent work: waiting for all of several, sharing one answer, places in turn by tenant, threads
that may hang.
"""

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from cachetools import TLRUCache

from handlers.openstack.errors import CloudRefusal
from messages.errors import OutcomeUnknown, Refused, Transient

T = TypeVar("T")

#: Errors that a later try cannot mend.
_FINAL = (Refused, CloudRefusal, OutcomeUnknown)


async def wait_for_all(
    awaitables: Iterable[Awaitable[T]], *, passing_first: bool = False
) -> list[T]:
    """Run all at once, each to its end, and return their results in order, or raise the first
    error.

    The error is raised as it is: a group would hide its kind, which decides what is done about it.
    None is cancelled for another's sake: each may have sent a call, and knows best what became of
    it. `passing_first`: an error that a later try may mend is raised before a final one, because a
    request that ends finally follows none of the others to their ends.
    """
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    errors = [one for one in results if isinstance(one, BaseException)]
    if errors:
        raise min(errors, key=lambda error: passing_first and isinstance(error, _FINAL))
    return [one for one in results if not isinstance(one, BaseException)]


def failed(future: "asyncio.Future[Any]") -> bool:
    """True for a future that ended without a result. Marks its exception as seen, of which asyncio
    complains where nobody waits any more.
    """
    return future.done() and (future.cancelled() or future.exception() is not None)


def _succeeded(future: "asyncio.Future[Any]") -> bool:
    return future.done() and not failed(future)


@dataclass(slots=True)
class _Answer:
    future: "asyncio.Future[Any]"
    ttl: float
    #: How many wait for it.
    waiting: int = 0


class SingleFlightCache:
    """Answers by key, each asked for once at a time: whoever asks while an answer is on its way
    waits for that one.

    An answer counts for `ttl` seconds from the question; an error is not kept. Past `maxsize`
    answers, the one used longest ago is forgotten. Who asks first goes on first: requests of one
    server keep their order while a log-in that all of them need is under way.
    """

    def __init__(self, ttl: float, maxsize: int = 4096) -> None:
        self._ttl = ttl
        self._answers: TLRUCache[Hashable, _Answer] = TLRUCache(
            maxsize, ttu=lambda _key, answer, now: now + answer.ttl, timer=time.monotonic
        )

    async def get(
        self, key: Hashable, ask: Callable[[], Awaitable[T]], ttl: float | None = None
    ) -> T:
        """Return the answer, asked for where none is fresh. Raises what `ask` raises."""
        try:
            answer = self._answers[key]  # `get` would look it up twice
        except KeyError:
            answer = None
        if answer is not None and not answer.waiting and _succeeded(answer.future):
            known: T = answer.future.result()
            return known
        if answer is None or failed(answer.future):
            future = asyncio.ensure_future(ask())
            future.add_done_callback(failed)
            answer = _Answer(future, self._ttl if ttl is None else ttl)
            self._answers[key] = answer
        # RACE: those who have waited go on one turn of the loop after the answer is there.
        while answer.future.done() and answer.waiting:  # noqa: ASYNC110 - one turn
            await asyncio.sleep(0)
        answer.waiting += 1
        try:
            # The question goes on for the others when one who waits is cancelled.
            result: T = await asyncio.shield(answer.future)
        finally:
            answer.waiting -= 1
        return result

    def forget(self, key: Hashable, value: object) -> None:
        """Forget an answer, unless it is another one by now."""
        answer = self._answers.get(key)
        if answer is not None and _succeeded(answer.future) and answer.future.result() is value:
            del self._answers[key]

    def clear(self) -> None:
        """Forget every answer."""
        self._answers.clear()


#: Times the free places that a tenant may hold at most when it takes one more. One tenant alone
#: so has 8/9 of all, two 8/17 each; what is left is for whoever comes next, who need not wait.
_SHARE = 8
#: Tenants that are kept though they hold nothing: their next calls need not make them again.
_KEPT = 1000


class Turns:
    """A bounded number of places for tenants, given in turn to those who wait: one tenant after the
    other, and within a tenant in the order of asking.

    Nobody takes all: a tenant takes a place while it holds fewer than `_SHARE` times the free ones.
    Up to `_SHARE` places this keeps none back.
    """

    def __init__(self, size: int, before: "Turns | None" = None) -> None:
        """`before`: as long as one of a tenant waits there, none of it is given a place here."""
        self._size = self._free = size
        self._before = before
        self._after: Turns | None = None
        if before is not None:
            before._after = self
        #: Tenants that hold a place or wait for one, and some that did.
        self._tenants: dict[str, Tenant] = {}
        #: Those that wait; whose turn comes next stands first.
        self._waiting: OrderedDict[Tenant, None] = OrderedDict()
        self._is_paused = False
        self._unused: asyncio.Future[None] | None = None

    def take_free(self, name: str) -> "Tenant | None":
        """Take a place for a tenant; None where it has to wait for one."""
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = Tenant(name, self)
        # Whoever of the tenant waits goes first; so does who has a place and has yet to go on.
        if tenant.waiting or tenant.waking or tenant.held >= _SHARE * self._free or self._is_paused:
            return None
        if self._before is not None and self._before.keeps_waiting(name):
            return None
        self._free -= 1
        tenant.held += 1
        return tenant

    async def take(self, name: str, tag: Any = None) -> "Tenant":
        """Wait for a place for a tenant; it is given back with `release`. `tag`: what `refuse` is
        told of one who waits.
        """
        tenant = self.take_free(name)
        if tenant is not None:
            return tenant
        tenant = self._tenants[name]
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        tenant.waiting[waiter] = tag
        self._waiting.setdefault(tenant)
        try:
            await waiter
        except BaseException:
            # RACE: it may be cancelled in the turn of the loop in which it got its place.
            if waiter.done() and not failed(waiter):
                self._woken(tenant)
                self.release(tenant)
            else:
                tenant.waiting.pop(waiter, None)
                self._forget_idle(tenant)
            raise
        self._woken(tenant)
        return tenant

    def keeps_waiting(self, name: str) -> bool:
        """True where one of the tenant waits for a place, or has yet to go on with it."""
        tenant = self._tenants.get(name)
        return tenant is not None and bool(tenant.waiting or tenant.waking)

    def release(self, tenant: "Tenant") -> None:
        """Give a place back."""
        self._free += 1
        tenant.held -= 1
        if self._waiting:
            self._give()
        if not tenant.held and len(self._tenants) > _KEPT:
            self._forget_idle(tenant)
        if self._unused is not None and self._free == self._size and not self._unused.done():
            self._unused.set_result(None)

    def pause(self, *, is_paused: bool) -> None:
        """Give no place from now on, or give them again."""
        self._is_paused = is_paused
        self._give()

    def refuse(
        self, error: Callable[[], Exception], which: Callable[[Any], bool] = lambda _: True
    ) -> None:
        """Raise an error to those who wait, as far as `which` says so of their tags."""
        for tenant in tuple(self._waiting):
            for waiter, tag in tuple(tenant.waiting.items()):
                if which(tag) and not waiter.done():
                    waiter.set_exception(error())
                    del tenant.waiting[waiter]
            self._forget_idle(tenant)

    async def unused(self) -> None:
        """Wait until all places are free."""
        if self._free < self._size:
            self._unused = asyncio.get_running_loop().create_future()
            await self._unused

    def _give(self) -> None:
        while self._free and not self._is_paused:
            # At most a few are passed over, each of which holds `_SHARE` places; or has one that
            # waits in the line before.
            most, before = _SHARE * self._free, self._before
            tenant = next(
                (
                    one
                    for one in self._waiting
                    if one.held < most and not (before and before.keeps_waiting(one.name))
                ),
                None,
            )
            if tenant is None:
                return
            waiter, _ = tenant.waiting.popitem(last=False)
            if tenant.waiting:
                self._waiting.move_to_end(tenant)
            else:
                del self._waiting[tenant]
            if waiter.done():  # it was cancelled
                if not tenant.waiting and not tenant.waking:
                    self._let_after()
                continue
            self._free -= 1
            tenant.held += 1
            tenant.waking += 1
            waiter.set_result(None)

    def _woken(self, tenant: "Tenant") -> None:
        tenant.waking -= 1
        if tenant.waiting:
            self._give()
        elif not tenant.waking:
            self._let_after()

    def _let_after(self) -> None:
        if self._after is not None and self._after._waiting:
            self._after._give()

    def _forget_idle(self, tenant: "Tenant") -> None:
        if tenant.waiting:
            return
        if tenant in self._waiting:
            del self._waiting[tenant]
            self._let_after()
        if not tenant.held and self._tenants.get(tenant.name) is tenant:
            del self._tenants[tenant.name]


@dataclass(slots=True, eq=False)
class Tenant:
    """A tenant that holds places, or waits for one."""

    name: str
    turns: Turns
    held: int = 0
    #: Those that have got a place for which they waited, and have yet to go on.
    waking: int = 0
    #: Who waits, the first one first, each with what it is known by.
    waiting: "OrderedDict[asyncio.Future[None], Any]" = field(default_factory=OrderedDict)


#: True while a request is carried out that changes something: its calls have places of their own,
#: and those of all else are not held up by them.
changing: ContextVar[bool] = ContextVar("changing", default=False)
#: The tenant of the service account's own calls: log-ins, the list of projects, probes.
ACCOUNT = ""


class ThreadPool:
    """A bounded number of places for calls: of those that block, in threads, and of those on the
    loop. So many for reads and for the service account, and as many for requests that change
    something (`changing`), each given in turn by tenant.
    """

    def __init__(self, size: int, name: str) -> None:
        #: A thread for each place.
        self.threads = ThreadPoolExecutor(2 * size, thread_name_prefix=name)
        self._reads, self._changes = Turns(size), Turns(size)
        self._is_closed = False

    def acquire(self, tenant: str = ACCOUNT) -> Awaitable[Tenant]:
        """Take a place, which `release` gives back; raises `Transient` where no call is begun any
        more.
        """
        if self._is_closed:
            raise _no_more()
        return (self._changes if changing.get() else self._reads).take(tenant)

    @staticmethod
    def release(place: Tenant) -> None:
        """Give a place back."""
        place.turns.release(place)

    async def run(self, function: Callable[[], T], tenant: str = ACCOUNT) -> T:
        """Run a function in a thread.

        A caller that is cancelled waits no longer; its place is free when the function has ended.
        """
        place = await self.acquire(tenant)
        try:
            # With the caller's context: what is logged there belongs to its request, too.
            running = self.threads.submit(copy_context().run, function)
        except BaseException:
            self.release(place)
            raise
        loop = asyncio.get_running_loop()

        def release(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self.release, place)

        running.add_done_callback(release)
        return await asyncio.wrap_future(running)

    async def close(self) -> None:
        """Wait for the calls that are under way; none is begun any more."""
        self._is_closed = True
        for turns in (self._reads, self._changes):
            turns.refuse(_no_more)
        for turns in (self._reads, self._changes):
            await turns.unused()
        self.threads.shutdown(wait=False)


def _no_more() -> Transient:
    return Transient("not_sent", detail="no call is begun any more")


async def in_daemon_thread(function: Callable[[], T], name: str) -> T:
    """Run a function that may hang in a thread of its own; return or raise what it does.

    Unlike `asyncio.to_thread`, a thread that hangs does not keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not future.done():  # else nobody waits any more
            outcome()

    def run() -> None:
        try:
            outcome = partial(future.set_result, function())
        except Exception as error:
            outcome = partial(future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future

"""`ecs-worker run`, made to be killed at an instant that a test names: `python -m
tests.support.dying_worker run`.

Nothing in the worker knows of it: the seams between its parts are wrapped from here, and each
request that is named in `DYING_HOLDS` (JSON, a list of `Hold`s) is held when it comes to its
instant. When all are held the process kills itself, so that one death is the death of many
requests, each at its own instant. With `DYING_STAY` it stays instead, until it is killed from
outside, or SIGUSR1 lets everything go on. Either way it says so by a file named `held`; who is not
held yet stands in the file `missing`.

`DYING_CONSTANTS` (JSON, "module.NAME" to a value) shortens what is long in the worker;
`DYING_STDERR` is where it logs.
"""

import asyncio
import importlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from handlers.effects.backoff import DEFAULT_TIMING
from handlers.openstack.http_client import HttpConnection
from handlers.openstack.watch import Poller
from workers import bootstrap
from workers.amqp.consumer import Delivery
from workers.amqp.publisher import Lane
from workers.cli import main as work
from workers.journal import Journal
from workers.pipeline.process import Pipeline
from workers.pipeline.progress import Progress

#: Seconds in which the broker and the disk get what is on its way, where just that is the instant.
_ON_ITS_WAY = 0.5


class Instant(StrEnum):
    """Holds where a request may be when its worker dies; the first numbers of faults.md."""

    NOTHING_WRITTEN = "1 nothing written"
    REQUEST_WRITTEN = "2 request written"
    #: Not numbered: of a request with several effects, this one has not been begun.
    EFFECT_NOT_BEGUN = "effect not begun"
    INTENT_WRITTEN = "3 intent written"
    CALL_EXECUTED = "4 call executed, answer not read"
    ANSWER_READ = "5 answer read, not written"
    WAITING = "6 waiting"
    RESULT_WRITTEN = "7 result written, not published"
    PUBLISHED = "8 published, not confirmed"
    CONFIRMED = "9 confirmed, not noted"
    NOTED = "10 noted, not acked"


@dataclass(frozen=True, slots=True)
class Hold:
    """Hold a request at an instant; where that is one of an effect, `effect` is a regular
    expression of its name.
    """

    message_id: str
    instant: Instant
    effect: str = ""


_request: ContextVar[str | None] = ContextVar("request", default=None)
_effect: ContextVar[str] = ContextVar("effect", default="")


def settings_for(
    holds: list[Hold],
    *,
    stay: bool = False,
    constants: dict[str, Any] | None = None,
    cloud: dict[str, Any] | None = None,
) -> dict[str, str]:
    """The environment of a worker that is to be held so; `cloud` replaces fields of its
    `CloudSettings`.
    """
    return {
        "DYING_HOLDS": json.dumps([asdict(hold) for hold in holds]),
        "DYING_CONSTANTS": json.dumps(constants or {}),
        "DYING_CLOUD": json.dumps(cloud or {}),
        **({"DYING_STAY": "1"} if stay else {}),
    }


class Holder:
    """Holds who is held, and what happens when all are."""

    def __init__(self, holds: list[Hold], *, stay: bool) -> None:
        self._missing = list(holds)
        self._stay = stay
        self._released = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._settling: list[asyncio.Future[Any]] = []
        self.recorded: set[tuple[str | None, str]] = set()

    def wants(self, instant: Instant, effect: str | None = None) -> Hold | None:
        """The hold that is meant by the request that is being carried out here and now."""
        message_id = _request.get()
        for hold in self._missing:
            meant = effect is None or re.search(hold.effect, effect)
            if meant and (hold.message_id, hold.instant) == (message_id, instant):
                return hold
        return None

    def holds_any(self, instant: Instant) -> bool:
        """Tell whether some request is, or will be, held at this instant."""
        return any(hold.instant is instant for hold in self._missing)

    def arrive(self, hold: Hold) -> bool:
        """Count it as held; safe in any thread. False where another call of its request has come
        first.
        """
        with self._lock:
            if hold not in self._missing:
                return False
            # A new list: `wants` goes through the old one in another thread, and would pass over one.
            self._missing = [one for one in self._missing if one != hold]
            Path("missing").write_text(
                "\n".join(f"{one.instant} {one.effect}" for one in self._missing)
            )
            done = not self._missing
        if done:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._all_held)
        return True

    async def hold(self, hold: Hold) -> None:
        """Wait, mostly for ever."""
        self.arrive(hold)
        # It is set in a signal handler, for threads, too.
        while not self._released.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def open(self) -> None:
        """The worker's loop runs from now on."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGUSR1, self._released.set)

    def note_settling(self, future: "asyncio.Future[Any]") -> None:
        """A request is being noted as published."""
        self._settling.append(future)

    def _all_held(self) -> None:
        async def end() -> None:
            await asyncio.sleep(_ON_ITS_WAY)
            await asyncio.gather(*self._settling)
            Path("held").touch()  # noqa: ASYNC240
            if not self._stay:
                os.kill(os.getpid(), signal.SIGKILL)

        self._ending = asyncio.get_running_loop().create_task(end())


def _around(
    owner: type,
    name: str,
    holder: Holder,
    before: Instant | None,
    after: Instant | None,
    effect_at: int | None = None,
) -> None:
    """Hold before and after a method that is awaited; `effect_at`: where the effect's name is among
    its arguments.
    """
    real = getattr(owner, name)

    def wrapped(self: Any, *arguments: Any) -> Coroutine[Any, Any, Any]:
        async def run() -> Any:
            effect = str(arguments[effect_at]) if effect_at is not None else None
            if before is not None and (hold := holder.wants(before, effect)):
                await holder.hold(hold)
            if name == "intend":
                _effect.set(effect or "")
            result = await real(self, *arguments)
            if name == "record":
                holder.recorded.add((_request.get(), effect or ""))
            if after is not None and (hold := holder.wants(after, effect)):
                await holder.hold(hold)
            return result

        return run()

    setattr(owner, name, wrapped)


def instrument(holder: Holder) -> None:
    """Wrap every seam."""
    _around(Journal, "begin", holder, Instant.NOTHING_WRITTEN, Instant.REQUEST_WRITTEN)
    _around(
        Journal, "intend", holder, Instant.EFFECT_NOT_BEGUN, Instant.INTENT_WRITTEN, effect_at=1
    )
    _around(Progress, "record", holder, Instant.ANSWER_READ, None, effect_at=0)
    _around(Journal, "finish", holder, None, Instant.RESULT_WRITTEN)
    _around(Progress, "publish_end", holder, None, Instant.CONFIRMED)
    _know_the_request(holder)
    _hold_at_the_wire(holder)
    _hold_the_waiting(holder)
    _hold_confirms(holder)
    _hold_acks(holder)


def _know_the_request(holder: Holder) -> None:
    """Run whatever runs for a delivery in its context, in threads, too."""
    accept: Callable[[Pipeline, Delivery], None] = Pipeline.accept

    def accept_knowing(self: Pipeline, delivery: Delivery) -> None:
        token = _request.set(delivery.envelope.message_id)
        accept(self, delivery)
        _request.reset(token)

    Pipeline.accept = accept_knowing  # type: ignore[method-assign]


def _hold_at_the_wire(holder: Holder) -> None:
    """The cloud has answered, so it has done it; nobody reads the answer, and the call goes on."""
    call, end = HttpConnection.call, HttpConnection._end
    calls: dict[HttpConnection, tuple[bytes, Context]] = {}
    held: dict[HttpConnection, asyncio.Task[None]] = {}

    def call_knowing(self: HttpConnection, request: bytes, *rest: Any, **more: Any) -> Any:
        calls[self] = request, copy_context()
        return call(self, request, *rest, **more)

    def end_or_hold(self: HttpConnection, *, keep: bool) -> None:
        if self in held:
            return  # the server closes it meanwhile
        request, context = calls.pop(self)
        changes = not request.startswith(b"GET ") and 200 <= self._answer.status < 400
        hold = context.run(lambda: holder.wants(Instant.CALL_EXECUTED, _effect.get()))
        # Two calls of one request may come at once; one of them is held, and takes up a place.
        if hold is None or not changes or not holder.arrive(hold):
            end(self, keep=keep)
            return

        async def hold_and_end() -> None:
            await holder.hold(hold)
            del held[self]
            self._answer.lost = None
            end(self, keep=keep)

        self._timer.cancel()
        held[self] = self._loop.create_task(hold_and_end())

    HttpConnection.call = call_knowing  # type: ignore[method-assign]
    HttpConnection._end = end_or_hold  # type: ignore[method-assign]


def _hold_the_waiting(holder: Holder) -> None:
    """The first wait after the effect was written down, by this run or an earlier one."""
    following, begin = Poller.next, Progress.__init__

    def begin_knowing(self: Progress, request: Any, *arguments: Any) -> None:
        begin(self, request, *arguments)
        holder.recorded |= {
            (request.envelope.message_id, str(name))
            for name, one in self.effects().items()
            if one.outcome
        }

    async def next_or_hold(self: Poller[Any], *arguments: Any) -> Any:
        for request, effect in list(holder.recorded):
            if request == _request.get() and (hold := holder.wants(Instant.WAITING, effect)):
                await holder.hold(hold)
        return await following(self, *arguments)

    Poller.next = next_or_hold  # type: ignore[method-assign]
    Progress.__init__ = begin_knowing  # type: ignore[method-assign]


def _hold_confirms(holder: Holder) -> None:
    """The broker confirms, and nobody hears it."""
    publish_end: Callable[[Progress, Any], Awaitable[None]] = Progress.publish_end
    confirmed: Callable[[Lane, int, bool], None] = Lane._confirmed
    deaf = holder.holds_any(Instant.PUBLISHED)

    async def publish_end_unconfirmed(self: Progress, result: Any) -> None:
        if hold := holder.wants(Instant.PUBLISHED):
            holder.arrive(hold)
        await publish_end(self, result)

    Progress.publish_end = publish_end_unconfirmed  # type: ignore[method-assign]
    Lane._confirmed = (  # type: ignore[method-assign]
        lambda self, tag, multiple: None if deaf else confirmed(self, tag, multiple)
    )


def _hold_acks(holder: Holder) -> None:
    """Everything is done but the ack."""
    settle: Callable[[Journal, str], asyncio.Future[None]] = Journal.settle
    ack: Callable[[Delivery], None] = Delivery.settle

    def note(self: Journal, key: str) -> "asyncio.Future[None]":
        future = settle(self, key)
        holder.note_settling(future)
        return future

    def ack_or_hold(self: Delivery) -> None:
        if hold := holder.wants(Instant.NOTED):
            holder.arrive(hold)
        else:
            ack(self)

    Journal.settle = note  # type: ignore[method-assign]
    Delivery.settle = ack_or_hold  # type: ignore[method-assign]


def _set_cloud(effects: dict[str, float] | None = None, **replaced: Any) -> None:
    """Have the worker use a cloud with other times."""
    real = bootstrap.cloud_settings
    timing = replace(DEFAULT_TIMING, **(effects or {}))
    bootstrap.cloud_settings = lambda settings: replace(real(settings), effects=timing, **replaced)


def _get_clock(library: str) -> None:
    """Begin again with a clock that a file can set; whoever started us keeps his."""
    arguments = [sys.executable, "-m", "tests.support.dying_worker", *sys.argv[1:]]
    os.execve(sys.executable, arguments, os.environ | {"LD_PRELOAD": library})


def main() -> None:
    """Wrap, then be the worker."""
    if "DYING_CLOCK" in os.environ:
        _get_clock(os.environ.pop("DYING_CLOCK"))
    if "LD_PRELOAD" in os.environ:
        # Debian's libfaketime fails at the one way in which `time.sleep` sleeps.
        time.sleep = lambda seconds: threading.Event().wait(seconds) and None  # type: ignore[assignment]
    if "DYING_STDERR" in os.environ:
        os.dup2(os.open(os.environ["DYING_STDERR"], os.O_WRONLY), 2)
    for name, value in json.loads(os.environ.get("DYING_CONSTANTS", "{}")).items():
        module, _, constant = name.rpartition(".")
        found = importlib.import_module(module)
        assert hasattr(found, constant), name
        setattr(found, constant, value)
    _set_cloud(**json.loads(os.environ.get("DYING_CLOUD", "{}")))
    holds = [
        Hold(one["message_id"], Instant(one["instant"]), one["effect"])
        for one in json.loads(os.environ.get("DYING_HOLDS", "[]"))
    ]
    if holds:
        holder = Holder(holds, stay="DYING_STAY" in os.environ)
        instrument(holder)
        run = bootstrap.Worker.run

        async def run_held(self: bootstrap.Worker) -> None:
            holder.open()
            await run(self)

        bootstrap.Worker.run = run_held  # type: ignore[method-assign]
    work()


if __name__ == "__main__":
    main()

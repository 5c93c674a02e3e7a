"""Deadlines, and waiting longer after each failure: the one statement of backoff.

Deadlines are on the monotonic clock: a jump of the wall clock neither ends nor stretches a wait.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from messages.errors import Transient
from messages.record import record

T = TypeVar("T")

#: Seconds that are left to a call at least.
LEAST = 1.0
#: Seconds by which an alarm may be late. Each look goes over all alarms, so that there must not be
#: one for each of thousands that ring together.
_GRAIN = 0.001


class Deadline(NamedTuple):
    """An instant until which something may take, in seconds of the monotonic clock."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Return the deadline so many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds until then; 0 when it has passed."""
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        """True when it is over."""
        return time.monotonic() >= self.at


class Alarm:
    """Rings at a deadline, unless its block has been left before.

    A delivery has three limits, of which nearly none is ever reached. Here setting one is an entry
    in a set; one timer watches all alarms of a loop, and is at most `_GRAIN` late. A timer for each
    costs ten times as much.
    """

    __slots__ = ("_alarms", "_call", "at")

    def __init__(self, until: Deadline | None, call: Callable[[], object] | None = None) -> None:
        """`until` None: it never rings. `call` is called when it does."""
        #: The deadline, in seconds of the monotonic clock.
        self.at = until.at if until is not None else math.inf
        self._call = call

    def __enter__(self) -> Self:
        self._alarms = alarms = _alarms_of(asyncio.get_running_loop())
        alarms.open.add(self)
        if self.at < alarms.looks_at:
            alarms.look_at(self.at)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The timer stays: nearly always the next alarm wants it, too.
        self._alarms.open.discard(self)

    def ring(self) -> None:
        """Call the function."""
        if self._call is not None:
            self._call()


class within(Alarm):  # noqa: N801 - read as a word: `with within(deadline):`
    """Bounds what is awaited inside, as `asyncio.timeout` does: `TimeoutError` past the deadline."""

    __slots__ = ("_cancelling", "_task", "expired")

    def __init__(self, until: Deadline | None) -> None:
        """`until` None: there is no limit."""
        # It rings by its method. A method as `call` would be a cycle of references, by which each
        # limit keeps its task, with all that the task has returned, until garbage is looked for.
        super().__init__(until)
        #: True once the limit has ended what was awaited.
        self.expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a limit is set inside a task")
        self._task = task
        self._cancelling = task.cancelling()
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        if (
            self.expired
            and self._task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def ring(self) -> None:
        """Cancel what is awaited inside."""
        self.expired = True
        self._task.cancel()


class _Alarms:
    """The alarms of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.open: set[Alarm] = set()
        #: When they are looked at, on the monotonic clock.
        self.looks_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def look_at(self, at: float) -> None:
        """Ring what is due at this instant, and see to the rest."""
        if self._timer is not None:
            self._timer.cancel()
        self.looks_at = at
        self._timer = self.loop.call_later(max(0.0, at - time.monotonic()), self._look)

    def _look(self) -> None:
        now = time.monotonic()
        self._timer, self.looks_at = None, math.inf
        due = [one for one in self.open if one.at <= now]
        for alarm in sorted(due, key=lambda one: one.at):
            self.open.discard(alarm)
            alarm.ring()
        following = min((one.at for one in self.open), default=math.inf)
        if following < math.inf:
            self.look_at(max(following, now + _GRAIN))


_latest: list[_Alarms] = []


def _alarms_of(loop: asyncio.AbstractEventLoop) -> _Alarms:
    """Return the alarms of a loop; a process has one loop at a time."""
    if not _latest or _latest[0].loop is not loop:
        _latest[:] = [_Alarms(loop)]
    return _latest[0]


@record
class EffectTiming:
    """Times by which the call of an effect may be late, in seconds."""

    #: Until the cloud shows a call whose answer was lost.
    settle: float = 2.0
    #: Until a call is certainly no longer under way whose worker has died.
    flight: float = 10.0
    #: Until a call is certainly no longer under way that the cloud may still carry out: it timed
    #: out, or a gateway gave up.
    late: float = 60.0
    #: The same for a command. It is answered in time whatever the cloud does: nobody waits for what
    #: is found after its answer.
    late_command: float = 120.0
    #: Between two looks at the cloud.
    look_every: float = 0.5
    #: After which the right to send a call is checked again, and within which the call must then be
    #: sent. A worker that stood still for longer may have been taken for dead: whoever took the
    #: request over looks for the call for `flight` seconds, which is longer than both together.
    fresh: float = 2.0
    send_within: float = 5.0


#: The times of a real cloud.
DEFAULT_TIMING = EffectTiming()


def delay_after(failures: int, first: float, most: float) -> float:
    """Seconds to wait after so many failures in a row: `first` doubled for each, `most` at most."""
    return min(first * 2.0 ** min(failures, 30), most)


def delays(first: float, most: float) -> Iterator[float]:
    """Yield delays in seconds without end, each twice the one before, up to `most`."""
    return (delay_after(failures, first, most) for failures in count())


async def retrying(
    call: Callable[[], Awaitable[T]], retry_until: Deadline, expiry: Deadline | None = None
) -> T:
    """Make a call that changes nothing, and retry it until a deadline; then raise `Transient`.

    Past `expiry`, where there is one, an answer is of no use to the requester: it is not waited
    for.
    """
    for failures in count():
        # What is asked after the end is for its course: it has no limit.
        until = expiry
        if expiry is not None and (left := expiry.left) < LEAST:
            until = Deadline.after(LEAST) if left > 0 else None
        try:
            with within(until) as limit:
                return await call()
        except TimeoutError:
            if not limit.expired:
                raise
            error = Transient("timeout", detail="the time was up before OpenStack answered")
        except Transient as failed:
            error = failed
        await pause(error, delay_after(failures, 0.2, 5.0), retry_until)
    raise AssertionError("there is always a next try")


async def pause(error: Transient, delay: float, retry_until: Deadline) -> None:
    """Wait before the next try, or raise the error where that would be too late."""
    wait = max(delay, error.retry_after or 0.0)
    if wait > retry_until.left:
        raise error
    await asyncio.sleep(wait)

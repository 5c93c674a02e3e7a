"""Deadlines, and waiting longer after each failure: the one statement of backoff.

Deadlines are on the monotonic clock: a jump of the wall clock neither ends nor stretches a wait.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from messages.errors import Transient

T = TypeVar("T")

#: Seconds that are left to a call at least.
LEAST = 1.0


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
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


@dataclass(frozen=True, slots=True)
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
        left = expiry.left if expiry is not None else 0.0
        try:
            # What is asked after the end is for its course: it has no limit.
            async with asyncio.timeout(max(left, LEAST) if left > 0 else None) as limit:
                return await call()
        except TimeoutError:
            if not limit.expired():
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

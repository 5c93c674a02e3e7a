"""Time limits, on the monotonic clock: a jump of the wall clock neither ends nor stretches a wait."""

import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """An instant until which something may take, in seconds of the monotonic clock."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """So many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds until then; 0 when it has passed."""
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return time.monotonic() >= self.at


def growing(first: float, most: float) -> Iterator[float]:
    """Delays in seconds, each twice the one before, up to the longest."""
    delay = first
    while True:
        yield delay
        delay = min(delay * 2, most)

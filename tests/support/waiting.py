"""Waiting for something that a test cannot be told of: it looks again and again."""

import time
from collections.abc import Callable

#: Seconds between two looks at least and at most, and the multiple of a look's own time between
#: them: a wait that asks the real control plane or starts a command without a pause would slow
#: down what it waits for, and all other tests of the machine.
_LEAST, _MOST, _MULTIPLE = 0.05, 1.0, 4


def eventually(
    holds: Callable[[], bool],
    seconds: float = 15.0,
    still: Callable[[], str] = lambda: "does not hold",
) -> None:
    """Wait until something holds, or fail after so many seconds with what `still` returns then."""
    limit = time.monotonic() + seconds
    while True:
        begun = time.monotonic()
        if holds():
            return
        now = time.monotonic()
        assert now < limit, f"{still()}, after {seconds} s"
        time.sleep(min(max(_LEAST, _MULTIPLE * (now - begun)), _MOST))

"""Times as operators read them; everything is UTC."""

import time
from datetime import UTC, datetime

#: Seconds of each unit.
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def shown_time(seconds: float | None) -> str:
    """Return a time for a person: `2026-11-23 10:00:00Z`; empty for None."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def ago(seconds: float) -> str:
    """Return how long ago a time was."""
    return f"{span(time.time() - seconds)} ago"


def span(seconds: float) -> str:
    """Return a duration in the largest unit of which there are two: `90s`, `12m`, `3h`."""
    for letter in "dhm":
        if seconds >= 2 * SECONDS[letter]:
            return f"{int(seconds) // SECONDS[letter]}{letter}"
    return f"{max(0, int(seconds))}s"

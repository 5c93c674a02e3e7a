"""Times as an operator types and reads them; everything is UTC."""

import re
import time
from datetime import UTC, datetime

import typer

_AGO = re.compile(r"(\d{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_time(text: str) -> float:
    """Return Unix seconds of `2026-11-23`, `2026-11-23T10:00:00Z`, or of a time so long ago: `90s`,
    `30m`, `2h`, `3d`. Raises `BadParameter`.
    """
    if ago := _AGO.fullmatch(text.strip()):
        return time.time() - int(ago[1]) * _SECONDS[ago[2]]
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(
            "a time such as 2026-11-23T10:00:00Z, or so long ago: 90s, 30m, 2h, 3d"
        ) from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def json_time(seconds: float | None) -> str | None:
    """Return a time for JSON: UTC with milliseconds."""
    if seconds is None:
        return None
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def shown_time(seconds: float | None) -> str:
    """Return a time for a person: `2026-11-23 10:00:00Z`; empty for None."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def ago(seconds: float) -> str:
    """Return how long ago a time was, in the largest unit of which there are two."""
    passed = max(0, int(time.time() - seconds))
    for letter in "dhm":
        if passed >= 2 * _SECONDS[letter]:
            return f"{passed // _SECONDS[letter]}{letter} ago"
    return f"{passed}s ago"

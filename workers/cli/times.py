"""Times as a person types and reads them; everything is UTC."""

import re
import time
from datetime import UTC, datetime

import typer

_AGO = re.compile(r"(\d{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def instant(text: str) -> float:
    """Unix seconds of `2026-11-23`, `2026-11-23T10:00:00Z`, or of so long ago: `90s`, `30m`, `2h`,
    `3d`.
    """
    if ago := _AGO.fullmatch(text.strip()):
        return time.time() - int(ago[1]) * _SECONDS[ago[2]]
    found = _parsed(text.strip())
    if found is None:
        raise typer.BadParameter(
            "a time such as 2026-11-23T10:00:00Z, or so long ago: 90s, 30m, 2h, 3d"
        )
    return found


def _parsed(text: str) -> float | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def wire(seconds: float | None) -> str | None:
    """As it goes into JSON: UTC with milliseconds."""
    if seconds is None:
        return None
    return (
        datetime.fromtimestamp(seconds, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def shown(seconds: float | None) -> str:
    """As a person reads it: `2026-11-23 10:00:00Z`."""
    return (
        datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        if seconds is not None
        else ""
    )


def ago(seconds: float) -> str:
    """How long ago, in the largest unit that says something."""
    passed = max(0, int(time.time() - seconds))
    for letter in "dhm":
        if passed >= 2 * _SECONDS[letter]:
            return f"{passed // _SECONDS[letter]}{letter} ago"
    return f"{passed}s ago"

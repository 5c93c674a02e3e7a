"""Times as an operator types and reads them; everything is UTC."""

import re
import time
from datetime import UTC, datetime

import typer

from workers.admin.times import SECONDS, ago, shown_time

__all__ = ["ago", "json_time", "parse_time", "shown_time"]

_AGO = re.compile(r"(\d{1,9})([smhd])")


def parse_time(text: str) -> float:
    """Return Unix seconds of `2026-11-23`, `2026-11-23T10:00:00Z`, or of a time so long ago: `90s`,
    `30m`, `2h`, `3d`. Raises `BadParameter`.
    """
    if ago := _AGO.fullmatch(text.strip()):
        return time.time() - int(ago[1]) * SECONDS[ago[2]]
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(
            "a time such as 2026-11-23T10:00:00Z, or so long ago: 90s, 30m, 2h, 3d"
        ) from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def parse_duration(text: str) -> float:
    """Return the seconds of `90s`, `30m`, `2h`, `3d`. Raises `BadParameter`."""
    if found := _AGO.fullmatch(text.strip()):
        return float(int(found[1]) * SECONDS[found[2]])
    raise typer.BadParameter("so long: 90s, 30m, 2h, 3d")


def json_time(seconds: float | None) -> str | None:
    """Return a time for JSON: UTC with milliseconds."""
    if seconds is None:
        return None
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")

"""Values as pages show them."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from messages.secrets import mask


def moment(value: float | str | None) -> str:
    """Return an instant (Unix seconds, or an ISO text) as UTC to the second."""
    if value is None or value == "":
        return "–"
    if isinstance(value, str):
        try:
            return moment(datetime.fromisoformat(value).timestamp())
        except (ValueError, OverflowError):  # a header that somebody else wrote
            return value
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def clock(value: float | None) -> str:
    """Return an instant's time of day, UTC."""
    return "–" if value is None else datetime.fromtimestamp(value, UTC).strftime("%H:%M:%SZ")


def duration(seconds: float | None) -> str:
    """Return a duration in the two largest units that it has."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = int(seconds)
    for unit, name, small, below in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= unit:
            rest = whole % unit // small
            return f"{whole // unit} {name}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def age(instant: float | None) -> str:
    """Return how long ago an instant was."""
    return "–" if instant is None else duration(max(0.0, time.time() - instant))


def pretty(value: Any) -> str:
    """Return a JSON value, indented, its secrets masked."""
    return json.dumps(mask(value), ensure_ascii=False, indent=2, default=str)


def number(value: float | None) -> str:
    """Return a number, with thin spaces between thousands."""
    if value is None:
        return "–"
    shown = (
        f"{value:,.1f}" if isinstance(value, float) and not value.is_integer() else f"{value:,.0f}"
    )
    return shown.replace(",", "\N{NARROW NO-BREAK SPACE}")


FILTERS: dict[str, Callable[..., str]] = {
    one.__name__: one for one in (moment, clock, duration, age, pretty, number)
}

"""A request's timeline as a picture: the positions, for a template that draws it as SVG.

Positions are percent of the width, so that the picture fits a narrow screen and its text stays as
large as the page's. The same events stand in a table beside it.
"""

from collections.abc import Sequence

from messages.record import record
from workers.admin.find import Event, EventKind, Mark

#: Heights in pixels: of the axis, and of a lane with its label.
AXIS, LANE = 26, 40
#: Lanes of effects; of more, the rest stands in the table alone.
_MOST_LANES = 40
#: Percent of the width that something has at least which took no time.
_NARROWEST = 0.6
#: Seconds between two lines of the axis: the first of which there are few enough.
_STEPS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600,
    1800, 3600, 7200, 21600, 43200, 86400, 172800, 604800, 2592000,
)  # fmt: skip
_MOST_LINES = 4
#: The classes that give things their colours.
_CLASSES = {
    EventKind.RECEIVED: "delivery",
    EventKind.EFFECT: "effect",
    EventKind.UPDATE: "update",
    EventKind.RETRY: "wait",
    EventKind.WAIT: "wait",
    EventKind.RESULT: "ok",
    EventKind.DEAD: "failed",
    EventKind.REPLAY: "run",
    EventKind.DISCARD: "failed",
}
#: Titles of the lanes that several events share, in their order.
_SHARED = {
    "Deliveries and waits": (
        EventKind.RECEIVED,
        EventKind.RETRY,
        EventKind.WAIT,
        EventKind.DEAD,
        EventKind.REPLAY,
        EventKind.DISCARD,
    ),
    "Status updates": (EventKind.UPDATE,),
    "Result": (EventKind.RESULT,),
}


@record
class Bar:
    """Something that happened: `left` and `width` in percent. `text` names it."""

    left: float
    width: float
    css: str
    event: Event


@record
class Lane:
    """A line of the picture, `top` pixels from its upper edge. `is_text`: its title is an effect's
    own name, which no language changes.
    """

    title: str
    top: int
    bars: tuple[Bar, ...]
    is_text: bool = False


@record
class Line:
    """A line of the axis, with the seconds since the begin."""

    left: float
    seconds: float


@record
class Timeline:
    """The picture. `now` is where the present stands, None where the request has ended."""

    begin: float
    end: float
    height: int
    lines: tuple[Line, ...]
    lanes: tuple[Lane, ...]
    now: float | None
    left_out: int


def timeline(events: Sequence[Event], now: float | None) -> Timeline | None:
    """Return the picture of these events; None where there are none. `now`: Unix seconds, where the
    request has not ended.
    """
    if not events:
        return None
    begin = min(one.at for one in events)
    end = max(one.until or one.at for one in events)
    end = max(end, now or end, begin + 0.001)
    whole = end - begin

    def left(at: float) -> float:
        return round(100 * (at - begin) / whole, 3)

    def bar(event: Event) -> Bar:
        until = event.until
        if until is None:
            is_open = event.kind is EventKind.EFFECT and event.mark is Mark.OPEN
            until = (now or event.at) if is_open else event.at
        width = max(left(until) - left(event.at), _NARROWEST)
        css = "failed" if event.mark is Mark.FAILED else _CLASSES[event.kind]
        if event.mark is Mark.OPEN and event.kind is EventKind.EFFECT:
            css = "run"
        return Bar(min(left(event.at), 100 - width), width, css, event)

    effects = [one for one in events if one.kind is EventKind.EFFECT]
    rows: list[tuple[str, list[Event], bool]] = []
    shared = iter(_SHARED.items())
    title, kinds = next(shared)
    rows.append((title, [one for one in events if one.kind in kinds], False))
    rows += [(one.text, [one], True) for one in effects[:_MOST_LANES]]
    rows += [
        (title, [one for one in events if one.kind in kinds], False) for title, kinds in shared
    ]
    lanes = tuple(
        Lane(title, AXIS + LANE * number, tuple(map(bar, some)), is_text)
        for number, (title, some, is_text) in enumerate(row for row in rows if row[1])
    )
    step = next((one for one in _STEPS if whole / one <= _MOST_LINES), whole)
    lines = tuple(
        Line(left(begin + step * number), step * number) for number in range(int(whole / step) + 1)
    )
    return Timeline(
        begin=begin,
        end=end,
        height=AXIS + LANE * len(lanes) + 6,
        lines=lines,
        lanes=lanes,
        now=left(now) if now is not None else None,
        left_out=max(0, len(effects) - _MOST_LANES),
    )

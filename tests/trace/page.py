"""docs/design/one-message.md: the ways of three messages, as text, and whether a text is still
true.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby

from tests.trace.messages import WORK, Entered, Figures, Outside, Way

#: A figure of the page may be off by that part before the page is out of date.
TOLERANCE = 0.1
#: The stages of the pipeline, each with the file in which it begins.
_STAGES = (
    ("parse", "workers/pipeline/parsing.py"),
    ("authenticate", "workers/pipeline/authentication.py"),
    ("turn", "workers/pipeline/turns.py"),
    ("claim", "workers/pipeline/idempotency.py"),
    ("lock", "workers/pipeline/server_locks.py"),
    ("run", WORK),
    ("finish", ()),
    ("settle", ()),
)
_PUBLISHED = Outside("journal", "requests: settled")
_HEAD = """# One message

The way of three messages through the worker, traced in a worker's process with a real broker, an SQLite journal and
the simulated cloud (`make trace`). A test compares this page with a new trace; `make docs` writes it anew.

Each file stands once, where the message first enters it, with the function that it is entered by. `→` is what leaves
the process: writes to the journal, messages and acks to the broker, calls to OpenStack. Calls that run at the same time
stand in alphabetical order, and the same call in a row stands once.

The order in three places makes the worker safe, and is commented where it is:

- the intent of an effect is in the journal before OpenStack is called;
- the result is in the journal before it is published;
- the broker has confirmed everything before the message is acked.

The figures count named functions of `messages/`, `handlers/` and `workers/` that are entered in the message's own
context (its task, tasks made by it, its threads), from where the consumer hands the delivery on. *Returns* counts how
often the next new function is in a file that was left before. Shared threads (the journal's writer) and timers are not
counted.
"""


def page(ways: Iterable[Way]) -> str:
    """The page."""
    ways = tuple(ways)
    head = "| message | functions | files | returns | before the handler |\n|---|---|---|---|---|"
    rows = [_row(way) for way in ways]
    parts = [f"## `{way.title}`\n\n```text\n" + "\n".join(_lines(way)) + "\n```" for way in ways]
    return "\n\n".join((_HEAD + "\n" + "\n".join((head, *rows)), *parts)) + "\n"


def outdated(text: str, ways: Iterable[Way]) -> list[str]:
    """Return what of the page is true no more, a line each.

    The order of files is not compared, nor that of calls that run at the same time: it differs from
    run to run.
    """
    ways = tuple(ways)
    wrong = []
    for way in ways:
        found = re.search(rf"## `{re.escape(way.title)}`\n\n```text\n(.*?)\n```", text, re.DOTALL)
        lines = found[1].splitlines() if found else []
        shown = dict(line.split() for line in lines if line.startswith("  ") and "→" not in line)
        entered = {(one.file, one.function) for one in way.entered}
        wrong += [
            f"{way.title}: {file} {function} is not entered"
            for file, function in shown.items()
            if (file, function) not in entered
        ]
        wrong += [
            f"{way.title}: {file} is not shown"
            for file in sorted({one for one, _ in entered} - {*shown})
        ]
        left = [line.strip() for line in lines if "→" in line]
        if left != (
            now := [_arrow(one) for one in _settled(way.events) if isinstance(one, Outside)]
        ):
            wrong.append(f"{way.title}: what leaves the process is now\n  " + "\n  ".join(now))
    wrong += [f"{title}: the figures" for title in _outdated_figures(text, ways)]
    return wrong


def _outdated_figures(text: str, ways: tuple[Way, ...]) -> Iterator[str]:
    for way in ways:
        row = re.search(rf"^\| `{re.escape(way.title)}` .*$", text, re.MULTILINE)
        shown = [int(number) for number in re.findall(r"\d+", row[0])] if row else []
        now = [int(number) for number in re.findall(r"\d+", _row(way))]
        if len(shown) != len(now) or any(
            abs(one - other) > max(2, TOLERANCE * other)
            for one, other in zip(shown, now, strict=True)
        ):
            yield way.title


def _row(way: Way) -> str:
    return f"| `{way.title}` | {_cells(way.figures)} | {_before(way.before_work)} |"


def _cells(figures: Figures) -> str:
    return f"{figures.functions} | {figures.files} | {figures.returns}"


def _before(figures: Figures) -> str:
    return f"{figures.functions} functions, {figures.files} files"


def _lines(way: Way) -> Iterator[str]:
    stage, begun = "", -1
    files: set[str] = set()
    for one in _settled(way.events):
        if (now := _stage(one, begun)) > begun:
            begun = now
            stage = _STAGES[begun][0]
            yield stage
        if isinstance(one, Outside):
            yield f"      {_arrow(one)}"
        elif one.file not in files:
            files.add(one.file)
            yield f"  {one.file:45} {one.function}"


def _stage(one: Entered | Outside, begun: int) -> int:
    """The number of the stage that begins here; of a later one only."""
    if isinstance(one, Outside):
        return begun
    for number, (name, files) in enumerate(_STAGES):
        begins = {
            "finish": one.function.rpartition(".")[2] in ("finish", "publish_end"),
            "settle": one.function.endswith("Delivery.settle"),
        }.get(name, bool(files) and one.file.startswith(files))
        if begins and number > begun:
            return number
    return begun


def _arrow(one: Outside) -> str:
    return f"→ {one.kind:8} {one.text}"


def _settled(events: Iterable[Entered | Outside]) -> Iterator[Entered | Outside]:
    """The same events whatever the run.

    Between two writes reads of the cloud stand in order of their text, and what is the same stands
    once: how often a state is looked at is a matter of time. That the result was published is noted
    in the journal at the same time as the ack, sometimes before it: it is left out. The outcome of
    a call is not waited for: it stands right behind the call.
    """
    kept = _with_outcomes(one for one in events if one != _PUBLISHED)
    for is_write, group in groupby(kept, _is_write):
        members = list(group)
        if is_write:
            yield from members
            continue
        outside = [number for number, one in enumerate(members) if isinstance(one, Outside)]
        last = outside[-1] if outside else 0
        yield from (one for one in members[:last] if isinstance(one, Entered))
        texts = {(one.kind, one.text) for one in members if isinstance(one, Outside)}
        yield from (Outside(*one) for one in sorted(texts))
        yield from (one for one in members[last:] if isinstance(one, Entered))


def _with_outcomes(events: Iterable[Entered | Outside]) -> list[Entered | Outside]:
    found: list[Entered | Outside] = []
    after = 0  # the last call that changes something, or the outcome that was moved behind it
    for one in events:
        is_outcome = isinstance(one, Outside) and one.text.endswith(", outcome")
        found.insert(after if is_outcome else len(found), one)
        if isinstance(one, Outside) and one.kind == "cloud" and not one.text.startswith("GET "):
            after = len(found)
        elif is_outcome:
            after += 1
    return found


def _is_write(one: Entered | Outside) -> bool:
    return isinstance(one, Outside) and not one.text.startswith(("GET ", "publish server."))

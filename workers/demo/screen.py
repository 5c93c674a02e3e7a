"""The demo's output."""

import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

from messages.texts import terminal_safe
from sandbox.requester import Heard, Source

#: Characters of a result that are shown.
_MOST = 150
_STYLES = {Source.REPLY: "green", Source.ORDER_RESULT: "green", Source.STATUS: "cyan"}
_NAMES = {Source.REPLY: "result", Source.ORDER_RESULT: "order result", Source.STATUS: "status"}


class Screen:
    """Lines on stdout, each with the seconds since the start."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._started = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show that a part is starting, and print a line once it has started."""
        begun = time.monotonic()
        with self._console.status(f"{title} ..."):
            yield
        self._line("ready", f"{title} ({time.monotonic() - begun:.1f} s)", "bold")

    def title(self, text: str) -> None:
        """Print the title of a scenario."""
        self._console.print()
        self._console.print(Text(terminal_safe(text), "bold"))

    def request(self, text: str) -> None:
        """Print a request that is published."""
        self._line("request →", text, "yellow")

    def observation(self, text: str) -> None:
        """Print what was observed in the cloud or in a queue."""
        self._line("seen", text, "magenta")

    def message(self, one: Heard) -> None:
        """Print a result or a status update that came."""
        text = _update(one.body) if one.source is Source.STATUS else _result(one.body)
        self._line(f"← {_NAMES[one.source]}", text, _STYLES[one.source])

    def text(self, text: str) -> None:
        """Print lines as they are, without the time."""
        self._console.print(Text(terminal_safe(text, lines=True)))

    def summary(self, checks: list[tuple[str, bool]]) -> None:
        """Print each promise, and whether it held."""
        seconds = time.monotonic() - self._started
        table = Table(title=f"Promises ({seconds:.0f} s)", title_justify="left")
        table.add_column("")
        table.add_column("promise", overflow="fold")
        for promise, held in checks:
            table.add_row(Text("held", "green") if held else Text("BROKEN", "bold red"), promise)
        self._console.print()
        self._console.print(table)

    def _line(self, kind: str, text: str, style: str) -> None:
        line = Text(f"{time.monotonic() - self._started:6.1f} s  ", "dim")
        line.append(f"{kind:<15}", style)
        line.append(terminal_safe(text))
        self._console.print(line)


def _update(body: dict[str, object]) -> str:
    progress = f", {body['progress']} %" if "progress" in body else ""
    final = ", final" if body["final"] else ""
    shown_id = str(body["id"])[:8]
    translation = body["translation"] or ""
    return f"{body['resource']} {shown_id} {body['status']} {translation}{progress}{final}"


def _result(body: dict[str, object]) -> str:
    data = body["data"]
    shown = ""
    if isinstance(data, dict) and "productSetList" in data:
        one = data["productSetList"][0]
        changed = f"resourceChanged {one['resourceChanged']}"
        shown = f"order {data['orderId']}: {one['productSetStatus']}, {changed}"
    elif data is not None:
        shown = textwrap.shorten(str(data), _MOST, placeholder=" …")
    return f"{body['code']} {body['message']} {shown}"

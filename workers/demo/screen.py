"""What the person at the terminal sees."""

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

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """A part that is started; a line once it is there."""
        begun = self.seconds
        with self._console.status(f"{what} ..."):
            yield
        self._line("ready", f"{what} ({self.seconds - begun:.1f} s)", "bold")

    def title(self, text: str) -> None:
        """A scene begins."""
        self._console.print()
        self._console.print(Text(terminal_safe(text), "bold"))

    def sent(self, text: str) -> None:
        """A request was published."""
        self._line("request →", text, "yellow")

    def note(self, text: str) -> None:
        """What is seen elsewhere: in the cloud, in a queue."""
        self._line("seen", text, "magenta")

    def heard(self, one: Heard) -> None:
        """A message came back."""
        text = _update(one.body) if one.source is Source.STATUS else _result(one.body)
        self._line(f"← {_NAMES[one.source]}", text, _STYLES[one.source])

    def verdict(self, checks: list[tuple[str, bool]]) -> None:
        """The summary."""
        table = Table(
            title=f"What was promised, and what was seen ({self.seconds:.0f} s)",
            title_justify="left",
        )
        table.add_column("")
        table.add_column("promised", overflow="fold")
        for what, held in checks:
            table.add_row(Text("held", "green") if held else Text("BROKEN", "bold red"), what)
        self._console.print()
        self._console.print(table)

    def _line(self, kind: str, text: str, style: str) -> None:
        line = Text(f"{self.seconds:6.1f} s  ", "dim")
        line.append(f"{kind:<15}", style)
        line.append(terminal_safe(text))
        self._console.print(line)


def _update(body: dict[str, object]) -> str:
    progress = f", {body['progress']} %" if "progress" in body else ""
    final = ", final" if body["final"] else ""
    return f"{body['resource']} {str(body['id'])[:8]} {body['status']} {body['translation'] or ''}{progress}{final}"


def _result(body: dict[str, object]) -> str:
    data = body["data"]
    shown = ""
    if isinstance(data, dict) and "productSetList" in data:
        one = data["productSetList"][0]
        shown = f"order {data['orderId']}: {one['productSetStatus']}, resourceChanged {one['resourceChanged']}"
    elif data is not None:
        shown = textwrap.shorten(str(data), _MOST, placeholder=" …")
    return f"{body['code']} {body['message']} {shown}"

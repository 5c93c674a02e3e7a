"""Rows to stdout: as a table for eyes, as JSON for programs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

from messages.texts import terminal_safe

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


class Format(StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


def show(rows: Iterable[Mapping[str, Any]], output: Format) -> None:
    """Print rows that all have the same fields."""
    listed = [dict(row) for row in rows]
    if output is Format.TABLE:
        Page().table(listed)
    else:
        show_json(listed, output)


def show_json(rows: Sequence[Mapping[str, Any]], output: Format) -> None:
    """Print rows as one JSON list, or as an object a line."""
    if output is Format.JSON:
        print(json_text(list(rows), 2))
    else:
        for row in rows:
            print(json_text(row))
    sys.stdout.flush()


def show_document(document: Mapping[str, Any], output: Format) -> None:
    """Print one document: for eyes as YAML, for programs as JSON, on one line with `jsonl`."""
    if output is Format.TABLE:
        import yaml  # noqa: PLC0415

        yaml.safe_dump(document, sys.stdout, allow_unicode=True, sort_keys=False, width=120)
    else:
        print(json_text(document, 2 if output is Format.JSON else None))
    sys.stdout.flush()


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that may be shown on a terminal, too: what would move its cursor or turn a line round is
    escaped.
    """
    return terminal_safe(
        json.dumps(value, ensure_ascii=False, indent=indent), lines=True, json=True
    )


def plain(value: Any) -> str:
    """A value on one line of a screen: what others wrote must neither move the cursor nor turn the
    line around.
    """
    text = (
        ""
        if value is None
        else value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False)
    )
    return terminal_safe(text)


def complain(text: str) -> None:
    """Lines on stderr, for whoever sits there."""
    print(terminal_safe(text, lines=True), file=sys.stderr)


class Page:
    """What a person reads: headings, facts, tables. On stdout, unless it goes beside the data."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._console = _console(file or sys.stdout)

    def heading(self, text: str) -> None:
        """A line that stands out."""
        from rich.text import Text  # noqa: PLC0415

        self._console.print(Text(plain(text), style="bold"))

    def line(self, text: str = "") -> None:
        """A line."""
        from rich.text import Text  # noqa: PLC0415

        self._console.print(Text(plain(text)))

    def document(self, value: Any, longest: int) -> None:
        """JSON over several lines, or a text on one; at most so many characters."""
        from rich.text import Text  # noqa: PLC0415

        text = plain(value) if isinstance(value, str) else json_text(value, 2)
        more = f"\n… {len(text) - longest} characters more: -o json" if len(text) > longest else ""
        self._console.print(Text(text[:longest] + more))

    def facts(self, facts: Mapping[str, Any]) -> None:
        """A name and a value a line; what is unknown is left out."""
        self._grid(
            [
                (plain(name), plain(value))
                for name, value in facts.items()
                if value not in (None, "")
            ],
            None,
        )

    def table(self, rows: Sequence[Mapping[str, Any]], indent: int = 0) -> None:
        """Rows under their fields' names."""
        if rows:
            names = tuple(rows[0])
            self._grid([tuple(plain(row[name]) for name in names) for row in rows], names, indent)

    def _grid(
        self, rows: Sequence[Sequence[str]], names: Sequence[str] | None, indent: int = 2
    ) -> None:
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table(box=None, pad_edge=False, show_header=names is not None, padding=(0, 2, 0, 0))
        if indent:
            table.add_column("", width=indent - 2)
        for name in names or ("", ""):
            table.add_column(
                name,
                overflow="fold",
                style="dim" if names is None and not table.columns[1:] else None,
            )
        for row in rows:
            table.add_row(*([""] if indent else []), *(Text(value) for value in row))
        self._print_table(table)

    def _print_table(self, table: "Table") -> None:
        if self._console.is_terminal:
            self._console.print(table)
            return
        # A table fills its lines up with blanks.
        with self._console.capture() as captured:
            self._console.print(table)
        text = "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())
        self._console.file.write(text)


def _console(file: TextIO) -> "Console":
    from rich.console import Console  # noqa: PLC0415 - programs need no tables

    # Cut by nobody where nobody looks: a pipe has no width.
    return Console(file=file, width=None if file.isatty() else 240, highlight=False)

"""Printing: tables and pages for a person, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, TextIO

import typer

from messages.texts import terminal_safe


class Format(StrEnum):
    """The formats of `-o`."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


Output = Annotated[Format, typer.Option("--output", "-o", help="How data is printed to stdout.")]


def show(rows: Iterable[Mapping[str, Any]], output: Format) -> None:
    """Print rows that all have the same fields."""
    listed = [dict(row) for row in rows]
    if output is Format.TABLE:
        Report().table(listed)
        sys.stdout.flush()
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
    """Print one document: as YAML for `table`, else as JSON, on one line with `jsonl`."""
    if output is Format.TABLE:
        import yaml  # noqa: PLC0415

        yaml.safe_dump(document, sys.stdout, allow_unicode=True, sort_keys=False, width=120)
    else:
        print(json_text(document, 2 if output is Format.JSON else None))
    sys.stdout.flush()


def json_text(value: Any, indent: int | None = None) -> str:
    """Return JSON that is safe on a terminal; a program reads the same values."""
    return terminal_safe(
        json.dumps(value, ensure_ascii=False, indent=indent), lines=True, json=True
    )


def complain(text: str) -> None:
    """Print lines on stderr."""
    print(terminal_safe(text, lines=True), file=sys.stderr)


def _cell(value: Any) -> str:
    """A value as one line that is safe on a terminal."""
    if value is None:
        return ""
    return terminal_safe(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


class Report:
    """Headings, facts and tables for a person, on stdout unless another file is given."""

    def __init__(self, file: TextIO | None = None) -> None:
        from rich.console import Console  # noqa: PLC0415 - programs need no tables
        from rich.text import Text  # noqa: PLC0415

        # Plain texts: rich's markup in a message is not interpreted.
        self._text = Text
        out = file or sys.stdout
        # A pipe has no width: nothing is cut there.
        width = None if out.isatty() else 240
        self._console = Console(file=out, width=width, highlight=False)

    def heading(self, text: str) -> None:
        """Print a line in bold."""
        self._console.print(self._text(_cell(text), style="bold"))

    def line(self, text: str = "") -> None:
        """Print a line."""
        self._console.print(self._text(_cell(text)))

    def document(self, value: Any, longest: int) -> None:
        """Print JSON on several lines, or a text on one; `longest` characters at most."""
        text = _cell(value) if isinstance(value, str) else json_text(value, 2)
        more = f"\n… {len(text) - longest} characters more: -o json" if len(text) > longest else ""
        self._console.print(self._text(text[:longest] + more))

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Print a name and a value on each line; empty values are left out."""
        known = {name: value for name, value in facts.items() if value not in (None, "")}
        self._grid([(_cell(name), _cell(value)) for name, value in known.items()], None)

    def table(self, rows: Sequence[Mapping[str, Any]], indent: int = 0) -> None:
        """Print rows under the names of their fields."""
        if rows:
            names = tuple(rows[0])
            self._grid([tuple(_cell(row[name]) for name in names) for row in rows], names, indent)

    def _grid(
        self, rows: Sequence[Sequence[str]], names: Sequence[str] | None, indent: int = 2
    ) -> None:
        from rich.table import Table  # noqa: PLC0415

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
            table.add_row(*([""] if indent else []), *(self._text(value) for value in row))
        if self._console.is_terminal:
            self._console.print(table)
            return
        # A table pads its lines with blanks.
        with self._console.capture() as captured:
            self._console.print(table)
        text = "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())
        self._console.file.write(text)

"""Printing: tables and pages for a person, JSON for programs."""

import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from textwrap import wrap
from typing import Annotated, Any, TextIO

import typer
from rich.cells import cell_len, set_cell_size

from messages.texts import terminal_safe


class Format(StrEnum):
    """The formats of `-o`."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    #: A table with all columns whole, however wide.
    WIDE = "wide"


def _chosen(output: Format) -> Format:
    """Return a format; a wide table is a table on a wider page."""
    if output is not Format.WIDE:
        return output
    Report.is_wide = True
    return Format.TABLE


Output = Annotated[
    Format,
    typer.Option(
        "--output",
        "-o",
        help="How data is printed to stdout; wide: a table with all columns whole.",
        callback=_chosen,
    ),
]


def show(rows: Iterable[Mapping[str, Any]], output: Format, keep: Iterable[str] = ()) -> None:
    """Print rows that all have the same fields; `keep` as for `Report.table`."""
    listed = [dict(row) for row in rows]
    if output is Format.TABLE:
        Report().table(listed, keep=keep)
        sys.stdout.flush()
    else:
        show_json(listed, output)


def show_record(row: Mapping[str, Any], output: Format) -> None:
    """Print one row: as a table a name and a value on each line, else as JSON."""
    if output in (Format.JSON, Format.JSONL):
        show_json([row], output)
        return
    Report().facts({name.replace("_", " "): value for name, value in row.items()})
    sys.stdout.flush()


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


#: Columns of a terminal that does not say how wide it is, and of a pipe.
_COLUMNS = 80
#: Blanks between two columns of a table.
_GAP = 2
#: Characters that a text must have room for, or its column is left out.
_LEAST_TEXT = 16
#: A value with so many blanks, or longer than this with one, is a text, which may be cut; an id, a
#: time or a number is shown whole or not at all.
_BLANKS_OF_TEXT, _LONG = 4, 36
_SHORTEST_ID = 12


class Report:
    """Headings, facts and tables for a person, on stdout unless another file is given.

    A table fits the terminal: columns that are empty are left out, a value that is the same in all
    rows is said once above, texts are cut, and where that is not enough columns are left out, and
    named. Ids are never cut or wrapped. Lines and facts are wrapped between words. `-o wide` shows
    all columns whole, and wraps nothing.
    """

    #: Set by `-o wide`, for all reports of the process.
    is_wide = False

    def __init__(self, file: TextIO | None = None) -> None:
        from rich.console import Console  # noqa: PLC0415 - programs need no tables
        from rich.text import Text  # noqa: PLC0415

        # Plain texts: rich's markup in a message is not interpreted.
        self._text = Text
        out = file or sys.stdout
        self._console = Console(file=out, highlight=False, soft_wrap=True)
        self._columns = max(self._console.width, _COLUMNS) if out.isatty() else _COLUMNS

    def heading(self, text: str) -> None:
        """Print a line in bold."""
        self._print(_cell(text), "bold")

    def line(self, text: str = "") -> None:
        """Print a line; a long one is wrapped."""
        cell = _cell(text)
        indent = len(cell) - len(cell.lstrip())
        for one in self._wrapped(cell, 0, " " * (indent + 2)):
            self._print(one)

    def document(self, value: Any, longest: int) -> None:
        """Print JSON on several lines, or a text on one; `longest` characters at most."""
        text = _cell(value) if isinstance(value, str) else json_text(value, 2)
        more = f"\n… {len(text) - longest} characters more: -o json" if len(text) > longest else ""
        self._print(text[:longest] + more)

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Print a name and a value on each line; empty values are left out."""
        known = {
            _cell(name): _cell(value) for name, value in facts.items() if value not in (None, "")
        }
        widest = max(map(_width, known), default=0)
        for name, value in known.items():
            begin = f"  {_padded(name, widest)}{' ' * _GAP}"
            first, *others = self._wrapped(value, len(begin), "") or [""]
            self._print(f"{begin}{first}")
            for one in others:
                self._print(f"{' ' * len(begin)}{one}")

    def _wrapped(self, text: str, indent: int, further: str) -> list[str]:
        """Return a text as lines that have room beside an indent; no word is broken."""
        room = max(self._columns - indent, _LEAST_TEXT)
        if self.is_wide or _width(text) <= room:
            return [text]
        return wrap(
            text,
            room,
            subsequent_indent=further,
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
        )

    def table(
        self, rows: Sequence[Mapping[str, Any]], indent: int = 0, keep: Iterable[str] = ()
    ) -> None:
        """Print rows under the names of their fields, the most important fields first.

        Those in `keep` are shown also where all rows have the same value.
        """
        if not rows:
            return
        cells = {name: [_cell(row[name]) for row in rows] for name in rows[0]}
        left_out: list[str] = []
        if not self.is_wide:
            same = _take_same(cells, {*keep, next(iter(cells))})
            if same:
                alike = "; ".join(f"{name} {value}" for name, value in same.items())
                self.line(f"{' ' * indent}all: {alike}")
            left_out = _fit(cells, self._columns - indent)
        widths = {name: max(_width(name), *map(_width, column)) for name, column in cells.items()}
        self._row(indent, widths, {name: name for name in cells}, "bold")
        for number in range(len(rows)):
            self._row(indent, widths, {name: column[number] for name, column in cells.items()})
        if left_out:
            self.line(f"{' ' * indent}no room for: {', '.join(left_out)} (-o wide)")

    def _row(
        self, indent: int, widths: Mapping[str, int], cells: Mapping[str, str], style: str = ""
    ) -> None:
        padded = (_padded(cell, widths[name] + _GAP) for name, cell in cells.items())
        self._print((" " * indent + "".join(padded)).rstrip(), style)

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(self._text(text, style=style))


def _take_same(cells: dict[str, list[str]], keep: Collection[str]) -> dict[str, str]:
    """Take the columns out that are empty, or the same in all of several rows; return the latter
    with their values.
    """
    same = {}
    for name, column in list(cells.items()):
        if not any(column):
            del cells[name]
        elif len(column) > 1 and len(set(column)) == 1 and name not in keep:
            same[name] = column[0]
            del cells[name]
    return same


def _fit(cells: dict[str, list[str]], room: int) -> list[str]:
    """Leave columns out, and cut texts, until a row has room. Return the names of what is left out.

    The first column stays, then come the first id and the first text, then further ids, then the
    rest from the left.
    """
    texts = [name for name, column in cells.items() if any(map(_is_text, column))]
    ids = [name for name, column in cells.items() if name not in texts and any(map(_is_id, column))]
    least = {
        name: min(_widest(name, column), max(_LEAST_TEXT, _width(name)))
        if name in texts
        else _widest(name, column)
        for name, column in cells.items()
    }
    order = list(dict.fromkeys([next(iter(cells)), *ids[:1], *texts[:1], *ids, *cells]))
    taken, left = set[str](), room + _GAP
    for name in order:
        if not taken or least[name] + _GAP <= left:
            taken.add(name)
            left -= least[name] + _GAP
    left_out = [name for name in cells if name not in taken]
    for name in left_out:
        del cells[name]
    for name in texts:
        if name in taken:
            width = least[name] + max(0, left)
            left -= max(0, min(width, _widest(name, cells[name])) - least[name])
            cells[name] = [_cut(value, width) for value in cells[name]]
    return left_out


def _widest(name: str, column: Sequence[str]) -> int:
    return max(_width(name), *map(_width, column))


def _is_id(value: str) -> bool:
    """Tell whether a value is an id: long, of one word, with a digit."""
    return len(value) >= _SHORTEST_ID and " " not in value and any(map(str.isdigit, value))


def _is_text(value: str) -> bool:
    blanks = value.count(" ")
    return blanks >= _BLANKS_OF_TEXT or (blanks > 0 and len(value) > _LONG)


def _width(text: str) -> int:
    """Return the columns that a text takes: a Chinese character takes two."""
    return cell_len(text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _cut(text: str, width: int) -> str:
    return text if _width(text) <= width else f"{set_cell_size(text, width - 1).rstrip()}…"

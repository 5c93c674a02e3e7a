"""Rows to stdout: as a table for eyes, as JSON for programs."""

import json
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any


class Format(StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


def show(rows: Iterable[Mapping[str, Any]], output: Format) -> None:
    """Print rows that all have the same fields."""
    listed = [dict(row) for row in rows]
    if output is Format.JSON:
        print(json.dumps(listed, ensure_ascii=False, indent=2))
    elif output is Format.JSONL:
        for row in listed:
            print(json.dumps(row, ensure_ascii=False))
    else:
        _show_table(listed)
    sys.stdout.flush()


def _show_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for name in rows[0] if rows else ():
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
    # Cut by nobody where nobody looks: a pipe has no width.
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 240).print(table)

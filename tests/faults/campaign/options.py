"""The options and the table of the long forms: `make faults` and `make cluster`."""

import argparse
import json
import secrets
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any

from rich.console import Console
from rich.table import Table

#: Characters of a line that says what is broken.
_MOST = 600


def options_of(
    program: str, description: str | None, phases: Iterable[str], minutes: float, of: str
) -> argparse.ArgumentParser:
    """Return a parser of the options that both have; `minutes` is the default, `of` says of what."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--minutes", type=float, default=minutes, help=of)
    parser.add_argument(
        "--phase", action="append", choices=list(phases), help="only this; may be repeated"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=secrets.randbelow(10**6),
        help="which requests and when it strikes",
    )
    parser.add_argument("-o", "--output", choices=["table", "json", "markdown"], default="table")
    return parser


def tell(text: str, passing: bool) -> None:
    """Print progress to stderr; what passes is for eyes alone."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="" if passing else "\n", file=sys.stderr, flush=True)
    elif not passing:
        print(text, file=sys.stderr, flush=True)


def show(kind: type[Any], rows: Sequence[Any], broken: Sequence[str], output: str) -> None:
    """Print rows of a dataclass as a table for eyes, as JSON for programs, or as Markdown for docs;
    what is broken, a line each, goes to stderr, too.
    """
    columns = fields(kind)
    titles = [one.name.replace("_", " ") for one in columns]
    # Texts to the left, numbers to the right.
    texts = [one.type in (str, "str") for one in columns]
    lines = [[str(value) for value in asdict(row).values()] for row in rows]
    match output:
        case "json":
            found = {"rows": [asdict(row) for row in rows], "broken": list(broken)}
            print(json.dumps(found, ensure_ascii=False, indent=2))
        case "markdown":
            print(f"| {' | '.join(titles)} |")
            print(f"|{''.join('---|' if text else '--:|' for text in texts)}")
            for line in lines:
                print(f"| {' | '.join(line)} |")
        case _:
            table = Table()
            for title, text in zip(titles, texts, strict=True):
                table.add_column(title, justify="left" if text else "right")
            for line in lines:
                table.add_row(*line)
            Console(width=None if sys.stdout.isatty() else 200).print(table)
    for one in broken:
        print(one[:_MOST], file=sys.stderr)

"""Runs the long form and prints its table: `python -m tests.faults --minutes 5`; fails where
something is broken.
"""

import argparse
import json
import secrets
import sys
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from tests.faults.campaign.phases import PHASES
from tests.faults.campaign.run import Campaign, Row


def main() -> int:
    """The exit status: 0 where every invariant held."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="of faults, in all")
    names = [one.name for one in PHASES]
    parser.add_argument(
        "--phase", action="append", choices=names, help="only this; may be repeated"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=secrets.randbelow(10**6),
        help="which requests and when it strikes",
    )
    parser.add_argument("-o", "--output", choices=["table", "json", "markdown"], default="table")
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    phases = [one for one in PHASES if not options.phase or one.name in options.phase]
    rows, broken = [], []
    with Campaign(tell) as campaign:
        for row, found in campaign.run(phases, options.minutes, options.seed):
            rows.append(row)
            broken += [f"{row.fault}: {line}" for line in found]
    show = {"table": show_table, "json": show_json, "markdown": show_markdown}[options.output]
    show(rows, broken)
    for line in broken:
        print(line[:600], file=sys.stderr)
    return 5 if broken else 0


def tell(text: str, passing: bool) -> None:
    """Progress, to stderr; what passes is for eyes alone."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="" if passing else "\n", file=sys.stderr, flush=True)
    elif not passing:
        print(text, file=sys.stderr, flush=True)


def titles() -> list[str]:
    return [name.replace("_", " ") for name in asdict(Row(""))]


def show_table(rows: list[Row], _: list[str]) -> None:
    """For eyes."""
    table = Table()
    for number, title in enumerate(titles()):
        table.add_column(title, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(str(value) for value in asdict(row).values()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def show_json(rows: list[Row], broken: list[str]) -> None:
    """For programs."""
    print(
        json.dumps(
            {"rows": [asdict(row) for row in rows], "broken": broken}, ensure_ascii=False, indent=2
        )
    )


def show_markdown(rows: list[Row], _: list[str]) -> None:
    """For docs/operations/faults.md."""
    print(f"| {' | '.join(titles())} |")
    print(f"|---|{'--:|' * (len(titles()) - 1)}")
    for row in rows:
        print(f"| {' | '.join(str(value) for value in asdict(row).values())} |")


if __name__ == "__main__":
    sys.exit(main())

"""Runs the faults of a cluster of three brokers, and prints their table: `python -m tests.cluster
--minutes 10`; fails where something is broken.
"""

import argparse
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields

from rich.console import Console
from rich.table import Table

from sandbox.processes import SandboxError
from tests.cluster.phases import PHASES
from tests.cluster.rabbitmq4 import programs
from tests.cluster.run import ClusterRow, run
from tests.faults.__main__ import tell

_VARIABLE = "ECS_SANDBOX_RABBITMQ"


def main() -> int:
    """The exit status: 0 where every invariant held, 5 where one did not, 1 where no cluster could
    be had.
    """
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of faults, for each RabbitMQ")
    parser.add_argument(
        "--phase",
        action="append",
        choices=[one.name for one in PHASES],
        help="only this; may be repeated",
    )
    parser.add_argument(
        "--rabbitmq",
        action="append",
        choices=["debian", "4"],
        help="this machine's own (or the one that ECS_SANDBOX_RABBITMQ names), or the newer"
        " Debian's in a folder; both unless said",
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
    try:
        for which in dict.fromkeys(options.rabbitmq or ("debian", "4")):
            with rabbitmq(which):
                for row, found in run(phases, options.minutes, options.seed, tell):
                    rows.append(row)
                    broken += [f"{row.version}, {row.fault}: {line}" for line in found]
    except SandboxError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        show(rows, options.output)
        for line in broken:
            print(line[:600], file=sys.stderr)
    return 5 if broken else 0


@contextmanager
def rabbitmq(which: str) -> Iterator[None]:
    """Have brokers be of this version."""
    if which == "debian":
        yield
        return
    before = os.environ.get(_VARIABLE)
    folder = programs()
    os.environ[_VARIABLE] = str(folder)
    try:
        yield
    finally:
        shutil.rmtree(folder)
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def show(rows: list[ClusterRow], output: str) -> None:
    """Print the rows as a table for eyes, as JSON for programs, or as Markdown for docs."""
    titles = [one.name.replace("_", "-") for one in fields(ClusterRow)]
    lines = [[str(value) for value in asdict(row).values()] for row in rows]
    if output == "json":
        print(json.dumps([asdict(row) for row in rows], indent=2))
    elif output == "markdown":
        print(f"| {' | '.join(titles)} |\n|---|---|{'--:|' * (len(titles) - 2)}")
        for line in lines:
            print(f"| {' | '.join(line)} |")
    else:
        table = Table()
        for number, title in enumerate(titles):
            table.add_column(title, justify="right" if number > 1 else "left")
        for line in lines:
            table.add_row(*line)
        Console(width=None if sys.stdout.isatty() else 200).print(table)


if __name__ == "__main__":
    sys.exit(main())

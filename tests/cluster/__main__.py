"""Runs the faults of a cluster of three brokers, and prints their table: `python -m tests.cluster
--minutes 10`; fails where something is broken.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

from sandbox.processes import SandboxError
from tests.cluster.phases import PHASES
from tests.cluster.rabbitmq4 import programs
from tests.cluster.run import ClusterRow, run
from tests.cluster.trials import TRIALS, run_trials
from tests.faults.campaign.options import options_of, show, tell

_VARIABLE = "ECS_SANDBOX_RABBITMQ"


def main() -> int:
    """The exit status: 0 where every invariant held, 5 where one did not, 1 where no cluster could
    be had.
    """
    names = [one.name for one in (*PHASES, *TRIALS)]
    parser = options_of("make cluster", __doc__, names, 10.0, "of faults, for each RabbitMQ")
    parser.add_argument(
        "--rabbitmq",
        action="append",
        choices=["debian", "4"],
        help="this machine's own (or the one that ECS_SANDBOX_RABBITMQ names), or the newer"
        " Debian's in a folder; both unless said",
    )
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    phases = [one for one in PHASES if not options.phase or one.name in options.phase]
    trials = [one for one in TRIALS if not options.phase or one.name in options.phase]
    rows, broken = [], []
    try:
        for which in dict.fromkeys(options.rabbitmq or ("debian", "4")):
            with rabbitmq(which):
                for row, found in chain(
                    run(phases, options.minutes, options.seed, tell),
                    run_trials(trials, options.seed, tell),
                ):
                    rows.append(row)
                    broken += [f"{row.version}, {row.fault}: {line}" for line in found]
    except SandboxError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        show(ClusterRow, rows, broken, options.output)
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


if __name__ == "__main__":
    sys.exit(main())

"""Runs the long form and prints its table: `python -m tests.faults --minutes 5`; fails where
something is broken.
"""

import sys

from tests.faults.campaign.options import options_of, show, tell
from tests.faults.campaign.phases import PHASES
from tests.faults.campaign.run import Campaign, Row


def main() -> int:
    """The exit status: 0 where every invariant held."""
    names = [one.name for one in PHASES]
    options = options_of("make faults", __doc__, names, 5.0, "of faults, in all").parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    phases = [one for one in PHASES if not options.phase or one.name in options.phase]
    rows, broken = [], []
    with Campaign(tell) as campaign:
        for row, found in campaign.run(phases, options.minutes, options.seed):
            rows.append(row)
            broken += [f"{row.fault}: {line}" for line in found]
    show(Row, rows, broken, options.output)
    return 5 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line (contract 9)."""

import gc
import sys

from workers import GARBAGE_THRESHOLDS


def main() -> None:
    """The console script's entry."""
    if sys.argv[1:2] == ["probe"]:
        from workers.cli.probe import run_fast  # noqa: PLC0415

        if (code := run_fast(sys.argv[2:])) is not None:
            sys.exit(code)
    # Imports make objects that stay: looking at them again and again takes a tenth of the start.
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    from workers.cli.app import run_app  # noqa: PLC0415 - an embedded worker needs none

    run_app()

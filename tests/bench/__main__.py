"""Measures all, in turns, and prints what was found beside the aims."""

import argparse
import os
import platform
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from kombu import Connection

from sandbox.broker import PrivateBroker
from tests.bench.measure import Figures, leave_core
from tests.bench.rows import LINES, MEASUREMENTS
from tests.bench.site import Bench, stub_nova
from tests.bench.table import aims, markdown, measured
from workers.telemetry import configure_logs


def main() -> int:
    """Return 1 where a measurement failed; an aim that is not met is no failure."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one round with a tenth of the messages: shows that it runs",
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement (default 3)")
    parser.add_argument(
        "--only",
        action="append",
        choices=MEASUREMENTS,
        metavar="NAME",
        help=f"measure this alone; may be given several times: {', '.join(MEASUREMENTS)}",
    )
    parser.add_argument(
        "--real", action="store_true", help="also what needs the real control plane"
    )
    wanted = parser.parse_args()
    configure_logs("console", "warning")
    # With it every start would compile what it imports.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    names = [
        name
        for name, one in MEASUREMENTS.items()
        if (name in wanted.only if wanted.only else one.by_default)
        or (wanted.real and name == "real")
    ]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ecs-bench-")))
        # Others that the benchmark starts stay off that core, too.
        leave_core()
        broker = stack.enter_context(PrivateBroker())
        nova_url, clouds_yaml = stack.enter_context(stub_nova(folder))
        bench = Bench(broker, folder, 0.1 if wanted.quick else 1.0, clouds_yaml, nova_url)
        print(machine(broker), flush=True)
        found = in_turns(bench, names, 1 if wanted.quick else wanted.rounds)
    print(
        f"\n{markdown(measured(found))}\n\n{markdown(aims(found, LINES, judged=not wanted.quick))}"
    )
    return int(any(None in listed for listed in found.values()))


def in_turns(bench: Bench, names: Sequence[str], rounds: int) -> dict[str, list[Figures | None]]:
    """Return the figures of each round: all measurements, then all again. None: it failed."""
    found: defaultdict[str, list[Figures | None]] = defaultdict(list)
    for one in range(rounds):
        for name in names:
            measurement = MEASUREMENTS[name]
            if one >= measurement.rounds:
                continue
            begun = time.monotonic()
            try:
                figures = measurement.measure(bench)
            except Exception:  # one that fails does not end the others
                traceback.print_exc()
                figures = None
            found[name].append(figures)
            shown = "FAILED" if figures is None else _shown(figures)
            print(f"{one + 1} {name} ({time.monotonic() - begun:.0f} s): {shown}", flush=True)
    return dict(found)


def machine(broker: PrivateBroker) -> str:
    """Name what the figures were measured on."""
    with Connection(broker.url) as connection:
        connection.connect()
        rabbitmq = connection.connection.server_properties["version"]
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return (
        f"{model}, {os.cpu_count()} cores; {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, RabbitMQ {rabbitmq}. The process measured has one core "
        "to itself, the broker and all others share the rest."
    )


def _shown(figures: Figures) -> str:
    return ", ".join(f"{name} {value:,.6g}" for name, value in figures.items())


if __name__ == "__main__":
    sys.exit(main())

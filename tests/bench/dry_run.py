"""The time that the dry run of a replay takes."""

import asyncio
import json
import os
import subprocess
import sys
import time

from tests.bench.measure import Figures
from tests.bench.replays import dead_letter, unhandled_command
from tests.bench.site import Bench
from tests.support import REPOSITORY


def dry_run(bench: Bench) -> Figures:
    """Dead-letter actions, each on a server of its own, and return the seconds of the command that
    tells what their replay would do. The cloud is asked about every server.
    """
    number = bench.number(1660)
    url = bench.vhost()
    asyncio.run(dead_letter(url, [unhandled_command() for _ in range(number)]))
    settings = os.environ | bench.settings(url) | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "workers"]
    # The journal is there where dead letters are.
    subprocess.run(
        [*command, "dead", "discard", "--all", "--limit", "1", "--yes"],
        env=settings,
        cwd=bench.folder,
        capture_output=True,
        check=True,
    )
    started = time.monotonic()
    done = subprocess.run(
        [*command, "dead", "replay", "--all", "--dry-run", "-o", "json"],
        env=settings,
        cwd=bench.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.monotonic() - started
    outcomes = [one["would"] for one in json.loads(done.stdout)]
    if outcomes != ["run"] * (number - 1):
        raise RuntimeError(f"not all would run: {set(outcomes)}, {len(outcomes)}: {done.stderr}")
    return {"seconds": seconds}

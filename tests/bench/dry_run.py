"""The time that the dry run of a replay takes."""

import asyncio
import json
import subprocess
import sys
import time
import uuid
from pathlib import Path

from sandbox.broker import PrivateBroker
from tests.bench.replays import dead_letter, unhandled_command
from workers.amqp.topology import declare, topology


def dry_run_seconds(
    broker: PrivateBroker, folder: Path, clouds_yaml: Path, number: int, env: dict[str, str]
) -> float:
    """Dead-letter so many actions, each on a server of its own, and return the seconds of the
    command that tells what their replay would do. The cloud is asked about every server.
    """
    url = broker.add_vhost(f"bench-{uuid.uuid4().hex[:8]}")
    declare(url, topology())
    asyncio.run(dead_letter(url, [unhandled_command() for _ in range(number)]))
    settings = env | {
        "ECS_BROKER_URL": url,
        "ECS_JOURNAL_URL": f"sqlite:///{folder}/{uuid.uuid4().hex}.db",
        "ECS_TRUST_PUBLISHERS": "true",
        "OS_CLOUD": "ecs-worker",
        "OS_CLIENT_CONFIG_FILE": str(clouds_yaml),
    }
    command = [sys.executable, "-m", "workers"]
    # The journal is there where dead letters are.
    subprocess.run(
        [*command, "dead", "discard", "--limit", "1", "--yes"],
        env=settings,
        cwd=folder,
        capture_output=True,
        check=True,
    )
    started = time.monotonic()
    done = subprocess.run(
        [*command, "dead", "replay", "--dry-run", "-o", "json"],
        env=settings,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.monotonic() - started
    outcomes = [one["would"] for one in json.loads(done.stdout)]
    if outcomes != ["run"] * (number - 1):
        raise RuntimeError(f"not all would run: {set(outcomes)}, {len(outcomes)}: {done.stderr}")
    return seconds

"""Helpers of the tests of `ecs-worker dead`: the real command, on a real broker."""

import json
import subprocess
import sys
import uuid
from typing import Any

from sandbox.requester import Requester
from tests.support import REPOSITORY
from tests.support.waiting import eventually
from tests.support.workshop import Workshop


def dead(workshop: Workshop, *words: str, code: int = 0, **settings: str) -> list[dict[str, Any]]:
    """Return what the command prints as JSON; it must exit with this code."""
    done = workshop.command("dead", *words, "-o", "json", **settings)
    assert done.returncode == code, done.stdout + done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return rows


def ids(rows: list[dict[str, Any]]) -> set[str]:
    return {row["id"] for row in rows}


def start_of_nothing(requester: Requester, **properties: Any) -> str:
    """Send a command on a server that does not exist: it is answered, and changes nothing."""
    return requester.command(
        "server.action", server_id=str(uuid.uuid4()), body={"os-start": None}, **properties
    )


def expire_unread(workshop: Workshop, requester: Requester, number: int) -> list[str]:
    """Dead-letter commands that no worker has read: they expired in the queue."""
    sent = [start_of_nothing(requester, expiration=0.001) for _ in range(number)]
    moved = workshop.worker()
    eventually(lambda: requester.depth("ecs.dead") == number, 60)
    requester.listen(0.2)
    moved.terminate()
    requester.heard.clear()
    return sent


def spawn(workshop: Workshop, *words: str, **streams: Any) -> "subprocess.Popen[bytes]":
    """Start the command, and do not wait for it."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(REPOSITORY),
        "HOME": str(workshop.folder),
        "TERM": "xterm",
        "COLUMNS": "200",
    }
    command = [sys.executable, "-m", "workers", *words]
    return subprocess.Popen(
        command, env=environment | workshop.settings, cwd=workshop.folder, **streams
    )

"""docs/reference/stability.md: what 1.0 promises is still there. `golden/v1.json` has its names:
more may come, and none may go. ECS_WRITE_DOCS=1 adds what came.
"""

import inspect
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import ecs_client
from gateway.openapi import document
from messages.codes import Code
from messages.operations import OPERATIONS
from messages.schemas import components
from tests.support import REPOSITORY
from workers.amqp.topology import topology
from workers.cli.app import app
from workers.cli.exits import Exit
from workers.settings import GatewaySettings, Settings

KEPT = Path(__file__).parent / "golden" / "v1.json"


def names() -> dict[str, list[str]]:
    """Return the names that there are now, by kind."""
    declared = topology()
    settings = {**Settings.model_fields, **GatewaySettings.model_fields}
    monitored = (REPOSITORY / "docs" / "operations" / "monitoring.md").read_text(encoding="utf-8")
    found = {
        "exchanges": [one.name for one in declared.exchanges],
        "queues": [one.name for one in declared.queues],
        "operations": [str(one) for one in OPERATIONS],
        "codes": [str(one.wire) for one in Code],
        "fields": [
            f"{schema}.{name}"
            for schema, one in components().items()
            for name in one.get("properties", {})
        ],
        "commands": list(commands(typer.main.get_command(app), "ecs-worker")),
        "exit codes": [f"{one.value} {one.name}" for one in Exit],
        "variables": [
            name.upper() if name.startswith("os_") else f"ECS_{name.upper()}" for name in settings
        ],
        "metrics": re.findall(r"^\| `(ecs_\w+)", monitored, re.MULTILINE),
        "client": list(client()),
        "http": [
            f"{method.upper()} {path}"
            for path, one in document()["paths"].items()
            for method in one
        ],
    }
    return {kind: sorted(set(listed)) for kind, listed in found.items()}


def commands(command: Any, path: str) -> Iterator[str]:
    """Each command, and each of its options."""
    for one in command.params:
        yield from (f"{path} {name}" for name in one.opts if name.startswith("-"))
    for name, below in getattr(command, "commands", {}).items():
        yield f"{path} {name}"
        yield from commands(below, f"{path} {name}")


def client() -> Iterator[str]:
    """Yield the names that the Python client exports, and the public methods of its classes with their arguments."""
    for name in ecs_client.__all__:
        yield name
        thing = getattr(ecs_client, name)
        if inspect.isclass(thing):
            for method, function in inspect.getmembers(thing, inspect.isfunction):
                if not method.startswith("_"):
                    yield from (
                        f"{name}.{method}({one})" for one in inspect.signature(function).parameters
                    )


@pytest.fixture(scope="module")
def there() -> dict[str, list[str]]:
    return names()


def test_what_is_promised_is_there(there: dict[str, list[str]]) -> None:
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    gone = {kind: sorted(set(listed) - set(there[kind])) for kind, listed in kept.items()}
    assert not any(gone.values()), f"a major version alone may take these away: {gone}"
    if os.environ.get("ECS_WRITE_DOCS"):
        KEPT.write_text(json.dumps(there, indent=1) + "\n", encoding="utf-8")

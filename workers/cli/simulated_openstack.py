"""`ecs-worker simulated-openstack`: a cloud without installation, for a worker that is tried out."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sandbox.openstack import SimulatedOpenStack
from sandbox.openstack.faults import Rule
from sandbox.processes import SandboxError, until_stopped
from workers.cli.exits import CommandFailed, Exit
from workers.cli.output import Format, complain, show_record


def serve(port: int, region: str, pace: float, faults: Iterable[str], output: Format) -> None:
    """Run the cloud until a signal; `faults` are JSON objects. Raises `CommandFailed`."""
    rules = [_rule(one) for one in faults]
    cloud = SimulatedOpenStack(pace, region, port)
    try:
        with until_stopped(), cloud:
            for rule in rules:
                cloud.fault(**rule)
            names = ", ".join(cloud.clouds)
            row = {"url": cloud.url, "clouds_yaml": str(cloud.clouds_yaml), "clouds": names}
            show_record(row, output)
            complain("It runs until Ctrl-C; all that is in it is gone then.")
            while cloud.alive:
                time.sleep(0.2)
            raise CommandFailed(Exit.UNEXPECTED, "the simulated OpenStack has ended by itself")
    except SandboxError as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    finally:
        cloud.stop()


def _rule(text: str) -> Mapping[str, Any]:
    """Return a fault as it is put in force, once it is known to be one."""
    try:
        rule = TypeAdapter(dict[str, Any]).validate_json(text)
        Rule.of(rule)
    except ValidationError as error:
        raise CommandFailed(Exit.USAGE, f"--fault {text}: no JSON object") from error
    except ValueError as error:
        raise CommandFailed(Exit.USAGE, f"--fault {text}: {error}") from error
    return rule

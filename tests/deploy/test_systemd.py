"""The systemd units: systemd itself takes them, finds them hardened, and waits for the drain."""

import re
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from sandbox.processes import install_debian
from tests.support import REPOSITORY
from workers.bootstrap import DRAIN_LIMIT
from workers.cli.exits import Exit
from workers.settings import GatewaySettings

UNITS = sorted((REPOSITORY / "deploy" / "systemd").glob("*.service"))
COMMAND = "/opt/ecs-worker/bin/ecs-worker"
#: Tenths of systemd's exposure level, which goes from 0 (all that can be taken away is) to 100.
MOST_EXPOSED = 15


@pytest.fixture(scope="module", autouse=True)
def systemd() -> None:
    install_debian(["systemd"], lambda: shutil.which("systemd-analyze") is not None, "systemd")


def service(unit: Path) -> RawConfigParser:
    # Not strict: a key may be repeated, and then has several values.
    parser = RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit, encoding="utf-8")
    return parser


def analyze(*words: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["systemd-analyze", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(params=UNITS, ids=lambda unit: unit.name)
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit with this environment's command; of the template an instance."""
    unit: Path = request.param
    text = unit.read_text(encoding="utf-8")
    assert text.count(COMMAND) == 1
    here = str(Path(sys.executable).with_name("ecs-worker"))
    copy = tmp_path / unit.name.replace("@.", "@1.")
    copy.write_text(text.replace(COMMAND, here), encoding="utf-8")
    return copy


def test_there_are_units_for_a_worker_for_several_and_for_the_gateway() -> None:
    assert [one.name for one in UNITS] == [
        "ecs-gateway.service",
        "ecs-worker.service",
        "ecs-worker@.service",
    ]


def test_systemd_takes_each_unit_without_a_word(installed: Path) -> None:
    done = analyze("verify", "--man=no", installed.name, folder=installed.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # What is said of a mistake is seen.
    text = installed.read_text(encoding="utf-8")
    installed.write_text(text.replace("TimeoutStopSec=", "TimeoutStop="), encoding="utf-8")
    assert (
        "TimeoutStop"
        in analyze("verify", "--man=no", installed.name, folder=installed.parent).stderr
    )


def test_systemd_finds_each_unit_hardened(installed: Path) -> None:
    words = ("security", "--offline=yes", "--no-pager", f"--threshold={MOST_EXPOSED}")
    done = analyze(*words, str(installed), folder=installed.parent)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_waits_for_the_drain_and_does_not_repeat_what_is_in_vain(unit: Path) -> None:
    found = service(unit)["Service"]
    is_gateway = "gateway" in unit.name
    drain = (
        GatewaySettings.model_fields["command_timeout"].default + 7 if is_gateway else DRAIN_LIMIT
    )
    assert float(found["TimeoutStopSec"]) >= drain + 5
    in_vain = {Exit.USAGE, Exit.CONFIGURATION} | (set() if is_gateway else {Exit.REFUSED})
    assert {int(one) for one in found["RestartPreventExitStatus"].split()} == in_vain
    # A database that is away for hours.
    assert service(unit)["Unit"]["StartLimitIntervalSec"] == "0"


def test_the_units_differ_in_what_they_are_for_alone() -> None:
    hardening = {
        re.split(r"(?m)^LimitNOFILE=.*\n", unit.read_text(encoding="utf-8"))[1].partition(
            "\nNoNewPrivileges"
        )[2]
        for unit in UNITS
    }
    assert len(hardening) == 1

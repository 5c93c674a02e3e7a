"""Alerts, their pages and the board: each is made of what a running worker and gateway really show,
and each alert fires where it is to (promtool, of Debian's `prometheus`).
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from sandbox.broker import PrivateBroker
from sandbox.gateway import GatewayProcess
from sandbox.openstack import SimulatedOpenStack
from sandbox.processes import install_debian
from tests.support import REPOSITORY
from tests.support.metrics import Numbers, numbers
from tests.support.vhosts import fresh_vhost
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology
from workers.cli.app import app

RULES = REPOSITORY / "deploy" / "prometheus"
BOARD = REPOSITORY / "deploy" / "grafana" / "ecs-worker.json"
OPERATIONS = REPOSITORY / "docs" / "operations"
#: Labels that Prometheus adds, and that a rule makes itself.
ADDED = {"instance", "job", "kind"}
_METRIC = re.compile(r"\becs_\w+")
#: A metric with its selector, and the labels after `by`.
_SELECTED = re.compile(r"\b(ecs_\w+)\{([^}]*)\}")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")


def alerts() -> list[dict[str, Any]]:
    content = yaml.safe_load((RULES / "ecs-worker.rules.yaml").read_text())
    return [rule for group in content["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    """Every query of the board, with Grafana's variables as Prometheus gets them."""
    board = json.loads(BOARD.read_text())
    found = [one["expr"] for panel in board["panels"] for one in panel.get("targets", ())]
    return [one.replace("$__rate_interval", "5m").replace("$instance", ".*") for one in found]


@pytest.fixture(scope="module")
def shown(
    broker: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Numbers, Numbers]]:
    """Metrics of a worker and a gateway that have had nothing to do yet."""
    folder = tmp_path_factory.mktemp("monitoring")
    with fresh_vhost(broker) as url, Workshop(url, simulated, folder) as shop:
        declare(url, topology())
        worker = shop.worker()
        gateway = GatewayProcess(shop.settings, folder)
        try:
            gateway.start()
            yield numbers(worker.metrics()), numbers(gateway.metrics())
        finally:
            gateway.stop()


@pytest.fixture(scope="module")
def promtool() -> str:
    install_debian(["prometheus"], lambda: shutil.which("promtool") is not None, "promtool")
    found = shutil.which("promtool")
    assert found is not None
    return found


def checked(*command: str, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_where_it_is_to_and_nowhere_else(promtool: str) -> None:
    checked(promtool, "check", "rules", "ecs-worker.rules.yaml", folder=RULES)
    checked(promtool, "test", "rules", "ecs-worker.test.yaml", folder=RULES)
    tests = yaml.safe_load((RULES / "ecs-worker.test.yaml").read_text())["tests"]
    outcomes: dict[str, set[bool]] = {}
    for test in tests:
        for one in test["alert_rule_test"]:
            outcomes.setdefault(one["alertname"], set()).add(bool(one["exp_alerts"]))
    assert outcomes == {rule["alert"]: {True, False} for rule in alerts()}


def test_each_query_of_the_board_is_one(promtool: str, tmp_path: Path) -> None:
    rules = [{"record": f"board:{number}", "expr": one} for number, one in enumerate(queries())]
    content = {"groups": [{"name": "board", "rules": rules}]}
    (tmp_path / "board.yaml").write_text(yaml.safe_dump(content))
    checked(promtool, "check", "rules", "board.yaml", folder=tmp_path)
    assert len(rules) > 20


def test_alerts_and_board_ask_for_what_there_is(shown: tuple[Numbers, Numbers]) -> None:
    labels: dict[str, set[str]] = {}
    for found in shown:
        for name, series in found.series.items():
            labels.setdefault(name, set()).update(*(has for has, _ in series))
    for asked in (*(rule["expr"] for rule in alerts()), *queries()):
        assert set(_METRIC.findall(asked)) - labels.keys() == set(), asked
        for name, selector in _SELECTED.findall(asked):
            unquoted = re.sub(r'"[^"]*"', '""', selector)
            assert set(_LABEL.findall(unquoted)) - labels[name] <= ADDED, asked
        known = set().union(*(labels[name] for name in _METRIC.findall(asked)))
        for listed in re.findall(r"\bby \(([^)]*)\)", asked):
            assert {one.strip() for one in listed.split(",")} - known - ADDED == set(), asked


def test_label_values_that_alerts_select_are_there_from_the_start(
    shown: tuple[Numbers, Numbers],
) -> None:
    """A selector that matches nothing is an alert that never fires."""
    series = {name: found for one in shown for name, found in one.series.items()}
    for rule in alerts():
        for name, selector in _SELECTED.findall(rule["expr"]):
            conditions = re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', selector)
            assert any(
                all(_matches(has.get(label, ""), *how) for label, *how in conditions)
                for has, _ in series[name]
            ), f"{rule['alert']}: {name}{{{selector}}}"


def _matches(value: str, operator: str, wanted: str) -> bool:
    is_like = re.fullmatch(wanted, value) is not None if "~" in operator else value == wanted
    return is_like is not operator.startswith("!")


def test_every_metric_is_described_and_every_described_one_is_shown(
    shown: tuple[Numbers, Numbers],
) -> None:
    pages = {0: OPERATIONS / "monitoring.md", 1: REPOSITORY / "docs" / "reference" / "http.md"}
    for which, page in pages.items():
        rows = [line for line in page.read_text().splitlines() if line.startswith("| `ecs_")]
        described = {
            name for row in rows for name in re.findall(r"`(ecs_\w+)", row.split(" | ")[0])
        }
        assert described == set(shown[which].kinds), page.name


def test_each_alert_has_a_page_and_each_page_an_alert() -> None:
    found = {rule["alert"]: rule["annotations"]["runbook"] for rule in alerts()}
    pages = {path.stem: path for path in (OPERATIONS / "alerts").glob("Ecs*.md")}
    assert found == {name: str(path.relative_to(REPOSITORY)) for name, path in pages.items()}
    listed = (OPERATIONS / "monitoring.md").read_text()
    for name, path in pages.items():
        assert f"(alerts/{name}.md)" in listed
        text = path.read_text()
        for heading in ("## What it means", "## See it", "## What to do"):
            assert heading in text, path.name
        (rule,) = [one for one in alerts() if one["alert"] == name]
        assert f"Severity: {rule['labels']['severity']}." in text


def commands_of(text: str) -> Iterator[list[str]]:
    """The commands of ecs-worker in a page, without comments."""
    for line in re.findall(r"(?:^    |`)(ecs-worker [^`\n]*)", text, re.MULTILINE):
        yield line.partition("  #")[0].split()[1:]


@pytest.mark.parametrize(
    "page", sorted((OPERATIONS / "alerts").glob("Ecs*.md")), ids=lambda p: p.stem
)
def test_each_command_of_a_page_is_one(page: Path) -> None:
    for words in commands_of(page.read_text()):
        command: Any = typer.main.get_command(app)
        rest = list(words)
        while rest and hasattr(command, "commands"):
            assert rest[0] in command.commands, " ".join(words)
            command = command.commands[rest.pop(0)]
        options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        asked = {word.partition("=")[0] for word in rest if word.startswith("-")}
        assert asked <= options, " ".join(words)

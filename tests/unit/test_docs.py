"""The documentation names what there is."""

import re
from pathlib import Path

import pytest
import yaml

from messages.operations import OPERATIONS
from tests.support import REPOSITORY

PAGES = (
    *(
        REPOSITORY / name
        for name in ("README.md", "README.zh.md", "CONTRIBUTING.md", "SECURITY.md")
    ),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
)
_PATH = re.compile(r"`((?:messages|handlers|workers|sandbox|tests|docs)/[\w/.-]*)`")
_LINK = re.compile(r"\]\(([^)\s:#]+)(?:#[^)]*)?\)")
#: Terms of its own that the glossary may have.
_TERMS = 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_and_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = {one for one in _PATH.findall(text) if not (REPOSITORY / one).exists()}
    links = {one for one in _LINK.findall(text) if not (page.parent / one).exists()}
    assert paths | links == set()


def test_the_page_for_publishers_lists_all_reads() -> None:
    text = (REPOSITORY / "docs" / "how-to" / "publishers.md").read_text(encoding="utf-8")
    listed = text.partition("### Reads\n")[2].partition("\nSet `mandatory`")[0]
    reads = {name.value for name, one in OPERATIONS.items() if one.changes_nothing}
    assert set(re.findall(r"`(\w+\.[\w.]+)`", listed)) == reads


def test_the_glossary_has_few_terms_of_its_own() -> None:
    text = (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8")
    own = text.partition("## Terms of this project")[2].partition("## Standard terms")[0]
    rows = [line for line in own.splitlines() if line.startswith("| ")][1:]
    assert 10 <= len(rows) <= _TERMS


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_the_index_of_alerts_lists_each_with_its_page(name: str) -> None:
    rules = (REPOSITORY / "deploy" / "prometheus" / "ecs-worker.rules.yaml").read_text("utf-8")
    alerts = {
        rule["alert"]: rule["labels"]["severity"] == "critical"
        for group in yaml.safe_load(rules)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    text = (REPOSITORY / "docs" / "operations" / "alerts" / name).read_text(encoding="utf-8")
    _, at_once, today = text.split("\n## ")
    listed = {
        name: section is at_once
        for section in (at_once, today)
        for name in re.findall(r"^\| \[(\w+)\]\(\1\.md\)", section, re.MULTILINE)
    }
    assert listed == alerts

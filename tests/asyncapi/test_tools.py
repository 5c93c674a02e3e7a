"""The AsyncAPI document in the hands of AsyncAPI's own tools: it is valid, it can be read as a
page, and classes are made of it.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sandbox.processes import install_debian
from tests.asyncapi.node import INSTALL_LIMIT, TOOL_LIMIT, run_tool
from tests.support.names import NAMES
from workers.asyncapi import document

pytestmark = [pytest.mark.slow, pytest.mark.timeout(INSTALL_LIMIT + TOOL_LIMIT)]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The document as a file."""
    path = tmp_path / "asyncapi.json"
    path.write_text(json.dumps(document(NAMES)), encoding="utf-8")
    return path


def test_the_parser_finds_neither_errors_nor_warnings(written: Path, tmp_path: Path) -> None:
    found = json.loads(run_tool("parse", written, tmp_path))
    # That there is a newer version of the specification is said of every document.
    assert [one for one in found if one["code"] != "asyncapi-latest-version"] == []


def test_the_page_shows_every_operation_and_every_schema(written: Path, tmp_path: Path) -> None:
    run_tool("render", written, tmp_path / "page")
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    made = document(NAMES)
    for name, operation in made["operations"].items():
        kind = "send" if operation["action"] == "send" else "re(ceive|ply)"
        assert re.search(rf'id="operation-{kind}-{re.escape(name)}"', page), name
    for name in made["components"]["schemas"]:
        assert f'id="schema-{name}"' in page, name


def test_java_classes_are_made_all_with_names_and_compile(written: Path, tmp_path: Path) -> None:
    target = tmp_path / "ecs"
    names = json.loads(run_tool("classes", written, target))
    assert [name for name in names if "anonymous" in name.lower()] == []
    assert {"ServerAction", "OrderNew", "Server", "StatusUpdate", "OrderResult"} <= {*names}
    assert len(names) == len({*names})

    install_debian(
        ("default-jdk-headless",), lambda: shutil.which("javac") is not None, "a Java compiler"
    )
    sources = [str(path) for path in target.rglob("*.java")]
    command = ["javac", "-d", str(tmp_path / "classes"), *sources]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_LIMIT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((Path(__file__).parent / "package-lock.json").read_text(encoding="utf-8"))
    assert all("integrity" in one for name, one in lock["packages"].items() if name)
    assert not any("resolved" in one for one in lock["packages"].values())

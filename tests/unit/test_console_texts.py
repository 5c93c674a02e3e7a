"""The console's texts: every one has a Chinese wording, and its pages have nothing inline."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from gateway.console.formats import duration, number
from gateway.console.texts import _CHINESE
from tests.support import REPOSITORY

CONSOLE = REPOSITORY / "gateway" / "console"
TEMPLATES = sorted(CONSOLE.glob("templates/*.html"))
#: Texts that are the same in every language.
_SAME = {"message_id"}
#: Calls and tables whose texts are shown.
_SHOWN_BY = {"Problem", "_confirm"}
_TABLES = {"TELLINGS", "STAGES", "PLACES", "KINDS", "STATES", "_TELL", "_NOT_CANCELLED", "_SHARED"}


def literals(node: ast.AST) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield one.value


def shown_by(path: Path) -> Iterator[str]:
    """The texts of a module that are shown in the operator's language."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in _SHOWN_BY:
                yield from (text for text in literals(node) if is_sentence(text))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(getattr(one, "id", "") in _TABLES for one in targets):
                values = getattr(node.value, "values", [])
                yield from (text for value in values for text in literals(value))


def is_sentence(text: str) -> bool:
    return " " in text and text[0].isupper()


def test_every_text_of_the_templates_is_there_in_chinese() -> None:
    found = {
        text
        for path in TEMPLATES
        for _, text in re.findall(r"""\b_\((["'])(.*?)\1\)""", path.read_text(encoding="utf-8"))
    }
    assert len(found) > 100
    assert sorted(found - set(_CHINESE) - _SAME) == []


def test_every_text_of_the_modules_is_there_in_chinese() -> None:
    found = {text for path in sorted(CONSOLE.glob("*.py")) for text in shown_by(path) if text}
    assert len(found) > 25
    assert sorted(found - set(_CHINESE)) == []


def test_templates_have_no_inline_script_style_or_handler() -> None:
    for path in TEMPLATES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|hx-on|\|\s*safe", text), path
        assert not re.search(r"<script(?![^>]*\ssrc=)", text), path


def test_every_form_that_changes_something_has_the_token() -> None:
    for path in TEMPLATES:
        for form in re.findall(r"<form[^>]*post.*?</form>", path.read_text(), re.DOTALL):
            assert "csrf" in form, path


def test_the_wheel_has_every_file_that_pages_are_made_of() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["gateway"]
    listed = {path for one in patterns for path in (REPOSITORY / "gateway").glob(one)}
    needed = {path for path in CONSOLE.rglob("*.*") if path.suffix not in (".py", ".pyc")}
    assert len(needed) > 20
    assert needed - listed == set()
    assert (CONSOLE / "static" / "htmx.LICENSE.txt").read_text().startswith("Zero-Clause BSD")


def test_durations_and_numbers_are_short() -> None:
    assert [duration(one) for one in (None, 0.0123, 3, 59.94, 61, 3600, 90061)] == [
        "–",
        "12 ms",
        "3 s",
        "59.9 s",
        "1 min 1 s",
        "1 h",
        "1 d 1 h",
    ]
    assert [number(one) for one in (None, 0, 1234567, 0.25)] == [
        "–",
        "0",
        "1\u202f234\u202f567",
        "0.2",
    ]

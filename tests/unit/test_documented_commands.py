"""Every `ecs-worker …` that a page shows is a command that there is, with options that it has."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.support import REPOSITORY
from workers.cli.app import app

PAGES = (
    *(
        REPOSITORY / name
        for name in ("README.md", "README.zh.md", "CONTRIBUTING.md", "CHANGELOG.md")
    ),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
)
#: In code within a line, or at the begin of a line of its own.
_SHOWN = re.compile(r"(?:`|^\$ |^ +(?:\$ )?)(ecs-worker [^`\n#|&;]+)", re.MULTILINE)
#: What stands for something, and how a page writes what may be left out or chosen.
_STANDS_FOR = re.compile(r"[\[\]…]|\\\||<.*>")
_COMMAND = typer.main.get_command(app)


def shown(page: Path) -> list[str]:
    return _SHOWN.findall(page.read_text(encoding="utf-8"))


def wrong(line: str) -> Iterator[str]:
    """Yield the parts of a command that do not exist."""
    command: Any = _COMMAND
    words = _STANDS_FOR.sub(" ", line.partition(" ")[2]).split()
    while words and (below := getattr(command, "commands", None)):
        # `dead list|show`: each of them.
        names = words[0].split("|")
        if words[0].startswith("-"):
            break
        if missing := [one for one in names if one not in below]:
            yield from missing
            return
        command, words = below[names[0]], words[1:]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    known |= {"--help", "-h", "-v"}
    for word in words:
        if re.fullmatch(r"--?[a-z][\w-]*(?:=.*)?", word) and word.partition("=")[0] not in known:
            yield word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_command_of_a_page_is_one(page: Path) -> None:
    found = {line: mistakes for line in shown(page) if (mistakes := list(wrong(line)))}
    assert found == {}


def test_a_command_that_is_none_is_found() -> None:
    assert list(wrong("ecs-worker dead lost")) == ["lost"]
    assert list(wrong("ecs-worker dead list --nonsense 1")) == ["--nonsense"]
    assert list(wrong("ecs-worker call server.list --tenant tenant-a -p a=b")) == []

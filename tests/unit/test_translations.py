"""A page in Chinese (`name.zh.md`) has the sections, commands and outputs of the one in English.

ECS_WRITE_DOCS=1 copies what stands between fences.
"""

import os
import re
from pathlib import Path

import pytest

from tests.support import REPOSITORY

PAGES = sorted((*REPOSITORY.glob("*.zh.md"), *(REPOSITORY / "docs").rglob("*.zh.md")))
_FENCED = re.compile(r"^```\w*\n.*?^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) ", re.MULTILINE)
_INDENTED = re.compile(r"^    +(\S.*)$", re.MULTILINE)
#: A comment beside a command is translated.
_COMMENT = re.compile(r"(?:^|\s+)# .*$")
_CODE = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"(?:ecs-worker|ECS_|rabbitmqctl|openstack|curl|make|kill|ecs[._])")


def english(page: Path) -> Path:
    return page.with_name(page.name.replace(".zh.md", ".md"))


def indented(text: str) -> list[str]:
    """Commands and the like that stand alone."""
    found = (_COMMENT.sub("", one).rstrip() for one in _INDENTED.findall(_FENCED.sub("", text)))
    return [one for one in found if one]


def named(text: str) -> set[str]:
    """Commands, variables, metrics and queues that the text names."""
    code = _CODE.findall(_FENCED.sub("", text))
    return {one for one in code if _COMMAND.match(one)}


def test_there_are_pages() -> None:
    assert {"README.zh.md", "quickstart.zh.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_it_says_what_the_page_in_english_says(page: Path) -> None:
    ours, theirs = (one.read_text(encoding="utf-8") for one in (page, english(page)))
    blocks = iter(_FENCED.findall(theirs))
    assert len(_FENCED.findall(ours)) == len(_FENCED.findall(theirs))
    copied = _FENCED.sub(lambda _: next(blocks), ours)
    if os.environ.get("ECS_WRITE_DOCS"):
        page.write_text(copied, encoding="utf-8")
        ours = copied
    assert ours == copied, "what stands between fences is another one (ECS_WRITE_DOCS=1 copies it)"
    text, other = (_FENCED.sub("", one) for one in (ours, theirs))
    assert _HEADING.findall(text) == _HEADING.findall(other)
    assert indented(text) == indented(other)
    assert named(text) == named(other)


def test_each_links_the_other() -> None:
    ours, theirs = (REPOSITORY / name for name in ("README.zh.md", "README.md"))
    assert "(README.md)" in ours.read_text(encoding="utf-8")
    assert "(README.zh.md)" in theirs.read_text(encoding="utf-8")

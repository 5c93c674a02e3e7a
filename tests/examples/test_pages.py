"""docs/how-to/node.md, java.md and publishers.md show the examples as they are, and name every
property that a publisher may set. `make docs` writes the examples into the pages anew.
"""

import os
import re

import pytest

from tests.support import REPOSITORY
from tests.support.names import NAMES
from workers.asyncapi import document

HOW_TO = REPOSITORY / "docs" / "how-to"
_LANGUAGES = {".js": "js", ".java": "java", ".xml": "xml"}
_QUOTED = re.compile(r"<!-- (examples/\S+) -->\n(?:\n```\w+\n.*?\n```\n)?", re.DOTALL)


@pytest.mark.parametrize(("name", "number"), [("node.md", 2), ("java.md", 4)])
def test_the_page_shows_the_example_as_it_is(name: str, number: int) -> None:
    page = HOW_TO / name
    text = page.read_text(encoding="utf-8")

    def quote(found: "re.Match[str]") -> str:
        path = REPOSITORY / found[1]
        source = path.read_text(encoding="utf-8").rstrip("\n")
        return f"<!-- {found[1]} -->\n\n```{_LANGUAGES[path.suffix]}\n{source}\n```\n"

    made, quoted = _QUOTED.subn(quote, text)
    assert quoted == number
    if os.environ.get("ECS_WRITE_DOCS"):
        page.write_text(made, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == made, "make docs writes it anew"


def test_every_property_that_is_read_is_in_the_table() -> None:
    text = (HOW_TO / "publishers.md").read_text(encoding="utf-8")
    table = text.partition("## Properties to set")[2].partition("\n\nSet `mandatory`")[0]
    named = {
        name
        for line in table.splitlines()
        if line.startswith("| ")
        for name in re.findall(r"`([\w-]+)`", line.split("|")[1])
    }
    schemas = document(NAMES)["components"]["schemas"]
    read = {*schemas["CommandHeaders"]["properties"], *schemas["OrderHeaders"]["properties"]}
    assert read <= named
    assert named - read == {
        *("content_encoding", "delivery_mode", "user_id", "type", "app_id", "priority")
    }

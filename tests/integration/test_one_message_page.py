"""docs/design/one-message.md shows the way that messages really take."""

import os

from tests.support import REPOSITORY
from tests.trace.messages import trace
from tests.trace.page import outdated, page

PAGE = REPOSITORY / "docs" / "design" / "one-message.md"


def test_the_page_shows_the_way_that_messages_take() -> None:
    ways = trace()
    if os.environ.get("ECS_WRITE_DOCS"):
        PAGE.write_text(page(ways), encoding="utf-8")
    wrong = outdated(PAGE.read_text(encoding="utf-8"), ways)
    assert not wrong, "the page is out of date (make docs):\n" + "\n".join(wrong)

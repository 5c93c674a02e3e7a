"""Pages and order of a list, as the API asks for them: numbers may be digits in a text.

An empty number is wrong: nobody knows which page was meant. An empty sort order or search is none
(the API document).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from messages.errors import wrong
from messages.fields import optional_word, whole

T = TypeVar("T")

MAX_PAGE_SIZE = 100
#: The field by which a list is ordered where nothing is asked, newest first.
NEWEST = "createTime"


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: the number counts from 1."""

    number: int
    size: int

    def of(self, found: Sequence[T]) -> Sequence[T]:
        """That part; empty past the end."""
        begin = (self.number - 1) * self.size
        return found[begin : begin + self.size]


@dataclass(frozen=True, slots=True)
class Sort:
    """By which field, and which way."""

    field: str
    descending: bool


def parse_page(message: Mapping[str, Any], number_name: str, other_name: str | None = None) -> Page:
    """The page that is asked for; without numbers the first, of ten.

    Its number may come by another name; `Refused` naming that where both say something and not the
    same.
    """
    number = _positive(message.get(number_name), number_name, 1)
    if other_name is not None and message.get(other_name) is not None:
        other = _positive(message[other_name], other_name, 1)
        if message.get(number_name) is not None and other != number:
            raise wrong(other_name, f"it is not the page that {number_name} says")
        number = other
    size = _positive(message.get("pageSize"), "pageSize", 10)
    if size > MAX_PAGE_SIZE:
        raise wrong("pageSize", f"a page has at most {MAX_PAGE_SIZE}")
    return Page(number, size)


def parse_sort(message: Mapping[str, Any], fields: Sequence[str]) -> Sort:
    """The order that is asked for, by one of these fields."""
    field = optional_word(message.get("sortField"), "sortField") or NEWEST
    if field not in fields:
        raise wrong("sortField")
    order = (optional_word(message.get("sortOrder"), "sortOrder") or "descend").lower()
    if order not in ("ascend", "descend"):
        raise wrong("sortOrder")
    return Sort(field, order == "descend")


def _positive(value: Any, name: str, default: int) -> int:
    if value is None:
        return default
    number = whole(value, name)
    if number < 1:
        raise wrong(name)
    return number

"""Reading single fields, each refusal naming the field as the API names it."""

import re
from collections.abc import Mapping
from typing import Any

from messages.errors import wrong

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]{1,12}")
#: Characters of an id or a name that are kept, logged and used as keys.
MAX_NAME = 255


def uuid_of(value: Any, name: str) -> str:
    """A UUID, in lower case."""
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise wrong(name)
    return value.lower()


def word(value: Any, name: str) -> str:
    """A text of 1..255 printable characters, blanks around it trimmed."""
    found = optional_word(value, name)
    if found is None:
        raise wrong(name)
    return found


def optional_word(value: Any, name: str) -> str | None:
    """As `word`; missing, null and blank are None."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_NAME or not value.strip().isprintable():
        raise wrong(name)
    return value.strip() or None


def whole(value: Any, name: str) -> int:
    """A whole number that is not negative, as a number or as digits in a text."""
    if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12:
        return value
    raise wrong(name)


def mapping(value: Any, name: str) -> Mapping[str, Any]:
    """An object; null is the same as an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(name)
    return value


def listing(value: Any, name: str, least: int, most: int) -> list[Any]:
    """A list of so many things."""
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise wrong(name)
    return value

"""Reading single fields, each refusal naming the field as the API names it."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from messages.errors import wrong
from messages.texts import is_line, is_resource_name, is_stored

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]{1,12}")
#: Characters of an id or a name that are kept, logged and used as keys.
MAX_NAME = 255
#: Bytes of one that is part of a routing key, which has at most 255.
MAX_ROUTED = 240


def name_in_routing_key(value: Any, name: str) -> str:
    """As `stored_word`, needed, and short enough for the routing key that it is told with."""
    found = _needed(stored_word(value, name), name)
    if len(found.encode()) > MAX_ROUTED:
        raise wrong(name, f"it is longer than {MAX_ROUTED} bytes")
    return found


def uuid_of(value: Any, name: str) -> str:
    """A UUID, in lower case."""
    if not isinstance(value, str) or not is_uuid(value):
        raise wrong(name)
    return value.lower()


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID, in whatever case."""
    return _UUID.fullmatch(text) is not None


def word(value: Any, name: str) -> str:
    """A text of 1..255 printable characters, blanks around it trimmed: an id, a keyword."""
    return _needed(optional_word(value, name), name)


def optional_word(value: Any, name: str) -> str | None:
    """As `word`; missing, null and blank are None."""
    return _trimmed(value, name, str.isprintable)


def line(value: Any, name: str) -> str:
    """A text of 1..255 characters in one line, blanks around it trimmed: what people write, emoji
    and all.
    """
    return _needed(optional_line(value, name), name)


def optional_line(value: Any, name: str) -> str | None:
    """As `line`; missing, null and blank are None."""
    return _trimmed(value, name, is_line)


def stored_word(value: Any, name: str) -> str | None:
    """As `optional_word`, and such as OpenStack's databases hold."""
    return _trimmed(value, name, lambda text: text.isprintable() and is_stored(text))


def stored_line(value: Any, name: str) -> str:
    """As `line`, and such as OpenStack's databases hold: the name of an image in Glance."""
    return _needed(_trimmed(value, name, lambda text: is_line(text) and is_stored(text)), name)


def resource_name(value: Any, name: str) -> str:
    """A name of 1..255 characters as Nova takes it, blanks around it trimmed."""
    return _needed(optional_resource_name(value, name), name)


def optional_resource_name(value: Any, name: str) -> str | None:
    """As `resource_name`; missing, null and blank are None."""
    return _trimmed(value, name, is_resource_name)


def _needed(text: str | None, name: str) -> str:
    if text is None:
        raise wrong(name)
    return text


def _trimmed(value: Any, name: str, is_fit: Callable[[str], bool]) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_NAME or not is_fit(trimmed := value.strip()):
        raise wrong(name)
    return trimmed or None


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


def objects(value: Any, name: str, least: int, most: int) -> list[Mapping[str, Any]]:
    """A list of so many objects; null is none."""
    found = listing(value, name, least, most)
    if not all(isinstance(one, dict) for one in found):
        raise wrong(name)
    return found

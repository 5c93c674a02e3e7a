"""Names, tags and properties that each service takes, and its words for those that it refuses."""

from collections.abc import Iterable
from typing import Any
from unicodedata import category, normalize

from sandbox.openstack.wire import ApiError

_LONGEST = 255
_BROKEN = "Unexpected API Error. Please contact the administrator\n<class 'oslo_db.exception.{}'>"


def check_nova_name(name: Any) -> None:
    """`ApiError` where Nova takes a text neither for a server's name nor for an image's."""
    if not isinstance(name, str) or not name or len(name) > _LONGEST:
        told = f"Invalid input for field/attribute name. Value: {name}. {name!r} is too long"
        raise ApiError(400, told)
    if not _is_printable(name):
        raise ApiError(
            400,
            "An invalid 'name' value was provided. The name must be: printable characters. "
            "Can not start or end with whitespace.",
        )


def check_nova_rows(texts: Iterable[str]) -> None:
    """`ApiError` where Nova's database does not hold a text: it is `utf8mb3`."""
    if not all(_is_short(one) for one in texts):
        raise ApiError(500, _BROKEN.format("DBError"))


def check_nova_tags(tags: list[str]) -> None:
    """`ApiError` where Nova's database does not hold the tags beside each other."""
    check_nova_rows(tags)
    if len({_collated(one) for one in tags}) < len(set(tags)):
        raise ApiError(500, _BROKEN.format("DBDuplicateEntry"))


def check_nova_items(metadata: dict[str, Any]) -> None:
    """`ApiError` where Nova takes no such item of metadata."""
    for name, value in metadata.items():
        if not isinstance(value, str) or len(value) > _LONGEST:
            told = (
                f"Invalid input for field/attribute {name}. Value: {value}. {value!r} is too long"
            )
            raise ApiError(400, told)


def check_cinder_name(name: str) -> None:
    """`ApiError` where Cinder takes no such name of a volume."""
    if len(name) > _LONGEST:
        told = f"name has {len(name)} characters, more than {_LONGEST}."
        raise ApiError(400, f"Invalid input received: {told}")
    check_cinder_rows([name])


def check_cinder_rows(texts: Iterable[str]) -> None:
    """`ApiError` where Cinder's database does not hold a text."""
    if not all(_is_short(one) for one in texts):
        told = "The server has either erred or is incapable of performing the requested operation."
        raise ApiError(500, told)


def check_neutron_name(name: str) -> None:
    """`ApiError` where Neutron takes no such name of a port."""
    if name and (len(name) > _LONGEST or not _is_printable(name)):
        raise ApiError(400, f"Invalid input for name. Reason: {name!r} is not a valid string.")


def check_glance_texts(fields: dict[str, Any]) -> None:
    """`ApiError` where Glance takes no such attribute or property of an image."""
    for name, value in fields.items():
        if not _is_short(str(value)):
            told = f"{name.capitalize()} can't contain 4 byte unicode characters."
            raise ApiError(400, told)
    if len(str(fields.get("name", ""))) > _LONGEST:
        told = f"{fields['name']!r} is too long"
        raise ApiError(400, f"Provided object does not match schema 'image': {told}")


def _is_printable(text: str) -> bool:
    """Nova's own regular expression, as a rule: it ends before U+FFFF."""
    at_ends = all(category(one) != "Zs" for one in (text[0], text[-1]))
    return at_ends and all(
        one < "\uffff" and (category(one) == "Zs" or category(one)[0] not in "CZ") for one in text
    )


def _is_short(text: str) -> bool:
    return all(one <= "\uffff" for one in text)


def _collated(text: str) -> str:
    return "".join(normalize("NFD", one)[0] for one in text.lower())

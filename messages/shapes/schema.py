"""The pieces that schemas are made of."""

from collections.abc import Iterable
from enum import Enum
from typing import Any

from messages.fields import MAX_NAME

Schema = dict[str, Any]

_HEX = "[0-9a-fA-F]"
UUID: Schema = {"type": "string", "pattern": f"^{_HEX}{{8}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}}$"}
#: An id, a keyword; blanks around it are trimmed.
WORD: Schema = {"type": "string", "pattern": r"\S", "maxLength": MAX_NAME}
OPTIONAL_WORD: Schema = {"type": ["string", "null"], "maxLength": MAX_NAME}
ANYTHING: Schema = {}


def described(schema: Schema, text: str) -> Schema:
    """The same, with a word about it."""
    return {**schema, "description": text}


def thing(required: Iterable[str] = (), /, **fields: Schema) -> Schema:
    """An object; fields that are not named are ignored."""
    needed = list(required)
    return {"type": "object", "properties": fields} | ({"required": needed} if needed else {})


def things(schema: Schema, least: int, most: int) -> Schema:
    """A list of so many."""
    return {"type": "array", "items": schema, "minItems": least, "maxItems": most}


def words(values: "Iterable[str] | type[Enum]") -> Schema:
    """One of these."""
    return {
        "type": "string",
        "enum": [str(one.value) if isinstance(one, Enum) else one for one in values],
    }


def loose(values: Iterable[str], *, any_case: bool = False) -> Schema:
    """One of these, or nothing, blanks around it trimmed: as the API reads its keywords."""
    listed = "|".join(_any_case(one) if any_case else one for one in values)
    return {"type": ["string", "null"], "pattern": rf"^\s*({listed})?\s*$"}


def number(least: int, most: int) -> Schema:
    """A whole number, or its digits in a text."""
    return {
        "description": f"{least}..{most}, as a number or as digits in a text",
        "oneOf": [
            {"type": "integer", "minimum": least, "maximum": most},
            {"type": "string", "pattern": r"^\s*[0-9]+\s*$"},
        ],
    }


def optional(schema: Schema) -> Schema:
    """The same, null, or a text of nothing but blanks."""
    return {"anyOf": [schema, {"type": "null"}, {"type": "string", "pattern": r"^\s*$"}]}


def just_one(names: Iterable[str], fields: dict[str, Schema]) -> Schema:
    """An object with exactly one of these fields."""
    return {
        "type": "object",
        "properties": fields,
        "oneOf": [{"required": [name]} for name in names],
    }


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def _any_case(text: str) -> str:
    return "".join(f"[{one.lower()}{one.upper()}]" if one.isalpha() else one for one in text)

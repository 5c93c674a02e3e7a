"""The base of all models of messages, and the types of their fields with the JSON schema of each.

A validator takes a field's value as it came and returns what is kept of it; it raises `WrongValue`
where the value cannot be taken. JSON schemas forbid nothing that a validator takes; of what a
validator refuses they forbid what a JSON schema can express.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError
from pydantic_core import CoreSchema, core_schema

from messages.errors import Refused, wrong
from messages.record import record
from messages.texts import is_line, is_resource_name, is_stored

Schema = dict[str, Any]
T = TypeVar("T")
M = TypeVar("M", bound="Model")

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]{1,12}")
#: Characters of an id or a name that are kept, logged and used as keys.
MAX_NAME = 255
#: Bytes of a name that is part of a routing key, which has at most 255.
MAX_ROUTED = 240
#: `data.reason` of a request for another region.
OTHER_REGION = "region"


class WrongValue(ValueError):
    """A value that cannot be taken. `parameter` names what is wrong where that is not the field
    itself; `detail` says why.
    """

    def __init__(self, detail: str | None = None, parameter: str | None = None) -> None:
        self.detail = detail
        self.parameter = parameter
        super().__init__(detail or "")


class Model(BaseModel):
    """A part of a message: frozen; fields that are not declared are ignored.

    A validator is built when it is first used, which takes 2.5 ms at most: building all of them
    would take a tenth of the worker's start.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, defer_build=True
    )
    #: Where several fields are wrong, those that are not listed are named first, and then these.
    naming_order: ClassVar[tuple[str, ...]] = ()


class Answer(Model):
    """A part of what the worker publishes; made by the fields' Python names, dumped by their names
    on the wire.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)


def validated(model: type[M], message: Any) -> M:
    """Return the model of a message, or raise `Refused` naming the first parameter that is wrong."""
    try:
        found: M = model.__pydantic_validator__.validate_python(message)
    except ValidationError as error:
        raise _refusal(error, model.naming_order) from None
    return found


def read(reader: Callable[[Any], T], value: Any, name: str) -> T:
    """Return what a validator of this module makes of a single value, or raise `Refused` naming it."""
    try:
        return reader(value)
    except WrongValue as error:
        raise wrong(error.parameter or name, error.detail) from None


def _refusal(error: ValidationError, order: tuple[str, ...]) -> Refused:
    ranks = {name: rank for rank, name in enumerate(order, start=1)}
    found = error.errors(include_url=False, include_input=False)
    first = min(found, key=lambda one: ranks.get(str(one["loc"][0]), 0) if one["loc"] else 0)
    cause = first.get("ctx", {}).get("error")
    names = [one for one in first["loc"] if isinstance(one, str)]
    if isinstance(cause, WrongValue):
        return wrong(cause.parameter or names[-1], cause.detail)
    return wrong(names[-1])


def uuid_of(value: Any) -> str:
    """A UUID, in lower case."""
    if not isinstance(value, str) or not is_uuid(value):
        raise WrongValue
    return value.lower()


def is_uuid(text: str) -> bool:
    """Tell whether a text is a UUID, in whatever case."""
    return _UUID.fullmatch(text) is not None


def _text(is_fit: Callable[[str], bool]) -> Callable[[Any], str | None]:
    """A validator of texts of at most 255 characters, blanks around them trimmed; missing, null and
    blank are None.
    """

    def validate(value: Any) -> str | None:
        if value is None:
            return None
        if (
            not isinstance(value, str)
            or len(value) > MAX_NAME
            or not is_fit(trimmed := value.strip())
        ):
            raise WrongValue
        return trimmed or None

    return validate


def needed(reader: Callable[[Any], T | None]) -> Callable[[Any], T]:
    """The same validator, which does not take nothing."""

    def validate(value: Any) -> T:
        found = reader(value)
        if found is None:
            raise WrongValue
        return found

    return validate


#: An id, a keyword: printable characters.
optional_word = _text(str.isprintable)
#: A text of one line, as people write it, emoji included.
optional_line = _text(is_line)
#: A word that OpenStack's databases hold.
stored_word = _text(lambda text: text.isprintable() and is_stored(text))
#: A line that OpenStack's databases hold: the name of an image in Glance.
stored_line = needed(_text(lambda text: is_line(text) and is_stored(text)))
#: A name that Nova takes.
optional_resource_name = _text(is_resource_name)
resource_name = needed(optional_resource_name)
word = needed(optional_word)
line = needed(optional_line)


def word_or_none(value: Any) -> str | None:
    """The word that a value is; None where it is none."""
    try:
        return optional_word(value)
    except WrongValue:
        return None


def routed_name(value: Any) -> str:
    """A stored word that is short enough for the routing key that it is published with."""
    found = _needed_stored_word(value)
    if len(found.encode()) > MAX_ROUTED:
        raise WrongValue(f"it is longer than {MAX_ROUTED} bytes")
    return found


_needed_stored_word = needed(stored_word)


def optional_uuid(value: Any) -> str | None:
    """A UUID; missing, null and blank are None."""
    named = optional_word(value)
    return uuid_of(named) if named is not None else None


def whole(value: Any) -> int:
    """A whole number that is not negative, as a number or as digits in a text."""
    if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12:
        return value
    raise WrongValue


def mapping(value: Any) -> Mapping[str, Any]:
    """An object; null counts as an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise WrongValue
    return value


@record
class Taken:
    """Annotation of a field: the validator of its value, and the JSON schema of the value."""

    validate: Callable[[Any], Any]
    schema: Mapping[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """Return the schema by which pydantic validates the field."""
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> Schema:
        """Return the JSON schema of the field."""
        return dict(self.schema)


def keyword(*values: str, any_case: bool = False) -> Schema:
    """The JSON schema of one of these words or nothing, blanks around it trimmed."""
    listed = "|".join(_any_case(one) if any_case else one for one in values)
    return {"type": ["string", "null"], "pattern": rf"^\s*({listed})?\s*$"}


def _any_case(text: str) -> str:
    return "".join(f"[{one.lower()}{one.upper()}]" if one.isalpha() else one for one in text)


def number(least: int, most: int) -> Schema:
    """The JSON schema of a whole number, as a number or as digits in a text."""
    return {
        "description": f"{least}..{most}, as a number or as digits in a text",
        "oneOf": [
            {"type": "integer", "minimum": least, "maximum": most},
            {"type": "string", "pattern": r"^\s*[0-9]+\s*$"},
        ],
    }


def counted(least: int, most: int, detail: str | None = None) -> Taken:
    """A whole number of a range; `detail` says what is wrong outside it."""

    def validate(value: Any) -> int:
        found = whole(value)
        if not least <= found <= most:
            raise WrongValue(detail)
        return found

    return Taken(validate, number(least, most))


@record
class ListOf:
    """Annotation of a tuple of models: a list of so many objects, checked before its elements.

    `prepare` returns the objects that are validated.
    """

    least: int
    most: int
    prepare: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """Return the schema by which pydantic validates the field."""
        return core_schema.no_info_before_validator_function(self._checked, handler(source))

    def _checked(self, value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list) or not self.least <= len(value) <= self.most:
            raise WrongValue
        if not all(isinstance(one, dict) for one in value):
            raise WrongValue
        return self.prepare(value)

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> Schema:
        """Return the JSON schema of the field."""
        return {**handler(core), "minItems": self.least, "maxItems": self.most}


class _Unread:
    """Annotation of a field of which any value becomes None."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """Return the schema by which pydantic validates the field."""
        none = core_schema.none_schema()
        return core_schema.with_default_schema(none, default=None, on_error="default")

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> Schema:
        """Return the JSON schema of the field."""
        return {}


class _NotNull:
    """Annotation of a field that may be missing: its JSON schema does not name null."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> Schema:
        """Return the JSON schema of the field."""
        schema: Schema = handler(core)
        options = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
        return options[0] if len(options) == 1 else schema


NOT_NULL = _NotNull()
#: Annotation of an object in which null counts as an empty one.
NULL_IS_EMPTY = BeforeValidator(lambda value: {} if value is None else value)


_HEX = "[0-9a-fA-F]"
WORD: Schema = {"type": "string", "pattern": r"\S", "maxLength": MAX_NAME}
OPTIONAL_WORD: Schema = {"type": ["string", "null"], "maxLength": MAX_NAME}

#: A UUID, in lower case.
Uuid = Annotated[
    str,
    StringConstraints(pattern=f"^{_HEX}{{8}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}}$", to_lower=True),
]
#: A UUID with blanks around it trimmed, as the billing system writes it.
TrimmedUuid = Annotated[str, Taken(needed(optional_uuid), WORD)]
OptionalUuid = Annotated[str | None, Taken(optional_uuid, OPTIONAL_WORD)]
Word = Annotated[str, Taken(word, WORD)]
Line = Annotated[str, Taken(line, WORD)]
RoutedName = Annotated[str, Taken(routed_name, WORD)]
ResourceName = Annotated[str, Taken(resource_name, WORD)]
OptionalWord = Annotated[str | None, Taken(optional_word, OPTIONAL_WORD)]
OptionalLine = Annotated[str | None, Taken(optional_line, OPTIONAL_WORD)]
OptionalResourceName = Annotated[str | None, Taken(optional_resource_name, OPTIONAL_WORD)]
StoredWord = Annotated[str | None, Taken(stored_word, OPTIONAL_WORD)]
#: Named in the schema, and neither checked nor kept.
Unread = Annotated[None, _Unread()]


def check_region(message: Mapping[str, Any], own: str) -> None:
    """Raise `Refused` where `region` of a command, order or product is another than `own`, whatever
    the case.

    Missing, null and blank count as its own.
    """
    given = message.get("region")
    region = read(optional_word, given, "region") if given is not None else None
    if region is not None and region.casefold() != own.casefold():
        raise wrong(
            "region", f"it is meant for {region}, and this worker is {own}'s", reason=OTHER_REGION
        )


def check_order_region(message: Mapping[str, Any], own: str) -> None:
    """Check the region of an order message, of each product and of each instance of a softDown."""
    check_region(message, own)
    for name in ("productList", "instanceList"):
        listed = message.get(name)
        for one in listed if isinstance(listed, list) else ():
            if isinstance(one, dict):
                check_region(one, own)

"""JSON schemas of everything that crosses the wire, made from the models."""

from functools import cache
from importlib.resources import files
from json import loads
from typing import Any, Literal, Union

from pydantic import BaseModel, Field, create_model
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from messages.codes import Code
from messages.commands import Operation, RequestHeaders
from messages.fields import Answer, Schema
from messages.operations import OPERATIONS
from messages.orders import OrderType
from messages.results import (
    CreatedImage,
    DeadLetterHeaders,
    FailureData,
    OrderOutcome,
    ResultHeaders,
    SoftDownOutcome,
)
from messages.updates import StatusUpdate

_PLACE = "#/components/schemas/"
_FAILURES = {str(code.wire): code.text_for("xxx") for code in Code if isinstance(code.wire, str)}


class Failure(Answer):
    """The result of a request that failed."""

    code: str = Field(
        description="; ".join(f"{code} {text}" for code, text in _FAILURES.items()),
        json_schema_extra={"enum": list(_FAILURES)},
    )
    message: str
    data: FailureData | None


class OrderResult(Answer):
    """The result of an order: whatever became of it, `data` has a shape that its type gives."""

    code: int | str = Field(json_schema_extra={"enum": [code.wire for code in Code]})
    message: str
    data: OrderOutcome | SoftDownOutcome | None


def name_of(key: Operation | OrderType) -> str:
    """Return the name of a request's schema: `ServerAction` of `server.action`, `OrderNew` of
    `new`.
    """
    return OPERATIONS[key].request.__name__


def result_name_of(key: Operation | OrderType) -> str:
    """Return the name of the schema of a request's result."""
    return f"{name_of(key)}Result"


@cache
def components() -> dict[str, Schema]:
    """Return the JSON schemas by their names, ready for `components.schemas` of an AsyncAPI or
    OpenAPI document: references are `#/components/schemas/<name>`. Each has a title, a description
    and examples.

    Names: `RequestHeaders`; each operation's request (`name_of(key)`: `ServerAction`, `OrderNew`),
    its result (`result_name_of(key)`: `ServerActionResult`), which is one of its
    `ServerActionAnswer` and `Failure`; `OrderResult`, which is any order's; `StatusUpdate`;
    `ResultHeaders`; `DeadLetterHeaders`; and the parts of all these, such as `Server` and `Image`.
    """
    text = (files("messages") / "examples.json").read_text("utf-8")
    examples: dict[str, list[Any]] = loads(text)
    operations = [key for key in OPERATIONS if isinstance(key, Operation)]
    models: list[type[BaseModel]] = [
        RequestHeaders,
        *(spec.request for spec in OPERATIONS.values()),
        *(_answer_of(key) for key in operations),
        Failure,
        OrderResult,
        StatusUpdate,
        ResultHeaders,
        DeadLetterHeaders,
    ]
    made = models_json_schema(
        [(one, "validation") for one in models],
        ref_template=_PLACE + "{model}",
        schema_generator=_Generator,
    )[1]
    schemas: dict[str, Schema] = _without_null_defaults(made["$defs"])
    del schemas["Secrets"]  # read from a field that the message shows as text
    for key in operations:
        answer = f"{name_of(key)}Answer"
        schemas[result_name_of(key)] = {
            "title": result_name_of(key),
            "description": f"The result of `{key}`.",
            "oneOf": [{"$ref": _PLACE + answer}, {"$ref": f"{_PLACE}Failure"}],
            "examples": [*examples[answer], examples["Failure"][0]],
        }
    for name, found in examples.items():
        schemas[name]["examples"] = found
    for name, found in examples.items():
        for example in found:
            _spread(example, schemas[name], schemas)
    return dict(sorted(schemas.items()))


class _Generator(GenerateJsonSchema):
    """Without titles of fields, which only repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _answer_of(key: Operation) -> type[BaseModel]:
    """The envelope of a successful result; its data are those of one of the tasks."""
    answers = [row.answer for row in OPERATIONS[key].tasks]
    codes: Any = Literal[200, 201] if CreatedImage in answers else Literal[200]
    data: Any = Union[tuple(answers)]  # noqa: UP007 - of types that are known only now
    return create_model(
        f"{name_of(key)}Answer",
        __base__=Answer,
        __doc__=f"The result of `{key}` where it succeeded.",
        code=(codes, ...),
        message=(str, ...),
        data=(data, ...),
    )


def _without_null_defaults(value: Any) -> Any:
    """A default of null says no more than that the field may be missing."""
    if isinstance(value, dict):
        return {
            key: _without_null_defaults(inner)
            for key, inner in value.items()
            if not (key == "default" and inner is None)
        }
    return [_without_null_defaults(one) for one in value] if isinstance(value, list) else value


def _spread(example: Any, schema: Schema, schemas: dict[str, Schema]) -> None:
    """Give the parts of a message their examples, from an example of the whole."""
    for option in (schema, *schema.get("anyOf", ())):
        if "$ref" not in option or example is None:
            continue
        part = schemas[option["$ref"].removeprefix(_PLACE)]
        if isinstance(example, dict) and not example.keys() >= set(part.get("required", ())):
            continue  # the example is of another of the kinds that it may be
        part.setdefault("examples", [example])
        _spread(example, part, schemas)
    if isinstance(example, dict):
        for name, inner in schema.get("properties", {}).items():
            if name in example:
                _spread(example[name], inner, schemas)
    elif isinstance(example, list) and isinstance(schema.get("items"), dict):
        for one in example:
            _spread(one, schema["items"], schemas)

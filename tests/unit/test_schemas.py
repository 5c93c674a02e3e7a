"""The JSON schemas of what crosses the wire, held against the parsers."""

import json
from functools import cache
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from messages.commands import Operation
from messages.operations import OPERATIONS, parse_command, parse_order
from messages.orders import OrderType, is_paid
from messages.results import OrderPreview, ServerSnapshot
from messages.schemas import components, name_of
from messages.secrets import mask
from messages.updates import StatusUpdate
from messages.views import Image, Server, ServerDetails
from sandbox.documents import REGION
from tests.support.envelopes import envelope
from tests.support.fuzz import samples, stream
from workers.pipeline.exits import Ignored, Rejected
from workers.pipeline.parsing import parse


@cache
def validator_of(name: str) -> Draft202012Validator:
    """By the name of a schema."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": components()}}
    return Draft202012Validator(schema)


def request_of(operation: str) -> str:
    """The name of the schema of a request that was read."""
    if operation in set(Operation):
        return name_of(Operation(operation))
    return name_of(OrderType(operation.removeprefix("order.")))


def taken(queue: str, routing_key: str, body: bytes, exchange: str) -> Any:
    """The request, where the message is one."""
    try:
        return parse(
            envelope(body, queue=queue, exchange=exchange, routing_key=routing_key, reply_to="r"),
            REGION,
        )
    except (Rejected, Ignored):
        return None


def wrong_in(operation: str, body: bytes) -> list[str]:
    # As the parsers see it: a token is masked, and so no longer too long for a name.
    found = validator_of(request_of(operation)).iter_errors(mask(json.loads(body)))
    return [one.message for one in found]


def test_what_is_taken_is_never_forbidden() -> None:
    """Twenty thousand mutated messages: of those that are requests, the schema says nothing."""
    number = 0
    for message in stream(7, 20_000):
        request = taken(message.queue, message.routing_key, message.body, message.exchange)
        if request is not None:
            number += 1
            assert wrong_in(request.operation, message.body) == [], message.body
    assert number > 2000


def test_right_messages_of_every_kind_are_right() -> None:
    operations = set()
    for exchange, routing_key, body in samples():
        raw = json.dumps(body).encode()
        queue = (
            "ecs.orders" if exchange == "ecs.orders" else f"ecs.{routing_key.partition('.')[0]}s"
        )
        request = taken(queue, routing_key, raw, exchange)
        operations.add(request.operation)
        assert wrong_in(request.operation, raw) == []
    assert operations >= set(Operation)
    assert {f"order.{one}" for one in OrderType} <= operations


@pytest.mark.parametrize("operation", Operation)
def test_what_must_be_there_is_missed(operation: Operation) -> None:
    schema = components()[name_of(operation)]
    body = next(one for _, key, one in samples() if key == operation)
    for name in schema["required"]:
        assert wrong_in(
            operation,
            json.dumps({key: value for key, value in body.items() if key != name}).encode(),
        )


@pytest.mark.parametrize("name", components())
def test_every_schema_has_a_title_a_description_and_examples_that_fit(name: str) -> None:
    schema = components()[name]
    Draft202012Validator.check_schema(schema)
    assert schema["title"] == name
    assert schema["description"]
    assert schema["examples"]
    for example in schema["examples"]:
        assert [one.message for one in validator_of(name).iter_errors(example)] == []


def test_every_example_of_a_request_is_read() -> None:
    for key in OPERATIONS:
        for example in components()[name_of(key)]["examples"]:
            if isinstance(key, Operation):
                assert parse_command(example, key).operation == key
            else:
                assert is_paid(example)
                assert parse_order(example).order_type is key


def test_every_example_of_an_answer_is_what_its_model_dumps() -> None:
    """All fields of a view are in its schema, and nothing else."""
    for model in (Server, ServerDetails, Image, OrderPreview, StatusUpdate, ServerSnapshot):
        for example in components()[model.__name__]["examples"]:
            made = model.model_validate(example).model_dump(mode="json", exclude_unset=True)
            assert made == example
            assert set(components()[model.__name__]["properties"]) >= set(made)

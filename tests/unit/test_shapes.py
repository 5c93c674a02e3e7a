"""The schemas of what crosses the wire, held against the parsers, and the AsyncAPI document that is
made of them.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from messages import shapes
from messages.commands import Operation
from messages.orders import OrderType
from messages.secrets import mask
from sandbox.documents import REGION
from tests.envelopes import envelope
from tests.faults.fuzz import samples, stream
from tests.names import NAMES
from workers.amqp.topology import topology
from workers.asyncapi import document
from workers.pipeline.exits import Ignored, Rejected
from workers.pipeline.parsing import parse


@cache
def validator_of(operation: str) -> Draft7Validator:
    """By the operation of a request that was read."""
    if operation == f"order.{OrderType.SOFT_DOWN}":
        return Draft7Validator(shapes.SOFT_DOWN)
    if operation in set(Operation):
        return Draft7Validator(shapes.REQUESTS[Operation(operation)])
    return Draft7Validator(shapes.ORDERS[OrderType(operation.removeprefix("order."))])


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
    return [one.message for one in validator_of(operation).iter_errors(mask(json.loads(body)))]


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
    schema = shapes.REQUESTS[operation]
    body = next(one for _, key, one in samples() if key == operation)
    for name in schema["required"]:
        assert wrong_in(
            operation,
            json.dumps({key: value for key, value in body.items() if key != name}).encode(),
        )


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def test_the_document_holds_together() -> None:
    made = document(NAMES)
    for reference in references(made):
        place = made
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
    for message in made["components"]["messages"].values():
        Draft7Validator.check_schema(message["payload"])
        Draft7Validator.check_schema(message.get("headers", {}))
    told = {
        channel["bindings"]["amqp"].get("exchange", channel["bindings"]["amqp"].get("queue"))[
            "name"
        ]
        for channel in made["channels"].values()
        if "bindings" in channel
    }
    there = topology()
    assert told <= {one.name for one in (*there.exchanges, *there.queues)}
    assert {
        "ecs.commands",
        "ecs.orders",
        "ecs.results",
        "ecs.status",
        "ecs.order-results",
        "ecs.dead",
    } == told


def test_the_command_prints_it_as_yaml_and_as_json() -> None:
    def printed(*words: str) -> str:
        command = [sys.executable, "-m", "workers", "asyncapi", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert yaml.safe_load(printed()) == json.loads(printed("-o", "json")) == document(NAMES)
    (line,) = printed("-o", "jsonl").splitlines()
    assert json.loads(line) == document(NAMES)

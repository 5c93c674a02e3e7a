"""The AsyncAPI document: it holds together, its examples are right, and it says what a publisher
must set.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from messages.commands import Operation
from messages.orders import OrderType
from tests.support.names import NAMES, queue_for
from workers.amqp.topology import topology
from workers.asyncapi import document

MADE = document(NAMES)
MESSAGES = MADE["components"]["messages"]
SCHEMAS = MADE["components"]["schemas"]


def validator_of(reference: str) -> Draft202012Validator:
    # The document is the schema, so that references inside it lead into it.
    return Draft202012Validator({**MADE, "$ref": reference})


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def test_every_reference_leads_somewhere() -> None:
    found = set(references(MADE))
    assert len(found) > 100
    for reference in found:
        place = MADE
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_every_schema_is_one_and_is_referred_to() -> None:
    used = {one.rpartition("/")[2] for one in references(MADE) if "/schemas/" in one}
    assert used == SCHEMAS.keys()
    for name, schema in SCHEMAS.items():
        Draft202012Validator.check_schema(schema)
        assert schema["title"] == name


def test_every_default_is_a_value_that_is_taken() -> None:
    """What generators make of the document sends it."""
    fields = [
        field
        for schema in SCHEMAS.values()
        for field in schema.get("properties", {}).values()
        if "default" in field
    ]
    assert len(fields) >= 5
    for field in fields:
        wrong = Draft202012Validator({**MADE, **field}).iter_errors(field["default"])
        assert [one.message for one in wrong] == []


@pytest.mark.parametrize("key", MESSAGES)
def test_a_message_has_a_title_and_examples_that_are_right(key: str) -> None:
    message = MESSAGES[key]
    assert message["title"] == message["name"]
    assert message["summary"]
    if key == "dead":
        return  # it may hold anything
    assert message["payload"]["$ref"].rpartition("/")[2] == message["title"]
    assert message["examples"]
    for example in message["examples"]:
        wrong = validator_of(message["payload"]["$ref"]).iter_errors(example["payload"])
        assert [one.message for one in wrong] == []


def test_a_payload_that_is_wrong_is_told() -> None:
    (example, *_) = MESSAGES["server.action"]["examples"]
    wrong = example["payload"] | {"server_id": "web-1"}
    assert list(validator_of("#/components/schemas/ServerAction").iter_errors(wrong))


def test_every_operation_and_order_has_its_message_and_its_reply() -> None:
    assert {one.value for one in Operation} <= MADE["operations"].keys()
    for one in Operation:
        operation = MADE["operations"][one.value]
        assert operation["messages"] == [{"$ref": f"#/channels/commands/messages/{one.value}"}]
        assert operation["description"].endswith(f" {queue_for('ecs.commands', one)}.")
        reply = operation["reply"]
        assert reply["messages"] == [{"$ref": f"#/channels/reply/messages/{one.value}.result"}]
        assert reply["address"]["location"] == "$message.header#/reply_to"
    listed = [one["$ref"].rpartition("/")[2] for one in MADE["operations"]["orders"]["messages"]]
    assert listed == [f"order.{one.value}" for one in OrderType]


def test_a_publisher_finds_the_properties_that_it_must_set() -> None:
    def needed(key: str) -> set[str]:
        headers = SCHEMAS[MESSAGES[key]["headers"]["$ref"].rpartition("/")[2]]
        assert {
            "content_type",
            "message_id",
            "correlation_id",
            "reply_to",
            "timestamp",
            "expiration",
            "x-ecs-deadline",
            "traceparent",
        } <= headers["properties"].keys()
        return {*headers["required"]}

    assert needed("server.action") == {"content_type", "message_id"}
    assert needed("image.batch_delete") == {"content_type", "message_id"}
    assert needed("server.list") == {"content_type"}
    assert needed("order.new") == {"content_type"}
    for operation in MADE["operations"].values():
        assert operation["bindings"]["amqp"]["deliveryMode"] == 2


def test_channels_are_those_of_the_topology() -> None:
    shown = {
        channel["bindings"]["amqp"].get("exchange", channel["bindings"]["amqp"].get("queue"))[
            "name"
        ]
        for channel in MADE["channels"].values()
        if "bindings" in channel
    }
    there = topology()
    assert shown <= {one.name for one in (*there.exchanges, *there.queues)}
    assert shown == {
        "ecs.commands",
        "ecs.orders",
        "ecs.results",
        "ecs.status",
        "ecs.order-results",
        "ecs.dead",
    }


def test_the_command_prints_it_as_yaml_and_as_json() -> None:
    def printed(*words: str) -> str:
        command = [sys.executable, "-m", "workers", "asyncapi", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert yaml.safe_load(printed()) == json.loads(printed("-o", "json")) == MADE
    (line,) = printed("-o", "jsonl").splitlines()
    assert json.loads(line) == MADE

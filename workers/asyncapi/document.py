"""The wire contract as an AsyncAPI 3 document: channels and operations of the topology, messages
and schemas of the models.
"""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from messages.commands import Operation
from messages.orders import OrderType
from workers.amqp.names import Names
from workers.amqp.topology import queue_of_command
from workers.asyncapi import messages as known

_ABOUT = """\
Server actions, image operations and paid orders, carried out on OpenStack. Written as the worker sees it: it receives
commands and orders, and sends results and status updates. `message_id` is the idempotency key of a command, `orderId`
that of an order, `flowId` that of a softDown: a repeat gets the same result and has no effect. Publish requests as
persistent messages to durable exchanges, and wait for the broker's confirm."""
#: Channels, each with its messages.
_MESSAGES: dict[str, tuple[str, ...]] = {
    "commands": known.COMMANDS,
    "orders": known.ORDERS,
    "results": (*known.RESULTS, known.ORDER_RESULT),
    "reply": (*known.RESULTS, known.ORDER_RESULT),
    "status": (known.STATUS_UPDATE,),
    "orderResults": (known.ORDER_RESULT,),
    "dead": (known.DEAD_LETTER,),
}
#: Where a reply goes. A requester that names no queue gets it from the exchange of results.
_REPLY_TO = {"location": "$message.header#/reply_to", "description": "The `reply_to` property."}
_RECEIVED = {"amqp": {"deliveryMode": 2, "ack": True, "bindingVersion": "0.3.0"}}
_SENT = {"deliveryMode": 2, "timestamp": True, "bindingVersion": "0.3.0"}


def document(names: Names) -> dict[str, Any]:
    """The document of a namespace, ready to be written as JSON or YAML."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "ecs-worker",
            "version": version("ecs-worker"),
            "description": _ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": _channels(names),
        "operations": _operations(names),
        "components": {"messages": known.messages(), "schemas": known.schemas()},
    }


def _channels(names: Names) -> dict[str, Any]:
    operations = [one.value for one in Operation]
    orders = [one.value for one in OrderType]
    resources = ["server", "image", "order"]
    of_orders = [*(f"order.{one}" for one in orders), "order.unknown"]
    unknown = "of an order `order.` and its type, `order.unknown` where it does not say its type"
    return {
        "commands": _exchange(
            "commands",
            names.commands_exchange,
            "{operation}",
            operation=("The operation", operations),
        ),
        "orders": _exchange(
            "orders", names.orders_exchange, "order.{orderType}", orderType=("Its type", orders)
        ),
        "results": _exchange(
            "results",
            names.results_exchange,
            "{operation}",
            operation=(f"The operation; {unknown}", [*operations, *of_orders]),
        ),
        "status": _exchange(
            "status",
            names.status_exchange,
            "{resource}.{id}",
            resource=("The kind of the resource", resources),
            id=("OpenStack's id, an orderId or a flowId", ()),
        ),
        "reply": {
            "address": None,
            "title": "reply_to",
            "description": "The requester's own queue, which its `reply_to` names; direct reply-to too.",
            "messages": _messages("reply"),
        },
        "orderResults": _queue(
            "orderResults",
            names.order_results_queue,
            "Results of orders wait here for the order system.",
        ),
        "dead": _queue(
            "dead",
            names.dead_queue,
            "Dead letters; only an operator replays or discards them.",
        ),
    }


def _operations(names: Names) -> dict[str, Any]:
    found = {one: _received("commands", (one,), "reply", f"{one}.result") for one in known.COMMANDS}
    for name, one in found.items():
        one["description"] = f"Waits for the worker in the queue {queue_of_command(names, name)}."
        one["reply"]["address"] = _REPLY_TO
    found["orders"] = _received("orders", known.ORDERS, "orderResults", known.ORDER_RESULT)
    found["results"] = _sent(
        "results", "Results of orders, and of commands without `reply_to`.", mandatory=False
    )
    found["status"] = _sent(
        "status",
        "Status updates, in order for each resource; exactly one is final, the last.",
        mandatory=False,
    )
    found["deadLetters"] = _sent("dead", "Messages that could not be handled.", mandatory=True)
    return found


def _received(channel: str, messages: Iterable[str], answered: str, answer: str) -> dict[str, Any]:
    return {
        "action": "receive",
        "channel": _reference(channel),
        "messages": [_reference(channel, one) for one in messages],
        "bindings": _RECEIVED,
        "reply": {"channel": _reference(answered), "messages": [_reference(answered, answer)]},
    }


def _sent(channel: str, summary: str, *, mandatory: bool) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": _reference(channel),
        "summary": summary,
        "messages": [_reference(channel, one) for one in _MESSAGES[channel]],
        "bindings": {"amqp": _SENT | {"mandatory": mandatory}},
    }


def _reference(channel: str, message: str | None = None) -> dict[str, str]:
    return {"$ref": f"#/channels/{channel}" + (f"/messages/{message}" if message else "")}


def _exchange(
    channel: str, name: str, address: str, **parameters: tuple[str, Iterable[str]]
) -> dict[str, Any]:
    return {
        "address": address,
        "title": name,
        "parameters": {
            parameter: {"description": text} | ({"enum": [*values]} if values else {})
            for parameter, (text, values) in parameters.items()
        },
        "messages": _messages(channel),
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": name, "type": "topic", "durable": True, "autoDelete": False},
                "bindingVersion": "0.3.0",
            }
        },
    }


def _queue(channel: str, name: str, text: str) -> dict[str, Any]:
    return {
        "address": name,
        "title": name,
        "description": text,
        "messages": _messages(channel),
        "bindings": {
            "amqp": {
                "is": "queue",
                "queue": {"name": name, "durable": True, "exclusive": False, "autoDelete": False},
                "bindingVersion": "0.3.0",
            }
        },
    }


def _messages(channel: str) -> dict[str, dict[str, str]]:
    return {one: {"$ref": f"#/components/messages/{one}"} for one in _MESSAGES[channel]}

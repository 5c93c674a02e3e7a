"""The channels: exchanges that are published to, and queues that are read from."""

from collections.abc import Iterable
from typing import Any

from messages.commands import Operation
from messages.orders import OrderType
from workers.amqp.names import Names
from workers.asyncapi import messages as named

COMMANDS, ORDERS, RESULTS, STATUS, REPLY = "commands", "orders", "results", "status", "reply"
ORDER_RESULTS, DEAD = "orderResults", "dead"
#: Every channel's messages.
MESSAGES: dict[str, tuple[str, ...]] = {
    COMMANDS: tuple(named.request_of(one) for one in Operation),
    ORDERS: tuple(named.order_of(one) for one in OrderType),
    RESULTS: (*(named.result_of(one) for one in Operation), named.ORDER_RESULT),
    REPLY: (*(named.result_of(one) for one in Operation), named.ORDER_RESULT),
    STATUS: (named.STATUS_UPDATE,),
    ORDER_RESULTS: (named.ORDER_RESULT,),
    DEAD: (named.PARKED,),
}


def channels(names: Names) -> dict[str, Any]:
    """All of them, in one namespace."""
    return {
        COMMANDS: _exchange(
            COMMANDS,
            names.commands_exchange,
            "{operation}",
            operation=("The operation", [one.value for one in Operation]),
        ),
        ORDERS: _exchange(
            ORDERS,
            names.orders_exchange,
            "order.{orderType}",
            orderType=("Its type", [one.value for one in OrderType]),
        ),
        RESULTS: _exchange(
            RESULTS,
            names.results_exchange,
            "{operation}",
            operation=(
                "The operation; of orders `order.` and the type, `order.unknown` where it does not say",
                [
                    *(one.value for one in Operation),
                    *(f"order.{one.value}" for one in OrderType),
                    "order.unknown",
                ],
            ),
        ),
        STATUS: _exchange(
            STATUS,
            names.status_exchange,
            "{resource}.{id}",
            resource=("What is told of", ["server", "image", "order"]),
            id=("OpenStack's id, an orderId or a flowId", []),
        ),
        REPLY: {
            "address": None,
            "description": "The requester's own queue, which its `reply_to` names; direct reply-to, too.",
            "messages": _messages(REPLY),
        },
        ORDER_RESULTS: _queue(
            ORDER_RESULTS,
            names.order_results_queue,
            "Results of orders wait here for the order system.",
        ),
        DEAD: _queue(
            DEAD,
            names.dead_queue,
            "What could not be handled; nothing leaves it but by an operator.",
        ),
    }


def reference(channel: str, message: str | None = None) -> dict[str, str]:
    """A reference to a channel, or to one of its messages."""
    return {
        "$ref": f"#/channels/{channel}" + (f"/messages/{message}" if message is not None else "")
    }


def _exchange(
    channel: str, name: str, address: str, **parameters: tuple[str, Iterable[str]]
) -> dict[str, Any]:
    told = {
        name: {"description": text} | ({"enum": values} if (values := list(listed)) else {})
        for name, (text, listed) in parameters.items()
    }
    is_exchange = {
        "is": "routingKey",
        "exchange": {"name": name, "type": "topic", "durable": True, "autoDelete": False},
        "bindingVersion": "0.3.0",
    }
    return {
        "address": address,
        "title": name,
        "parameters": told,
        "messages": _messages(channel),
        "bindings": {"amqp": is_exchange},
    }


def _queue(channel: str, name: str, text: str) -> dict[str, Any]:
    is_queue = {
        "is": "queue",
        "queue": {"name": name, "durable": True, "exclusive": False, "autoDelete": False},
        "bindingVersion": "0.3.0",
    }
    return {
        "address": name,
        "description": text,
        "messages": _messages(channel),
        "bindings": {"amqp": is_queue},
    }


def _messages(channel: str) -> dict[str, dict[str, str]]:
    return {one: {"$ref": f"#/components/messages/{one}"} for one in MESSAGES[channel]}

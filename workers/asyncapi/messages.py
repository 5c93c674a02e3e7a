"""The messages, by name: the operation or order that they ask for, and what comes back of it."""

from typing import Any

from messages import shapes
from messages.commands import Operation
from messages.orders import OrderType

#: The names of messages that no operation has for itself.
ORDER_RESULT, STATUS_UPDATE, PARKED = "order.result", "status", "parked"
_CORRELATION = {
    "description": "The request's `correlation_id` property, else its `message_id`",
    "location": "$message.header#/correlation_id",
}


def request_of(operation: Operation) -> str:
    """The name of a command's message."""
    return operation.value


def result_of(operation: Operation) -> str:
    """The name of the message that answers it."""
    return f"{operation.value}.result"


def order_of(order_type: OrderType) -> str:
    """The name of an order's message."""
    return f"order.{order_type.value}"


def messages() -> dict[str, Any]:
    """All of them."""
    found = {request_of(one): _request(one.value, shapes.REQUESTS[one]) for one in Operation}
    found |= {
        result_of(one): _result(f"Answers {one.value}", shapes.result_of(one)) for one in Operation
    }
    found |= {
        order_of(one): _request(order_of(one), schema) for one, schema in shapes.ORDERS.items()
    }
    found[order_of(OrderType.SOFT_DOWN)] = _request(
        "Servers that nobody pays for", shapes.SOFT_DOWN
    )
    found[ORDER_RESULT] = _result("What became of an order", shapes.ORDER_RESULT)
    found[STATUS_UPDATE] = {
        "summary": "The course of a server, an image or an order",
        "payload": shapes.STATUS_UPDATE,
        "correlationId": _CORRELATION,
    }
    found[PARKED] = {
        "summary": "What could not be handled, its secrets masked",
        "headers": shapes.PARKED_HEADERS,
        "payload": {"description": "as it came"},
    }
    return found


def _request(summary: str, payload: shapes.Schema) -> dict[str, Any]:
    return {"summary": summary, "headers": shapes.HEADERS, "payload": payload}


def _result(summary: str, payload: shapes.Schema) -> dict[str, Any]:
    return {
        "summary": summary,
        "headers": shapes.RESULT_HEADERS,
        "payload": payload,
        "correlationId": _CORRELATION,
    }

"""The messages, by name: the operation or order that they ask for, and what comes back of it."""

from typing import Any

from messages.commands import Operation
from messages.orders import OrderType
from messages.schemas import name_of, result_name_of

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
    found = {request_of(one): _request(one.value, name_of(one)) for one in Operation}
    found |= {
        result_of(one): _result(f"Answers {one.value}", result_name_of(one)) for one in Operation
    }
    found |= {order_of(one): _request(order_of(one), name_of(one)) for one in OrderType}
    found[order_of(OrderType.SOFT_DOWN)]["summary"] = "Servers that nobody pays for"
    found[ORDER_RESULT] = _result("What became of an order", "OrderResult")
    found[STATUS_UPDATE] = {
        "summary": "The course of a server, an image or an order",
        "payload": _schema("StatusUpdate"),
        "correlationId": _CORRELATION,
    }
    found[PARKED] = {
        "summary": "What could not be handled, its secrets masked",
        "headers": _schema("DeadLetterHeaders"),
        "payload": {"description": "as it came"},
    }
    return found


def _request(summary: str, name: str) -> dict[str, Any]:
    return {"summary": summary, "headers": _schema("RequestHeaders"), "payload": _schema(name)}


def _result(summary: str, name: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "headers": _schema("ResultHeaders"),
        "payload": _schema(name),
        "correlationId": _CORRELATION,
    }


def _schema(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}

"""The messages of the AsyncAPI document, and the schemas that their payloads and headers refer to."""

from typing import Any

from messages.commands import Operation
from messages.fields import Schema
from messages.operations import OPERATIONS, Mode
from messages.orders import OrderType
from messages.schemas import components, name_of, result_name_of
from workers.asyncapi.schemas import named, reference

#: The keys of messages that belong to no single operation.
ORDER_RESULT, STATUS_UPDATE, DEAD_LETTER = "order.result", "status", "dead"
COMMANDS = tuple(one.value for one in Operation)
RESULTS = tuple(f"{one.value}.result" for one in Operation)
ORDERS = tuple(f"order.{one.value}" for one in OrderType)

_CORRELATION = {
    "description": "The request's `correlation_id`, else its `message_id`.",
    "location": "$message.header#/correlation_id",
}
_BINDINGS = {"amqp": {"contentEncoding": "utf-8", "bindingVersion": "0.3.0"}}
_TEXT: Schema = {"type": "string", "maxLength": 255}
_TIMESTAMP: Schema = {
    "type": "integer",
    "description": "AMQP property: Unix seconds, when it was published.",
}
#: AMQP properties of requests. The specification has no other place for them than the headers.
_REQUEST: dict[str, Schema] = {
    "content_type": {
        "const": "application/json",
        "description": "AMQP property: anything else is refused; missing counts as that.",
    },
    "message_id": _TEXT
    | {"description": "AMQP property: unique per request; the idempotency key of a command."},
    "correlation_id": _TEXT | {"description": "AMQP property: comes back with the result."},
    "reply_to": _TEXT
    | {
        "description": "AMQP property: the requester's own queue; without it results go to the "
        "exchange of results."
    },
    "timestamp": _TIMESTAMP,
    "expiration": _TEXT
    | {"description": "AMQP property: milliseconds from `timestamp`; past it nothing is begun."},
}
#: AMQP properties of what the worker publishes.
_PUBLISHED: dict[str, Schema] = {
    "content_type": {"const": "application/json"},
    "message_id": _TEXT
    | {"description": "AMQP property: the same request always gives the same id."},
    "correlation_id": _TEXT | {"description": f"AMQP property: {_CORRELATION['description']}"},
    "timestamp": _TIMESTAMP,
    "type": _TEXT | {"description": "AMQP property: the operation, or `order.<orderType>`."},
}


def schemas() -> dict[str, Schema]:
    """`components.schemas`: those of the models, and the headers with the AMQP properties."""
    made = dict(components())
    request = made.pop("RequestHeaders")
    return named(
        made
        | {
            "CommandHeaders": _headers(request, _REQUEST, "content_type", "message_id"),
            "ReadHeaders": _headers(request, _REQUEST, "content_type"),
            "OrderHeaders": _headers(request, _REQUEST, "content_type"),
            "ResultHeaders": _headers(made["ResultHeaders"], _PUBLISHED, *_PUBLISHED),
            "StatusHeaders": _headers(
                {"type": "object", "description": "Headers of a status update."},
                _PUBLISHED,
                *_PUBLISHED,
            ),
        }
    )


def messages() -> dict[str, Any]:
    """`components.messages`, by key."""
    known = schemas()
    found = {one.value: _message(known, name_of(one), _headers_of(one)) for one in Operation}
    found |= {
        f"{one.value}.result": _answer(known, result_name_of(one), "ResultHeaders")
        for one in Operation
    }
    found |= {
        f"order.{one.value}": _message(known, name_of(one), "OrderHeaders") for one in OrderType
    }
    found[ORDER_RESULT] = _answer(known, "OrderResult", "ResultHeaders")
    found[STATUS_UPDATE] = _answer(known, "StatusUpdate", "StatusHeaders")
    found[DEAD_LETTER] = {
        "name": "DeadLetter",
        "title": "DeadLetter",
        "summary": "What could not be handled, as it came, its secrets masked.",
        "headers": reference("DeadLetterHeaders"),
        "payload": {"description": "as it came"},
    }
    return found


def _headers_of(operation: Operation) -> str:
    """A command that is journaled, or whose answer is confidential, needs a `message_id`."""
    is_read = all(row.mode is Mode.READ for row in OPERATIONS[operation].tasks)
    return "ReadHeaders" if is_read else "CommandHeaders"


def _headers(schema: Schema, properties: dict[str, Schema], *required: str) -> Schema:
    return schema | {
        "properties": properties | schema.get("properties", {}),
        "required": sorted({*required, *schema.get("required", ())}),
    }


def _message(known: dict[str, Schema], name: str, headers: str) -> dict[str, Any]:
    return {
        "name": name,
        "title": name,
        "summary": known[name].get("description", ""),
        "contentType": "application/json",
        "headers": reference(headers),
        "payload": reference(name),
        "bindings": _BINDINGS,
        "examples": [{"payload": one} for one in known[name].get("examples", ())],
    }


def _answer(known: dict[str, Schema], name: str, headers: str) -> dict[str, Any]:
    return _message(known, name, headers) | {"correlationId": _CORRELATION}

"""The API as an OpenAPI 3.1 document, made of the table of routes and of the messages' models."""

from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Any

from gateway.routes import ROUTES, BodyIs, Route
from messages.codes import Code
from messages.fields import Schema
from messages.orders import OrderType
from messages.schemas import components, name_of

TITLE, VERSION = "ecs-worker", version("ecs-worker")
ORDERS, EVENTS = "/v1/orders", "/v1/events"
HEALTH = ("/livez", "/readyz", "/metrics")
_ABOUT = """\
The API document of the cloud servers over HTTP. Each request becomes a message; the reply's envelope is the answer,
whatever its status. `code` is 200 (201 for an image that is made), or a text such as `101.001002` on failure.
`Idempotency-Key` names a change of a server or an image: the same one gets the
same result, and nothing is done twice; an order's key is its `orderId`. Where publishers are trusted,
`X-User-Id` names the user beside `X-Tenant-Id`; `traceparent` and `tracestate` are passed on."""
_SCHEMAS, _RESPONSES = "#/components/schemas/", "#/components/responses/"
_REQUEST_ID = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
#: Failures by their status: the name, what it says, and the header that it has.
_FAILURES: dict[int, tuple[str, str, str | None]] = {
    400: ("BadRequest", "A parameter is wrong, or the state of things does not allow it.", None),
    401: ("Unauthorized", "Who asks is not proven.", "WWW-Authenticate"),
    404: ("NotFound", "There is no such URL.", None),
    405: ("MethodNotAllowed", "The URL is asked for by another method.", "Allow"),
    408: ("RequestTimeout", "The body did not arrive in time.", None),
    413: ("ContentTooLarge", "The body is larger than 1 MiB.", None),
    431: ("HeadersTooLarge", "The headers are too large.", None),
    500: ("Failed", "An image could not be changed or deleted; or an error in the gateway.", None),
    503: (
        "Unavailable",
        "The broker is away, or too many requests are under way: nothing was done, or the same "
        "`Idempotency-Key` asks for what was.",
        "Retry-After",
    ),
    504: (
        "NoAnswer",
        "No result in time. It may still come: the same `Idempotency-Key` asks again.",
        None,
    ),
}
_BODILESS = (408, 413)


@cache
def document() -> dict[str, Any]:
    """Return the document."""
    known = components() | _own_schemas()
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path.replace(":path", ""), {})[route.method.lower()] = _operation(
            route, known
        )
    paths[ORDERS] = {"post": _order()}
    paths[EVENTS] = {"get": _events()}
    paths |= _health()
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": VERSION,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": one} for one in ("servers", "images", "orders", "events", "health")],
        "security": [{"bearer": []}, {"tenant": []}],
        "paths": paths,
        "components": {
            "securitySchemes": _security(),
            "headers": _headers(),
            "responses": {name: _failure(status) for status, (name, _, _) in _FAILURES.items()},
        },
    }
    found["components"]["schemas"] = _reached(found, known)
    return found


def _operation(route: Route, known: dict[str, Schema]) -> dict[str, Any]:
    name = name_of(route.operation)
    model = known[name]
    fields: dict[str, Schema] = model["properties"]
    required = model.get("required", ())
    made: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": model["description"],
        "tags": [route.path.split("/")[2]],
        "parameters": [
            *(_parameter(one, "path", fields[one]) for one in _placeholders(route.path)),
            *(_parameter(one, "query", fields[one], needed=one in required) for one in route.query),
            _idempotency_key(),
        ],
        "responses": _responses(_content(f"{name}Answer"), has_body=_has_body(route)),
    }
    if _has_body(route):
        schema = _order_schema() if route.body is BodyIs.ORDER else fields["body"]
        examples = [one[route.body.value] for one in model["examples"]]
        made["requestBody"] = _body(schema, examples)
    return made


def _has_body(route: Route) -> bool:
    return route.body in (BodyIs.BODY, BodyIs.ORDER)


def _operation_id(route: Route) -> str:
    name = name_of(route.operation)
    # The one operation that has two URLs.
    return name[0].lower() + name[1:] + ("AtDelete" if route.path == "/v1/images/delete" else "")


def _placeholders(path: str) -> Iterator[str]:
    return (part[1:-1].removesuffix(":path") for part in path.split("/") if part.startswith("{"))


def _parameter(name: str, place: str, schema: Schema, *, needed: bool = True) -> dict[str, Any]:
    made = _of_text(schema)
    text = made.pop("description", None)
    made.pop("default", None)
    found: dict[str, Any] = {"name": name, "in": place, "required": needed, "schema": made}
    return found | ({"description": text} if text is not None else {})


def _of_text(schema: Schema) -> Schema:
    """Return the schema of a value in a URL: there is no null, and digits are a number."""
    options = schema.get("anyOf") or schema.get("oneOf")
    if options is not None:
        first = next(one for one in options if one.get("type") != "null")
        rest = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
        return _of_text(first) | rest
    kind = schema.get("type")
    return schema | {"type": kind[0] if isinstance(kind, list) else kind}


def _idempotency_key() -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "The request's `message_id`: the same one gets the same result, and nothing "
        "is done twice. A new one where it is missing.",
        "schema": {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
    }


def _body(schema: Schema, examples: list[Any]) -> dict[str, Any]:
    numbered = {str(number): {"value": one} for number, one in enumerate(examples, 1)}
    return {
        "required": True,
        "content": {"application/json": {"schema": schema, "examples": numbered}},
    }


def _order_schema() -> Schema:
    return {"anyOf": [{"$ref": _SCHEMAS + name_of(one)} for one in OrderType]}


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _SCHEMAS + name}}}


def _responses(
    content: dict[str, Any], status: int = 200, *, has_body: bool, headers: Any = None
) -> dict[str, Any]:
    answers: dict[str, Any] = {
        str(status): {
            "description": "Done." if status == 200 else "Accepted.",
            "headers": _REQUEST_ID | (headers or {}),
            "content": content,
        }
    }
    for failure, (name, _, _) in _FAILURES.items():
        if has_body or failure not in _BODILESS:
            answers[str(failure)] = {"$ref": _RESPONSES + name}
    return answers


def _failure(status: int) -> dict[str, Any]:
    _, text, header = _FAILURES[status]
    headers = _REQUEST_ID | (
        {header: {"required": True, "schema": {"type": "string"}}} if header else {}
    )
    return {"description": text, "headers": headers, "content": _content("Failure")}


def _order() -> dict[str, Any]:
    examples = [
        one for kind in OrderType for one in components()[name_of(kind)].get("examples", ())[:1]
    ]
    location = {
        "Location": {
            "description": "The order's own URL.",
            "required": True,
            "schema": {"type": "string"},
        }
    }
    return {
        "operationId": "orderSubmit",
        "summary": "Submit an order. 202: the broker has it; it is carried out in its own time, or "
        "refused by a worker. Its result goes to the queue of order results, its course is shown by "
        "its URL and by `/v1/events`.",
        "tags": ["orders"],
        "parameters": [_idempotency_key()],
        "requestBody": _body(_order_schema(), examples),
        "responses": _responses(_content("OrderAccepted"), 202, has_body=True, headers=location),
    }


def _events() -> dict[str, Any]:
    stream = {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": 'event: update\nid: 0b1f\ndata: {"resource": "server", "id": "616f"}\n\n',
        }
    }
    return {
        "operationId": "events",
        "summary": "The tenant's status updates as Server-Sent Events: `update` (`data` is a "
        "`StatusUpdate`), `gap` (updates may have been missed), `end` (ask again).",
        "tags": ["events"],
        "parameters": [
            {
                "name": "resource",
                "in": "query",
                "description": "of this kind alone",
                "schema": {"type": "string", "enum": ["server", "image", "order"]},
            },
            {
                "name": "id",
                "in": "query",
                "description": "of the resource with this id alone",
                "schema": {"type": "string"},
            },
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "go on after this event",
                "schema": {"type": "string"},
            },
        ],
        "responses": _responses(stream, has_body=False),
    }


def _health() -> dict[str, Any]:
    live, ready, metrics = HEALTH
    health = _content("Health")
    answered = {"description": "It is.", "headers": _REQUEST_ID, "content": health}
    method = {"405": {"$ref": f"{_RESPONSES}MethodNotAllowed"}}
    common = {"tags": ["health"], "security": []}
    return {
        live: {
            "get": {
                **common,
                "operationId": "livez",
                "summary": "Whether it is alive.",
                "responses": {"200": answered} | method,
            }
        },
        ready: {
            "get": {
                **common,
                "operationId": "readyz",
                "summary": "Whether it is ready.",
                "responses": {"200": answered, "503": answered | {"description": "Not ready."}}
                | method,
            }
        },
        metrics: {
            "get": {
                **common,
                "operationId": "metrics",
                "summary": "Metrics for Prometheus.",
                "responses": {
                    "200": {
                        "description": "In Prometheus' text format.",
                        "headers": _REQUEST_ID,
                        "content": {"text/plain": {"schema": {"type": "string"}}},
                    }
                }
                | method,
            }
        },
    }


def _own_schemas() -> dict[str, Schema]:
    return {
        "Health": {
            "title": "Health",
            "type": "object",
            "required": ["status"],
            "properties": {
                "status": {"type": "string"},
                "problems": {"type": "array", "items": {"type": "string"}},
            },
        },
        "OrderAccepted": {
            "title": "OrderAccepted",
            "type": "object",
            "required": ["code", "message", "data"],
            "properties": {
                "code": {"const": Code.OK.wire},
                "message": {"type": "string"},
                "data": {
                    "type": "object",
                    "required": ["key", "message_id"],
                    "properties": {
                        "key": {"type": "string", "description": "its `orderId` or `flowId`"},
                        "message_id": {"type": "string"},
                    },
                },
            },
        },
    }


def _security() -> dict[str, Any]:
    return {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "Where tokens are verified (`ECS_JWT_JWKS`).",
        },
        "tenant": {
            "type": "apiKey",
            "in": "header",
            "name": "X-Tenant-Id",
            "description": "Where publishers are trusted (`ECS_TRUST_PUBLISHERS`): the project's id "
            "or name. `X-User-Id` may say the user.",
        },
    }


def _headers() -> dict[str, Any]:
    return {
        "RequestId": {
            "description": "The request's `message_id`: its `Idempotency-Key`, or a new one.",
            "required": True,
            "schema": {"type": "string"},
        }
    }


def _reached(found: Any, known: dict[str, Schema]) -> dict[str, Schema]:
    """Return the schemas that are referred to, with those that they refer to. `StatusUpdate` is
    that of the events' data, which no schema can refer to.
    """
    names, reached = {"StatusUpdate", *_references(found)}, dict[str, Schema]()
    while names:
        name = names.pop()
        if name not in reached:
            reached[name] = known[name]
            names.update(_references(known[name]))
    return dict(sorted(reached.items()))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith(_SCHEMAS):
            yield reference.removeprefix(_SCHEMAS)
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _references(one)

"""Reading of an HTTP request: its parameters, its body within limits, its idempotency key."""

import asyncio
import re
import uuid
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request

from gateway.admission import Account, Budget
from gateway.failures import HttpFailure, failure_of, parameter, too_large
from gateway.routes import BodyIs, Route
from messages.errors import Refused, wrong
from messages.wire import MAX_BODY, decode_value, encode
from workers.pipeline.large_bodies import in_thread_if_large

KEY = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_FORM = "application/x-www-form-urlencoded"
#: Seconds for a body to arrive.
BODY_SECONDS = 20.0
#: Bytes and seconds for which the rest of a body that is too large is read and dropped: who is still
#: sending reads no answer.
_DROPPED, _DROPPING = 16 * MAX_BODY, 5.0
#: Parameters of one query or form.
_MOST = 100
#: Characters of a trace's headers.
_LONGEST_TRACE = 512


def message_id_of(headers: Headers) -> str:
    """Return the idempotency key, or a new one. Raises `HttpFailure` where it cannot be taken."""
    given = set(headers.getlist(KEY))
    if not given:
        return uuid.uuid4().hex
    if len(given) > 1 or not _KEY.fullmatch(key := given.pop()):
        raise parameter(KEY)
    return key


def trace_of(headers: Headers, name: str) -> str | None:
    """Return a header of the W3C trace context; None where there is none that could be one."""
    text = headers.get(name)
    return text if text and len(text) <= _LONGEST_TRACE else None


def query_of(request: Request, names: Collection[str]) -> dict[str, str]:
    """Return the parameters of the query that have these names. Raises `HttpFailure` where one says
    two different things.
    """
    try:
        listed = _pairs(request.scope["query_string"].decode("ascii"))
    except ValueError:
        raise parameter("query") from None
    return _merged((name, value) for name, value in listed if name in names)


def parameters(route: Route, request: Request, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of path and query, and `more` of the body. Raises `HttpFailure` where
    two of them say different things of one.
    """
    path = request.path_params
    query = query_of(request, {*path, *route.query})
    known = [(name, value) for name, value in more.items() if name in route.query]
    return _merged([*path.items(), *query.items(), *known])


def form_or_object(body: bytes, content_type: str | None) -> dict[str, Any]:
    """Return the fields of a form, or of a JSON object; none of an empty body."""
    if not body:
        return {}
    if content_type is not None and content_type.partition(";")[0].strip().lower() == _FORM:
        try:
            return _merged(_pairs(body.decode("ascii")))
        except ValueError:
            raise parameter("body") from None
    found = _read(body, content_type, None)
    if not isinstance(found, dict):
        raise parameter("body")
    return found


async def read_json(body: bytes, headers: Headers) -> Any:
    """Return the JSON value of a body, within the limits of a message's."""
    types = headers.get("content-type"), headers.get("content-encoding")
    return await in_thread_if_large(len(body), lambda: _read(body, *types))


async def body_of(request: Request, budget: Budget, account: Account) -> bytes:
    """Return the body. Raises `HttpFailure` where it is too large, comes too slowly, or too many
    bytes are held already; `ClientDisconnect` where it does not come to its end.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > MAX_BODY:
        if "expect" not in request.headers:  # otherwise it is not sent before it is asked for
            await _drop(request)
        raise too_large()
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                budget.charge(account, len(chunk))
                found += chunk
                if len(found) > MAX_BODY:
                    break
    except TimeoutError:
        raise HttpFailure(408, reason="slow_body", close=True) from None
    if len(found) > MAX_BODY:
        await _drop(request)
        raise too_large()
    return bytes(found)


async def _drop(request: Request) -> None:
    """Read what is still coming, for a while, and keep nothing of it."""
    dropped = 0
    try:
        async with asyncio.timeout(_DROPPING):
            while dropped < _DROPPED:
                message = await request.receive()
                dropped += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
    except (TimeoutError, ClientDisconnect):
        return


def _pairs(text: str) -> list[tuple[str, str]]:
    return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST)


def _merged(listed: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in listed:
        # A number of a JSON object is the same as its digits in a query.
        # NUL is in no text of a message; the worker would not name the parameter.
        if "\0" in str(value) or (name in found and str(found[name]) != str(value)):
            raise parameter(name)
        found.setdefault(name, value)
    return found


def _read(body: bytes, content_type: str | None, content_encoding: str | None) -> Any:
    try:
        if not body:
            raise wrong("body", "there is no body")
        return decode_value(body, content_type, content_encoding)
    except Refused as refused:
        raise failure_of(refused) from None


async def command_of(
    route: Route, request: Request, who: Mapping[str, str], budget: Budget, account: Account
) -> bytes:
    """Return the body of the command that a request becomes; `who` are the fields of its sender."""
    command: dict[str, Any] = {"operation": route.operation.value}
    if route.body is BodyIs.NOTHING:
        return encode({**command, **parameters(route, request, {}), **who})
    body = await body_of(request, budget, account)
    if route.body is BodyIs.PARAMETERS:
        kind = request.headers.get("content-type")
        given = await in_thread_if_large(len(body), lambda: form_or_object(body, kind))
        return encode({**command, **parameters(route, request, given), **who})
    command |= parameters(route, request, {})
    command[route.body.value] = await read_json(body, request.headers)
    command |= who
    message = await in_thread_if_large(len(body), lambda: encode(command))
    if len(message) > MAX_BODY:
        raise too_large()
    return message

"""What an HTTP request asks for: its parameters, its body within limits, its idempotency key."""

import asyncio
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request

from gateway.admission import Account, Budget
from gateway.failures import HttpFailure, failure_of, parameter, too_large
from gateway.routes import BodyIs, Route
from messages.errors import Refused, wrong
from messages.wire import MAX_BODY, decode_value

KEY = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_FORM = "application/x-www-form-urlencoded"
#: Seconds for a body to arrive.
BODY_SECONDS = 20.0
#: Bytes and seconds for which the rest of a body that is too large is read and dropped: who is still
#: sending reads no answer.
_DROPPED, _DROPPING = 16 * MAX_BODY, 5.0
#: Bytes of a body from which it is read in a thread: 350,000 lists in it take seconds.
_LARGE = 64 * 1024
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


def parameters(route: Route, request: Request, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of path and query, and `more` of the body. Raises `HttpFailure` where
    two places, or two in one, say different things.
    """
    try:
        query = request.scope["query_string"].decode("ascii")
        asked = _pairs(query)
    except ValueError:
        raise parameter("query") from None
    listed = [*request.path_params.items(), *asked, *more.items()]
    known = {*request.path_params, *route.query}
    return _merged((name, value) for name, value in listed if name in known)


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
    if len(body) > _LARGE:
        return await asyncio.to_thread(_read, body, *types)
    return _read(body, *types)


async def body_of(request: Request, budget: Budget, account: Account) -> bytes:
    """Return the body. Raises `HttpFailure` where it is too large, comes too slowly, or too many
    bytes are held already; `ClientDisconnect` where it does not come to its end.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > MAX_BODY:
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
        if name in found and str(found[name]) != str(value):
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


async def fields_of(
    route: Route, request: Request, budget: Budget, account: Account
) -> dict[str, Any]:
    """Return the fields of the command that a request becomes, without those of its sender."""
    if route.body is BodyIs.NOTHING:
        return parameters(route, request, {})
    body = await body_of(request, budget, account)
    if route.body is BodyIs.PARAMETERS:
        given = form_or_object(body, request.headers.get("content-type"))
        return parameters(route, request, given)
    return parameters(route, request, {}) | {
        route.body.value: await read_json(body, request.headers)
    }

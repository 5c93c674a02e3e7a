"""Common parts of every service's API: callers, errors in the service's own shape, request
ids.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from sandbox.openstack.state import Project, User

_NOVA_KEYS = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    409: "conflictingRequest",
    413: "overLimit",
    500: "computeFault",
    503: "serviceUnavailable",
}

#: WebOb's page, and its names of statuses where they are older than Python's.
_PAGE = (
    "<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n  {message}<br /><br />\n"
    "\n\n\n </body>\n</html>"
)
_PHRASES = {413: "Request Entity Too Large"}


class ApiError(Exception):
    """An answer of 400 and above, in OpenStack's own words.

    `kind` is the name of Neutron's exception; `retry_after` goes into the header, and into Cinder's
    body.
    """

    def __init__(
        self, status: int, message: str, *, kind: str = "Error", retry_after: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Caller:
    """The user and the project of the token that came with a call."""

    user: User
    project: Project

    @property
    def is_admin(self) -> bool:
        """True where the user may do what only an admin may."""
        return self.user.admin


def caller(request: Request) -> Caller:
    """Return the caller; `ApiError` 401 without a valid token."""
    found = request.state.caller
    if not isinstance(found, Caller):
        raise ApiError(401, "The request you have made requires authentication.")
    return found


def root_of(request: Request) -> str:
    """The URL of the service that is called, without a slash at the end."""
    return f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '')}"


def request_id(request: Request) -> str:
    """The id that this call is answered with."""
    found: str = request.state.request_id
    return found


async def body_of(request: Request) -> dict[str, Any]:
    """The call's JSON object; `ApiError` 400 for anything else."""
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise ApiError(400, "Malformed request body")
    return body


def first_word(body: bytes) -> str:
    """The name of the first field of a JSON object, by which Nova and Cinder tell one action from
    another.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    return str(next(iter(found), "")) if isinstance(found, dict) else ""


def new_request_id() -> str:
    """An id as OpenStack makes them."""
    return f"req-{uuid.uuid4()}"


def render(service: str, error: ApiError) -> Response:
    """An error as that service puts it."""
    if error.status == 401 or service == "keystone":
        title = {401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}.get(
            error.status, "Bad Request"
        )
        content: Mapping[str, Any] = {
            "error": {"code": error.status, "message": error.message, "title": title}
        }
        return JSONResponse(content, error.status)
    if service == "neutron":
        told = {"type": error.kind, "message": error.message, "detail": ""}
        return JSONResponse({"NeutronError": told}, error.status)
    if service == "glance":
        title = f"{error.status} {_PHRASES.get(error.status) or HTTPStatus(error.status).phrase}"
        page = _PAGE.format(title=title, message=escape(error.message))
        return HTMLResponse(page, error.status, media_type="text/html; charset=UTF-8")
    fault: dict[str, Any] = {"code": error.status, "message": error.message}
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        fault["retryAfter"] = headers["Retry-After"] = error.retry_after
    kind = "application/json; charset=UTF-8" if service == "nova" else "application/json"
    key = _NOVA_KEYS.get(error.status, "computeFault")
    return JSONResponse({key: fault}, error.status, headers, media_type=kind)


def page_of(
    items: list[dict[str, Any]], request: Request
) -> tuple[list[dict[str, Any]], str | None]:
    """The part that `limit` and `marker` ask for, and the next page's marker."""
    marker = request.query_params.get("marker")
    if marker is not None:
        position = next((index for index, item in enumerate(items) if item["id"] == marker), None)
        if position is None:
            raise ApiError(400, f"marker [{marker}] not found")
        items = items[position + 1 :]
    limit = int(request.query_params.get("limit", 1000))
    return (items[:limit], items[limit - 1]["id"]) if len(items) > limit else (items, None)


def links(next_marker: str | None, request: Request) -> list[dict[str, str]]:
    """The link to the next page, where there is one."""
    if next_marker is None:
        return []
    return [{"rel": "next", "href": str(request.url.include_query_params(marker=next_marker))}]

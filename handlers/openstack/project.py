"""Calls to one project's OpenStack, from asyncio."""

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import orjson

from handlers.effects.backoff import Deadline
from handlers.effects.concurrency import SingleFlightCache, ThreadPool
from handlers.openstack import sessions
from handlers.openstack.errors import (
    CloudRefusal,
    ErrorResponse,
    Foreseen,
    NotFound,
    as_transient,
    from_exception,
)
from handlers.openstack.sessions import CloudSettings, Reply, Service
from messages.errors import Ambiguous, Transient

if TYPE_CHECKING:
    from openstack.connection import Connection

#: A path of plain segments, perhaps with a query. A segment of dots would be taken away by the HTTP
#: library together with the one before it, and so name another resource.
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:[/?]|$))[\w.~:@%+-]+)+(?:\?[\w.~:@%+&=,-]*)?", re.ASCII)
#: Seconds after which a call that was cancelled counts as one that was not answered.
_LONG = 5.0
#: Seconds for which lists that seldom change are cached.
_RECENT = 10.0
#: Neutron's words for a collection that it does not have; it has others for a single thing that is
#: not there.
_NO_SUCH_RESOURCE = "The resource could not be found."

#: Called just before a call is sent that changes something: returns until when it may be sent, or
#: raises where it may not.
Fence = Callable[[], Awaitable[Deadline]]
#: Set around a call that must not be made twice (`effects`), for whatever functions it passes
#: through.
fence: ContextVar[Fence | None] = ContextVar("fence", default=None)

#: The calls of one request by HTTP method, where it is set. Shared answers count for the request
#: that asked first.
counted: ContextVar["Counter[str] | None"] = ContextVar("counted", default=None)

#: Called with each call: service, method, HTTP status (or the name of the error), seconds.
OnCall = Callable[[str, str, str, float], None]


class Project:
    """One project's OpenStack. Paths are below the service's endpoint, bodies and replies JSON."""

    def __init__(
        self,
        project_id: str,
        connection: "Connection",
        threads: ThreadPool,
        settings: CloudSettings,
        on_call: OnCall,
    ) -> None:
        self.id = project_id
        self.page_size = settings.page_size
        #: Answers that seldom change and may be a few seconds old.
        self.recent = SingleFlightCache(_RECENT)
        #: Until when the list of an extension counts as missing, by path.
        self._missing: dict[str, Deadline] = {}
        self._connection = connection
        self._threads = threads
        self._settings = settings
        self._on_call = on_call

    async def user_id(self) -> str:
        """Return the id of the calling user: the service account, or the admin. `Transient`."""
        return await self._threads.run(lambda: sessions.user_id_of(self._connection))

    async def log_in(self) -> None:
        """Get a token for this project, unless there is one. `Transient`."""
        await self._threads.run(lambda: log_in(self._connection))

    def close(self) -> None:
        """Close the connection's sockets; a call under way ends first."""
        self._connection.close()

    async def get(
        self, service: Service, path: str, params: Mapping[str, Any] | None = None
    ) -> Reply:
        """Read; `Transient` where it may be asked again."""
        return await self._call(service, "GET", path, params=params)

    async def get_all(
        self, service: Service, path: str, name: str, filters: Mapping[str, Any]
    ) -> list[Any]:
        """Read all pages of a list, which the reply calls `name`; Glance pages in another way."""
        found: list[Any] = []
        params = {**filters, "limit": self.page_size}
        while True:
            reply = await self.get(service, path, params)
            page = reply.body[name]
            found += page
            # A cloud may allow less than our limit in one page, and says so by a link. Neutron
            # links back, too.
            links = reply.body.get(f"{name}_links") or ()
            if not page or all(link["rel"] != "next" for link in links):
                return found
            params["marker"] = page[-1]["id"]

    async def get_all_if_offered(
        self, service: Service, path: str, name: str, filters: Mapping[str, Any]
    ) -> list[Any]:
        """Read a whole list that an extension adds; empty where the cloud is without it.

        That is remembered for a while. A service that is down is not without it: `Transient` as in
        `get`. Nor is one that cannot be reached: what a proxy answers is `NotFound`.
        """
        if not self._missing.get(path, Deadline(0.0)).passed:
            return []
        try:
            return await self.get_all(service, path, name, filters)
        except NotFound as error:
            if error.detail != _NO_SUCH_RESOURCE:
                raise
            self._missing[path] = Deadline.after(self._settings.missing_ttl)
            return []

    async def post(self, service: Service, path: str, body: Any) -> Reply:
        """Change; `Ambiguous` where it may have been carried out."""
        return await self._call(service, "POST", path, json=body)

    async def put(self, service: Service, path: str, body: Any) -> Reply:
        """Change, as `post`."""
        return await self._call(service, "PUT", path, json=body)

    async def patch(self, service: Service, path: str, body: Any, content_type: str) -> Reply:
        """Change, as `post`, with a patch of this media type."""
        return await self._call(
            service, "PATCH", path, json=body, headers={"Content-Type": content_type}
        )

    async def delete(self, service: Service, path: str) -> Reply:
        """Change, as `post`."""
        return await self._call(service, "DELETE", path)

    async def _call(self, service: Service, method: str, path: str, **options: Any) -> Reply:
        mutating = method != "GET"
        if _PATH.fullmatch(path) is None:
            raise NotFound(404, "what is asked for cannot be part of a URL", None)
        if self._settings.read_only and mutating:
            raise Foreseen(f"{method} {path}")
        started, outcome, send_by = time.monotonic(), "cancelled", Deadline(math.inf)
        guard = fence.get() if mutating else None

        async def may_be_sent() -> None:
            nonlocal send_by
            if guard is not None:
                send_by = await guard()

        try:
            reply = await self._threads.run(
                lambda: request(self._connection, service, method, path, options, send_by),
                may_be_sent if guard is not None else None,
            )
            outcome = str(reply.status)
            return reply
        except CloudRefusal as error:
            outcome = str(error.status)
            raise
        except Transient as error:
            outcome = error.reason
            raise
        except asyncio.CancelledError:
            outcome = "no_answer" if time.monotonic() - started > _LONG else outcome
            raise
        finally:
            if (calls := counted.get()) is not None:
                calls[method] += 1
            self._on_call(service.proxy, method, outcome, time.monotonic() - started)


# Calls in the SDK's sessions, which block. docs/decisions/0021-raw-rest.md tells why they are raw.


def request(  # noqa: PLR0917 - all that a call is made of
    connection: "Connection",
    service: Service,
    method: str,
    path: str,
    options: Mapping[str, Any],
    send_by: Deadline,
) -> Reply:
    """Make one call; `Transient` where it could not be sent by `send_by`."""
    mutating = method != "GET"
    if mutating:
        # A failed log-in must not be taken for a call that may have been carried out.
        log_in(connection)
    with as_transient("cloud_unavailable"):
        # The first time it asks the service for its versions.
        proxy = getattr(connection, service.proxy)
    given = {key: value for key, value in options.items() if value is not None}
    if service.microversion is not None:
        given["microversion"] = service.microversion
    if not (
        connection.config.get_rate_limit(service.proxy)
        or connection.config.get_concurrency(service.proxy)
    ):
        # The SDK's own limit of nothing waits by the wall clock: for hours, once that has jumped
        # back.
        given["rate_semaphore"] = nullcontext()
    if send_by.passed:
        # The process stood still, or the log-in took long: the right to send is to be checked
        # again.
        raise Transient("not_sent", detail="the time in which it might be sent is over")
    return send(service.proxy, lambda: proxy.request(path, method, **given), mutating=mutating)


def log_in(connection: "Connection") -> None:
    """Get a token, unless there is one."""
    with as_transient("keystone"):
        connection.session.get_token()


def send(service: str, call: Callable[[], Any], *, mutating: bool) -> Reply:
    """Make a call of the SDK; its answer, or the error that says what to do."""
    try:
        response = call()
    except Exception as error:
        raise from_exception(error, mutating=mutating) from None
    status = response.status_code
    if status >= 400:
        # Not `response.text`: where no encoding is told, requests would guess one.
        text = response.content.decode("utf-8", "replace")
        raise ErrorResponse(service, status, response.headers, text).as_error(mutating=mutating)
    try:
        body = orjson.loads(response.content) if response.content else None
    except orjson.JSONDecodeError:
        # A service that answers nonsense may still have done what it was asked.
        raise (Ambiguous if mutating else Transient)(
            "bad_answer", detail="the answer is no JSON"
        ) from None
    return Reply(status, body, response.headers.get("x-openstack-request-id"))

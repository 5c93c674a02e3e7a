"""Calls to one project's OpenStack, from asyncio."""

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urljoin

import orjson

from handlers import tracing
from handlers.effects.backoff import Deadline
from handlers.effects.concurrency import SingleFlightCache
from handlers.openstack import sessions
from handlers.openstack.errors import CloudRefusal, Foreseen, NotFound
from handlers.openstack.http_client import Answer, CallLost, Guard, HttpClient
from handlers.openstack.sessions import CloudSettings, Reply, Route, Service, reply_of
from messages.errors import Transient

if TYPE_CHECKING:
    from openstack.connection import Connection

T = TypeVar("T")

#: A path of plain segments, perhaps with a query. A segment of dots would be taken away by the HTTP
#: library together with the one before it, and so name another resource.
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:[/?]|$))[\w.~:@%+-]+)+(?:\?[\w.~:@%+&=,-]*)?", re.ASCII)
#: Seconds after which a call that was cancelled counts as one that was not answered.
_LONG = 5.0
#: Seconds for which lists that seldom change are cached.
_RECENT = 10.0
#: Seconds for which equal questions of a dry run share an answer; short, because some wait for a
#: state.
_SHARED = 1.0
#: Neutron's words for a collection that it does not have; it has others for a single thing that is
#: not there.
_NO_SUCH_RESOURCE = "The resource could not be found."

#: The statuses that keystoneauth follows, and how often it does.
_REDIRECTS, _MOST_HOPS = frozenset({301, 302, 303, 305, 307, 308}), 30

#: Set around a call that must not be made twice (`effects`), for whatever functions it passes
#: through. It is asked just before the call is sent.
fence: ContextVar[Guard | None] = ContextVar("fence", default=None)

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
        client: HttpClient,
        settings: CloudSettings,
        on_call: OnCall,
    ) -> None:
        self.id = project_id
        self.page_size = settings.page_size
        #: Answers that seldom change and may be a few seconds old.
        self.recent = SingleFlightCache(_RECENT)
        #: Answers to a dry run, which changes nothing in between.
        self._shared = SingleFlightCache(_SHARED)
        #: Until when the list of an extension counts as missing, by path.
        self._missing: dict[str, Deadline] = {}
        #: The ways to the services, by the names of their proxies in the SDK.
        self._routes = SingleFlightCache(math.inf)
        self._connection = connection
        self._client = client
        self._threads = client.places
        self._settings = settings
        self._on_call = on_call

    async def user_id(self) -> str:
        """Return the id of the calling user: the service account, or the admin. `Transient`."""
        return await self._logged_in(sessions.user_id_of)

    async def log_in(self) -> None:
        """Get a token for this project, unless there is one. `Transient`."""
        await self._logged_in(sessions.log_in)

    def close(self) -> None:
        """Close the connection's sockets; a call under way ends first."""
        self._connection.close()

    async def get(
        self, service: Service, path: str, params: Mapping[str, Any] | None = None
    ) -> Reply:
        """Read; `Transient` where it may be asked again."""
        if not self._settings.read_only:
            return await self._call(service, "GET", path, params=params)
        # A dry run of many orders asks the same again and again: flavors, quotas, limits.
        asked = f"{service} {path} {sorted((params or {}).items())}"  # lists cannot be keys
        return await self._shared.get(
            asked, lambda: self._call(service, "GET", path, params=params)
        )

    async def pages(
        self, service: Service, path: str, name: str, filters: Mapping[str, Any]
    ) -> AsyncIterator[list[Any]]:
        """Read a list, which the reply calls `name`, page by page; Glance pages in another way."""
        params = {**filters, "limit": self.page_size}
        while True:
            reply = await self.get(service, path, params)
            page = reply.body[name]
            yield page
            # A cloud may allow less than our limit in one page, and says so by a link. Neutron
            # links back, too.
            links = reply.body.get(f"{name}_links") or ()
            if not page or all(link["rel"] != "next" for link in links):
                return
            params["marker"] = page[-1]["id"]

    async def get_all(
        self, service: Service, path: str, name: str, filters: Mapping[str, Any]
    ) -> list[Any]:
        """Read all pages of a list, which the reply calls `name`."""
        return [one async for page in self.pages(service, path, name, filters) for one in page]

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
        return await self._call(service, "POST", path, body=body)

    async def put(self, service: Service, path: str, body: Any) -> Reply:
        """Change, as `post`."""
        return await self._call(service, "PUT", path, body=body)

    async def patch(self, service: Service, path: str, body: Any, content_type: str) -> Reply:
        """Change, as `post`, with a patch of this media type."""
        return await self._call(service, "PATCH", path, body=body, content_type=content_type)

    async def delete(self, service: Service, path: str) -> Reply:
        """Change, as `post`."""
        return await self._call(service, "DELETE", path)

    async def _call(
        self,
        service: Service,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Reply:
        mutating = method != "GET"
        if _PATH.fullmatch(path) is None:
            raise NotFound(404, "what is asked for cannot be part of a URL", None)
        if self._settings.read_only and mutating:
            raise Foreseen(f"{method} {path}")
        if params:
            given = {key: value for key, value in params.items() if value is not None}
            path += ("&" if "?" in path else "?") + urlencode(given, doseq=True)
        content = b""
        if mutating:
            content = orjson.dumps(body) if body is not None else b""
            kind = f"Content-Type: {content_type}\r\n" if content else ""
            content = f"{kind}Content-Length: {len(content)}\r\n\r\n".encode() + content
        with tracing.call(service.proxy, method, path) as span:
            started, outcome = time.monotonic(), "cancelled"
            try:
                answer = await self._answer(service, method, path, content or b"\r\n")
                span.note(openstack__request_id=answer.headers.get("x-openstack-request-id"))
                reply = reply_of(
                    service.proxy, answer.status, answer.headers, answer.body, mutating=mutating
                )
                outcome = str(reply.status)
                return reply
            except CallLost as error:
                failure = error.as_error(mutating=mutating)
                outcome = failure.reason
                raise failure from None
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
                tracing.ended(span, outcome)
                self._on_call(service.proxy, method, outcome, time.monotonic() - started)

    async def _answer(self, service: Service, method: str, path: str, rest: bytes) -> Answer:
        """Make the call as keystoneauth would: with another token where the service does not take
        this one, which is then known not to have been carried out, and to where it is sent on to.
        """
        first = way = await self._route(service)
        asked = path
        guard = fence.get() if method != "GET" else None
        is_new, hops = False, 0
        while True:
            line = f"{method} {way.target}{path} HTTP/1.1\r\n".encode("ascii")
            try:
                request = line + way.head + tracing.header_lines() + rest
                answer = await self._client.call(way.origin, request, guard, self.id)
            except Transient as error:
                if error.reason == "no_connection":
                    self._routes.forget(
                        service.proxy, way
                    )  # its certificates may have been renewed
                raise
            if answer.status == 401 and not is_new:
                is_new, hops, rejected = True, 0, way.token
                self._routes.forget(service.proxy, first)
                first = way = await self._route(service, rejected)
                if way.token == rejected:
                    return answer
                path = asked
            elif answer.status in _REDIRECTS and "location" in answer.headers and hops < _MOST_HOPS:
                hops += 1
                location = urljoin(way.url + path, answer.headers["location"])
                way, path = (
                    await self._logged_in(
                        partial(sessions.route, service=service, location=location)
                    ),
                    "",
                )
            else:
                return answer

    async def _route(self, service: Service, rejected: str | None = None) -> Route:
        """Return the way to a service, learned once for all who need it: when it is first called,
        and when the token is near its end or was rejected.
        """
        ask = partial(self._learn, service, rejected)
        way: Route = await self._routes.get(service.proxy, ask)
        if time.time() > way.valid_until:
            self._routes.forget(service.proxy, way)
            way = await self._routes.get(service.proxy, ask)
        return way

    async def _learn(self, service: Service, rejected: str | None) -> Route:
        return await self._logged_in(partial(sessions.route, service=service, rejected=rejected))

    async def _logged_in(self, function: "Callable[[Connection], T]") -> T:
        """Call a function of the session in a thread."""
        connection, settings = self._connection, self._settings
        return await self._threads.run(
            lambda: sessions.logged_in(connection, settings, function), self.id
        )

"""The application: each request of the API document becomes a command, its reply the answer."""

import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypedDict
from urllib.parse import quote

import structlog
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ecs_client import AsyncEcsClient, BrokerUnavailable, ClientClosed, NoAnswer, Unroutable
from gateway.admission import Budget, Places
from gateway.callers import Callers
from gateway.events import EventStream, Subscriber, Updates
from gateway.failures import (
    JSON,
    HttpFailure,
    broker_away,
    busy,
    failure_of,
    not_found,
    parameter,
    wrong_method,
)
from gateway.metrics import Metrics
from gateway.openapi import EVENTS, HEALTH, ORDERS, TITLE, VERSION, document
from gateway.requests import body_of, command_of, message_id_of, query_of, read_json, trace_of
from gateway.routes import ROUTES, Route
from handlers.tracing import NOTHING, Span, is_on, publication
from messages.codes import Code
from messages.errors import Refused
from messages.fields import check_order_region
from messages.operations import OPERATIONS, Mode, parse_order
from messages.orders import is_paid, name_of, order_type_of
from messages.results import Result
from messages.wire import encode
from workers.tracing import request as traced

log = structlog.get_logger()

#: Bytes of bodies that are held at once, and streams of updates.
MAX_BYTES, MAX_STREAMS = 32 * 1024 * 1024, 4096
#: Seconds by which an answer is waited for longer than a command may take.
PATIENCE = 5.0
#: Kinds of resources that have updates.
RESOURCES = ("server", "image", "order")
#: The status that is counted where nobody reads the answer.
_GONE = 499
#: Pages that show the API, which may load what the gateway serves, and nothing else.
_PAGES = ("/docs", "/redoc", "/static-offline-docs")
_ONLY_OURS = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:"
)
#: Where the operations console is served, which sends a policy of its own.
CONSOLE = "/console"
#: In a request's scope.
_ASKED = "ecs.asked"
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True)
class Asked:
    """Notes about a request, for its log line and its answer's headers."""

    message_id: str
    #: Why the idempotency key cannot be taken.
    failure: HttpFailure | None = None
    operation: str | None = None
    tenant: str | None = None
    #: The key of an order.
    order: str | None = None
    #: Why it is answered with a failure, where the gateway knows.
    reason: str | None = None
    status: int = 0
    is_stream: bool = False
    began: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of what is under way; `timeout` is that of a command, in seconds, `connections` are
    those of clients, of which streams have half at most.
    """

    in_flight: int = 1000
    timeout: float = 30.0
    connections: int = 2 * MAX_STREAMS


class Gateway:
    """The parts that the endpoints work with. `region` is the workers'; None: they tell it themselves."""

    def __init__(
        self, client: AsyncEcsClient, callers: Callers, limits: Limits, region: str | None = None
    ) -> None:
        self.client = client
        self.callers = callers
        self._region = region
        self.timeout = limits.timeout + PATIENCE
        self.places = Places(limits.in_flight)
        self.streams = Places(min(MAX_STREAMS, limits.connections // 2))
        self.budget = Budget(MAX_BYTES)
        self.updates = Updates()
        self.metrics = Metrics()
        self.is_draining = False
        #: Whether updates are heard now.
        self.is_hearing = False

    async def command(self, route: Route, request: Request) -> Response:
        """Answer a request by the reply to its command."""
        asked = begun(request, route.operation.value)
        caller = await self.callers.identify(request.headers)
        asked.tenant = caller.tenant
        with self._place(caller.tenant), self.budget.account(caller.tenant) as account:
            who = caller.fields
            command = await command_of(route, request, who, self.budget, account)
            # A read is of no use later. A change goes on: its key asks for its result.
            deadline = time.time() + self.timeout if _is_read(route) else None
            with (
                _answers(),
                _continued(request, route.operation.value, asked.message_id) as trace,
            ):
                reply = await self.client.call(
                    route.operation.value,
                    command,
                    message_id=asked.message_id,
                    timeout=self.timeout,
                    deadline=deadline,
                    **trace,
                )
        if reply.http_status == 401:
            asked.reason = "refused by a worker: request.rejected in its log says why"
        return Response(reply.body, reply.http_status, media_type=JSON)

    async def order(self, request: Request) -> Response:
        """Publish an order, and tell where its course can be asked for."""
        asked = begun(request, "order")
        share = await self.callers.share(request.headers)
        with self._place(share), self.budget.account(share) as account:
            body = await body_of(request, self.budget, account)
            order = await read_json(body, request.headers)
            if not isinstance(order, dict):
                raise parameter("body")
            caller = await self.callers.sign(order, request.headers)
            asked.tenant = caller.tenant
            key = asked.order = _checked(order, self._region)
            with _answers(), _continued(request, "order", asked.message_id) as trace:
                await self.client.orders.submit(order, message_id=asked.message_id, **trace)
        data = {"key": key, "message_id": asked.message_id}
        accepted = encode(Result.of(Code.OK, data).envelope())
        return Response(accepted, 202, {"Location": f"/v1/orders/{quote(key, safe='')}"}, JSON)

    async def events(self, request: Request) -> Response:
        """Open a stream of the tenant's updates."""
        asked = begun(request, "events")
        caller, project = await self.callers.prove(request.headers)
        if self.is_draining:  # now, not before the cloud was asked: all streams have been ended
            raise busy("draining")
        asked.tenant = caller.tenant
        wanted = query_of(request, ("resource", "id"))
        resource = wanted.get("resource") or None
        if resource is not None and resource not in RESOURCES:
            raise parameter("resource")
        if not self.is_hearing:
            raise broker_away()
        subscriber = Subscriber(resource, wanted.get("id") or None)
        last = request.headers.get("last-event-id") or None
        stream = EventStream(self.updates, project, subscriber, last)
        # Taken here, so that a refusal is answered as one.
        place = ExitStack()
        place.enter_context(self.streams.one(project, "too_many_streams"))
        asked.is_stream = True
        return _Streaming(stream, caller.until, place)

    def _place(self, tenant: str) -> AbstractContextManager[None]:
        if self.is_draining:
            raise busy("draining")
        return self.places.one(tenant, "too_many_requests")


class _Trace(TypedDict, total=False):
    traceparent: str | None
    tracestate: str | None


@contextmanager
def _continued(request: Request, name: str, message_id: str) -> Iterator[_Trace]:
    """Yield the options by which a message continues the request's trace; while the gateway traces
    itself, under a span that ends with the answer.
    """
    if not is_on():
        headers = request.headers
        yield {
            "traceparent": trace_of(headers, "traceparent"),
            "tracestate": trace_of(headers, "tracestate"),
        }
        return
    span = publication(f"{name} publish", {"messaging.message.id": message_id})
    try:
        yield {
            "traceparent": span.headers.get("traceparent"),
            "tracestate": span.headers.get("tracestate"),
        }
    finally:
        span.end()


class _Streaming(Response):
    """A response that is a stream of events."""

    def __init__(self, stream: EventStream, until: float | None, place: ExitStack) -> None:
        super().__init__()
        self._stream = stream
        self._until = until
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await self._stream.serve(scope, receive, send, self._until)


@contextmanager
def _answers() -> Iterator[None]:
    """Turn the errors of the client into answers."""
    try:
        yield
    except NoAnswer:
        raise HttpFailure(504, reason="no_answer") from None
    except Unroutable:
        raise broker_away("no_worker") from None
    except (BrokerUnavailable, ClientClosed):
        raise broker_away() from None


def begun(request: Request, operation: str) -> Asked:
    """Note which operation a request asks for, and return its notes. Raises `HttpFailure` where its
    idempotency key is wrong.
    """
    asked: Asked = request.scope[_ASKED]
    asked.operation = operation
    if asked.failure is not None:
        raise asked.failure
    return asked


def _is_read(route: Route) -> bool:
    return all(one.mode is Mode.READ for one in OPERATIONS[route.operation].tasks)


def _checked(order: dict[str, Any], region: str | None) -> str:
    """Return the key of an order that a worker would understand, and that is for its region."""
    try:
        if is_paid(order):
            if region is not None:
                check_order_region(order, region)
            parse_order(order)
        elif order_type_of(order) == "unknown":  # no name that could be routed by
            raise parameter("orderType")
    except Refused as refused:
        raise failure_of(refused) from None
    key = name_of(order)
    if key is None:
        raise parameter("orderId")
    return key


def make_app(
    gateway: Gateway, problems: Callable[[], list[str]], console: ASGIApp | None = None
) -> "Front":
    """Return the application. `problems` returns a line for each reason why it is not ready."""
    app = FastAPIOffline(
        title=TITLE,
        version=VERSION,
        redirect_slashes=False,
        swagger_ui_parameters={"validatorUrl": None},
    )
    app.openapi = document  # type: ignore[method-assign]
    for path, routes in groupby(ROUTES, lambda one: one.path):
        _add(app, path, {one.method: _command(gateway, one) for one in routes})
    _add(app, ORDERS, {"POST": gateway.order})
    _add(app, EVENTS, {"GET": gateway.events})
    for path, endpoint in _health(gateway, problems).items():
        _add(app, path, {"GET": endpoint, "HEAD": endpoint})
    if console is not None:
        _add(app, CONSOLE, {"GET": _to_console, "HEAD": _to_console})
        app.mount(CONSOLE, console)

    async def not_served(_: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 405:
            return wrong_method((error.headers or {}).get("Allow", "GET")).response()
        return not_found().response()

    app.add_exception_handler(HTTPException, not_served)
    return Front(app, gateway)


def _command(gateway: Gateway, route: Route) -> Endpoint:
    async def answer(request: Request) -> Response:
        return await gateway.command(route, request)

    return answer


def _add(app: FastAPI, path: str, endpoints: Mapping[str, Endpoint]) -> None:
    """Serve a path; other methods than these are 405, also where a later path would match."""
    for method, endpoint in endpoints.items():
        app.add_api_route(path, _answering(endpoint), methods=[method], include_in_schema=False)
    app.router.routes.append(
        StarletteRoute(path, _OtherMethod(", ".join(sorted(endpoints))), include_in_schema=False)
    )


class _OtherMethod:
    """Answers whatever method it is asked by; Starlette's own routes answer GET where none is said."""

    def __init__(self, allowed: str) -> None:
        self._failure = wrong_method(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._failure.response()(scope, receive, send)


def _answering(endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except HttpFailure as failure:
            request.scope[_ASKED].reason = failure.why
            return failure.response()
        except ClientDisconnect:
            return Response(status_code=_GONE)
        except Exception:
            log.exception("gateway.unforeseen", message_id=request.scope[_ASKED].message_id)
            return HttpFailure(500, reason="internal").response()

    return answer


async def _to_console(_: Request) -> Response:
    return RedirectResponse(f"{CONSOLE}/")


def _health(gateway: Gateway, problems: Callable[[], list[str]]) -> dict[str, Endpoint]:
    async def livez(_: Request) -> Response:
        return Response(encode({"status": "ok"}), media_type=JSON)

    async def readyz(_: Request) -> Response:
        found = problems()
        content = {"status": "not ready" if found else "ok", "problems": found}
        return Response(encode(content), 503 if found else 200, media_type=JSON)

    async def metrics(_: Request) -> Response:
        shown = generate_latest(gateway.metrics.registry)
        return Response(shown, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return dict(zip(HEALTH, (livez, readyz, metrics), strict=True))


class Front:
    """The outermost layer: ids, logs, spans and headers that every request and answer has."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = scope[_ASKED] = _noted(Headers(scope=scope))
        is_page = scope["path"].startswith(_PAGES)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                asked.status = message["status"]
                headers = MutableHeaders(raw=message["headers"])
                headers["X-Request-Id"] = asked.message_id
                headers["X-Content-Type-Options"] = "nosniff"
                if asked.status == 401:
                    headers["WWW-Authenticate"] = "Bearer"
                if is_page:
                    headers["Content-Security-Policy"] = _ONLY_OURS
                else:
                    headers.setdefault("Cache-Control", "no-store")
                if self._gateway.is_draining:
                    headers["Connection"] = "close"
            await send(message)

        # Health checks and scrapes would be most traces, and a stream lasts for hours.
        is_traced = scope["path"].startswith("/v1/") and scope["path"] != EVENTS
        headers = Headers(scope=scope)
        with traced(scope["method"], headers) if is_traced else NOTHING as span:
            try:
                await self._app(scope, receive, answer)
            finally:
                self._note(scope, asked, span)

    def _note(self, scope: Scope, asked: Asked, span: Span) -> None:
        """Count and log an answer."""
        seconds = time.perf_counter() - asked.began
        route = getattr(scope.get("route"), "path_format", "-")
        if route != "-":  # the console's have paths of their own below it
            route = scope.get("root_path", "") + route
        if span.trace_id is not None:
            _describe(span, scope["method"], route, asked)
        told = None if asked.is_stream else seconds
        self._gateway.metrics.answered(scope["method"], route, asked.status, told)
        if asked.operation is not None:
            some = {"order": asked.order, "reason": asked.reason}
            log.info(
                "gateway.answered",
                message_id=asked.message_id,
                operation=asked.operation,
                tenant=asked.tenant,
                status=asked.status,
                seconds=round(seconds, 4),
                **{name: value for name, value in some.items() if value is not None},
            )


def _describe(span: Span, method: str, route: str, asked: Asked) -> None:
    """Say in a request's span what it was, and how it was answered."""
    span.rename(f"{method} {route}")
    span.note(
        http__request__method=method,
        http__route=route,
        http__response__status_code=asked.status,
        ecs__operation=asked.operation,
        ecs__tenant=asked.tenant,
        messaging__message__id=asked.message_id,
    )
    if asked.status >= 500:
        span.fail(str(asked.status))


def _noted(headers: Headers) -> Asked:
    try:
        return Asked(message_id_of(headers))
    except HttpFailure as failure:
        return Asked(uuid.uuid4().hex, failure)

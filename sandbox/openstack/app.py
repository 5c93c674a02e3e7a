"""The services behind one port, each below its own path, and the door to the faults."""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from sandbox.openstack import extensions, saved
from sandbox.openstack.cinder import Cinder
from sandbox.openstack.faults import Rule, spoil
from sandbox.openstack.glance import Glance
from sandbox.openstack.keystone import Keystone, identify
from sandbox.openstack.neutron import Neutron
from sandbox.openstack.nova import Nova
from sandbox.openstack.state import World
from sandbox.openstack.wire import ApiError, body_of, first_word, new_request_id, render

Api = type[Keystone] | type[Nova] | type[Cinder] | type[Glance] | type[Neutron]
_SERVICES: dict[str, tuple[str, Api]] = {
    "/identity": ("keystone", Keystone),
    "/compute": ("nova", Nova),
    "/volume": ("cinder", Cinder),
    "/image": ("glance", Glance),
    "/network": ("neutron", Neutron),
}

Next = Callable[[Request], Awaitable[Response]]


def build_app(world: World) -> Starlette:
    """The whole cloud as one application."""
    mounts = [
        Mount(
            path,
            Starlette(routes=api(world).routes(), exception_handlers={ApiError: _renders(name)}),
        )
        for path, (name, api) in _SERVICES.items()
    ]

    async def around(request: Request, call_next: Next) -> Response:
        service = next(
            (name for path, (name, _) in _SERVICES.items() if request.url.path.startswith(path)),
            None,
        )
        if service is None:
            return await call_next(request)
        request.state.request_id = new_request_id()
        request.state.caller = identify(world, request.headers.get("x-auth-token"))
        line = f"{request.method} {request.url.path}{'?' if request.url.query else ''}{request.url.query}"
        world.calls.append(f"{service} {line}")
        if (parent := request.headers.get("traceparent")) is not None:
            world.traces.append(parent)
        who = request.state.caller
        rule = world.faults.taken(
            f"api.{service}", line, who.user.name if who is not None else None
        )
        # Read at once: a service goes on with a call whose caller has gone.
        body = await request.body()
        response = await spoil(rule) if rule is not None and not rule.after else None
        if response is None:
            response = extensions.refusal(world, service, request)
        if response is None:
            response = await call_next(request)
            if request.method != "GET" and response.status_code < 400:
                world.executed.append(f"{service} {line} {first_word(body)}".strip())
            if rule is not None and rule.after:
                response = await spoil(rule) or response
        response.headers["x-openstack-request-id"] = request.state.request_id
        return response

    return Starlette(
        routes=[*_controls(world), *mounts],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=around)],
    )


def _sets_reclaim_interval(world: World) -> Next:
    async def set_interval(request: Request) -> Response:
        world.reclaim_interval = float((await body_of(request))["seconds"])
        return Response(status_code=204)

    return set_interval


def _controls(world: World) -> list[Route]:
    """The door to the faults."""

    async def add_fault(request: Request) -> Response:
        try:
            world.faults.add(Rule.of(await body_of(request)))
        except ValueError as error:
            return Response(f"{error}\n", 400)
        return Response(status_code=204)

    async def clear_faults(request: Request) -> Response:
        world.clear_faults(request.query_params.get("points", ""))
        return Response(status_code=204)

    async def be_without(request: Request) -> Response:
        body = await body_of(request)
        world.without, world.newest = set(body["extensions"]), dict(body["newest"])
        return Response(status_code=204)

    async def calls(_: Request) -> Response:
        return JSONResponse(world.calls)

    async def traces(_: Request) -> Response:
        return JSONResponse(world.traces)

    async def executed(_: Request) -> Response:
        return JSONResponse(world.executed)

    async def saved_world(_: Request) -> Response:
        await world.rest()
        return JSONResponse(saved.save(world))

    async def load_world(request: Request) -> Response:
        body = await body_of(request)
        saved.load(world, body["world"], body["later"])
        return Response(status_code=204)

    return [
        Route("/_sandbox/world", saved_world),
        Route("/_sandbox/world", load_world, methods=["PUT"]),
        Route("/_sandbox/faults", add_fault, methods=["POST"]),
        Route("/_sandbox/faults", clear_faults, methods=["DELETE"]),
        Route("/_sandbox/reclaim-interval", _sets_reclaim_interval(world), methods=["POST"]),
        Route("/_sandbox/without", be_without, methods=["POST"]),
        Route("/_sandbox/calls", calls),
        Route("/_sandbox/traces", traces),
        Route("/_sandbox/executed", executed),
    ]


def _renders(service: str) -> Callable[[Request, Exception], Response]:
    def rendered(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return render(service, error)

    return rendered

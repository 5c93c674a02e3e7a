"""The console's routes, its log-in and its log-out."""

import time
from typing import TYPE_CHECKING

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.console.operators import (
    PARTS,
    TOKEN_COOKIE,
    Guard,
    LocalGuard,
    NotAdmitted,
    TokenGuard,
    Why,
    token_cookies,
)
from gateway.console.pages import (
    HEADERS,
    ROOT,
    Pages,
    Problem,
    View,
    Visit,
    check_origin,
    go_to,
    prefer,
    read_form,
    set_cookie,
    static_file,
)
from messages.fields import MAX_NAME

if TYPE_CHECKING:
    from gateway.console.backend import Backend
    from gateway.console.batches import Batches

log = structlog.get_logger()

#: Seconds for which the cookies outlive their token.
_OUTLIVES = 3600
_STATUS = {Why.NOBODY: 401, Why.EXPIRED: 401, Why.NOT_PROVEN: 401, Why.NO_KEYS: 503}
_TELL = {
    Why.NOBODY: "",
    Why.EXPIRED: "Your session has expired. Log in again.",
    Why.NOT_PROVEN: "The token is not valid here: it is forged, of another issuer or audience, or no access token.",
    Why.ROLE: "The token is valid, but has not the role of operators.",
    Why.NO_KEYS: "Nobody can log in now: the keys that tokens are verified with cannot be fetched.",
    Why.NOT_LOCAL: "The console can only be used from the gateway's own machine, without a proxy in between.",
    Why.USED: "This address was used before. Each works once; the gateway has printed a new one.",
}


class Console:
    """The console of one gateway. `backend` is None where no journal is configured, or `problems`
    (a line each) keep it from working.
    """

    def __init__(
        self, guard: Guard, role: str, backend: "Backend | None", problems: tuple[str, ...] = ()
    ) -> None:
        self.guard = guard
        self.backend = backend
        self.pages = Pages()
        self._role = role
        self._problems = problems
        self._batches: Batches | None = None

    async def close(self) -> None:
        """Stop what operators have begun here, and close all connections."""
        if self._batches is not None:
            await self._batches.close()
        if self.backend is not None:
            await self.backend.close()

    def app(self) -> Starlette:
        """Return the application, to be mounted at `ROOT`."""
        routes = [
            Route("/static/{name}", self._static, methods=["GET"]),
            self._open("/prefer", self._prefer, "POST"),
            self._open("/login", self._login_page, "GET"),
            self._open("/login", self._login, "POST"),
            self._open("/enter", self._enter_page, "GET"),
            self._open("/enter", self._enter, "POST"),
            self._open("/logout", self._logout, "POST"),
        ]
        if self.backend is not None:
            from gateway.console.views import Views  # noqa: PLC0415 - comes with SQLAlchemy

            views = Views(self.pages, self.backend)
            self._batches = views.batches
            routes += [self._guarded(path, "GET", view) for path, view in views.reads.items()]
            routes += [self._guarded(path, "POST", view) for path, view in views.actions.items()]
        else:
            routes.append(self._open("/", self._off, "GET"))
        app = Starlette(routes=routes)
        app.router.redirect_slashes = False
        app.add_exception_handler(HTTPException, self._not_served)
        return app

    def _open(self, path: str, view: View, method: str) -> Route:
        """Return the route of a page that needs no operator."""

        async def answer(request: Request) -> Response:
            return await self._answered(request, view, guarded=False)

        return Route(path, answer, methods=[method], name=view.__name__)

    def _guarded(self, path: str, method: str, view: View) -> Route:
        async def answer(request: Request) -> Response:
            return await self._answered(request, view, guarded=True)

        return Route(path, answer, methods=[method], name=view.__name__)

    async def _answered(self, request: Request, view: View, *, guarded: bool) -> Response:
        """Answer, whatever happens; every answer has the headers that keep others out."""
        visit = Visit(request)
        try:
            if any("\0" in value for _, value in request.query_params.multi_items()):
                raise Problem(404, "There is no such page.")  # PostgreSQL keeps none
            if guarded:
                visit.operator = await self.guard.identify(request)
            if request.method == "POST":
                visit.form = await read_form(request)
                check_origin(visit)
            answer = await view(visit)
        except NotAdmitted as refused:
            answer = self._refused(visit, refused)
        except Problem as problem:
            answer = self._problem(visit, problem)
        except ClientDisconnect:
            answer = Response(status_code=499)
        except Exception:
            log.exception("console.unforeseen", path=request.url.path)
            answer = self._problem(
                visit,
                Problem(
                    500,
                    "An error that nobody foresaw. The gateway's log has it: console.unforeseen.",
                ),
            )
        answer.headers.update(HEADERS)
        return answer

    def _problem(self, visit: Visit, problem: Problem) -> Response:
        return self.pages.page(visit, "problem.html", problem.status, problem=problem)

    def _refused(self, visit: Visit, refused: NotAdmitted) -> Response:
        why = refused.why
        if why is not Why.NOBODY:
            peer = visit.request.client
            log.info("console.refused", why=refused.detail, peer=peer.host if peer else None)
        status = _STATUS.get(why, 403)
        return self._login_form(visit, why, status)

    def _login_form(self, visit: Visit, why: Why, status: int) -> Response:
        answer = self.pages.page(
            visit,
            "login.html",
            status,
            why=_TELL[why],
            takes_tokens=self.guard.takes_tokens,
            role=self._role,
        )
        # Not where a page asks anew by itself: the browser then shows why it is out.
        if why is Why.EXPIRED and "hx-request" not in visit.request.headers:
            self._forget(visit.request, answer)
        return answer

    async def _login_page(self, visit: Visit) -> Response:
        return self._login_form(visit, Why.NOBODY, 200)

    async def _login(self, visit: Visit) -> Response:
        if not isinstance(self.guard, TokenGuard):
            raise NotAdmitted(Why.USED)
        token = visit.given("token")
        operator = await self.guard.verify(token, visit.request)
        answer = go_to(f"{ROOT}/")
        # Longer than it counts: the page that is asked for then says that it has expired.
        left = max(1, int(operator.until - time.time()) + _OUTLIVES)
        for name, part in token_cookies(token).items():
            set_cookie(visit.request, answer, name, part, left)
        log.info("console.entered", operator=operator.name, peer=operator.address)
        return answer

    async def _enter_page(self, visit: Visit) -> Response:
        guard = self._local()
        guard.check_local(visit.request)
        code = visit.asked("code")
        if not guard.is_valid(code):
            raise NotAdmitted(Why.USED, "the one-time address was used")
        return self.pages.page(visit, "enter.html", code=code)

    async def _enter(self, visit: Visit) -> Response:
        guard = self._local()
        name = visit.given("name")
        if not name or len(name) > MAX_NAME or not name.isprintable():
            raise Problem(400, "Give a name for the audit record, of printable characters.")
        session = guard.enter(visit.given("code"), name, visit.request)
        answer = go_to(f"{ROOT}/")
        set_cookie(visit.request, answer, guard.cookie, session)
        log.info("console.entered", operator=name)
        return answer

    def _local(self) -> LocalGuard:
        if not isinstance(self.guard, LocalGuard) or self.backend is None:
            raise Problem(404, "There is no such page.")
        return self.guard

    async def _logout(self, visit: Visit) -> Response:
        self.guard.leave(visit.request)
        answer = go_to(f"{ROOT}/login")
        self._forget(visit.request, answer)
        return answer

    def _forget(self, request: Request, answer: Response) -> None:
        names = [f"{TOKEN_COOKIE}_{number}" for number in range(PARTS)]
        if isinstance(self.guard, LocalGuard):
            names = [self.guard.cookie]
        for name in names:
            if name in request.cookies:
                set_cookie(request, answer, name, None)

    async def _prefer(self, visit: Visit) -> Response:
        return prefer(visit)

    async def _static(self, request: Request) -> Response:
        found = static_file(request.path_params["name"])
        if found is None:
            return self._problem(Visit(request), Problem(404, "There is no such page."))
        found.headers.update(HEADERS)
        return found

    async def _off(self, visit: Visit) -> Response:
        return self.pages.page(visit, "off.html", 503, problems=self._problems)

    async def _not_served(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        text = "There is no such page." if status == 404 else "This page cannot be asked for so."
        answer = self._problem(Visit(request), Problem(status, text))
        answer.headers.update(HEADERS)
        return answer

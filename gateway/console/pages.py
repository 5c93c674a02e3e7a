"""Pages of the console, made from `templates/`, and the visit that each answers: the operator,
language, theme and form of one request.

A POST counts only where the browser says that a page of this console made it (`Sec-Fetch-Site`, or
`Origin` and `Host`), and where the form has the value of a cookie that no script can read. Another
page can do neither. Both work at any gateway: nothing about it is kept here.
"""

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.console.formats import FILTERS
from gateway.console.operators import Operator
from gateway.console.texts import LANGUAGES, translate

#: Where the console is served.
ROOT = "/console"
#: Bytes of a form; and of its fields, the number.
MAX_FORM, MAX_FIELDS = 1024 * 1024, 20_000
#: Themes; the first follows the system.
THEMES = ("auto", "light", "dark")
_CSRF, _LANGUAGE, _THEME = "ecs_csrf", "ecs_language", "ecs_theme"
#: What a page tells of the form that led to it, by the parameter `told`.
TELLINGS = {
    "paused": "Paused. Every worker stops within a few seconds.",
    "resumed": "Resumed. Every worker goes on within a few seconds.",
    "cancelled": "Cancelled. The order is answered as such when a worker takes it.",
    "stopping": "Stopping: messages under way are finished, nothing more is begun.",
    "restored": "Restored to the dead letters.",
}
_YEAR = 365 * 86400
#: Nothing inline, nothing from elsewhere, no frame around it, and forms that go nowhere else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class Problem(Exception):
    """Something that an operator is told on a page. The text is English, and is translated where a
    translation is known; `detail` is shown as it is.
    """

    def __init__(self, status: int, text: str, detail: str = "") -> None:
        self.status = status
        self.text = text
        self.detail = detail
        super().__init__(text)


@dataclass(slots=True)
class Visit:
    """One request of the console, with what every page needs."""

    request: Request
    operator: Operator | None = None
    form: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def language(self) -> str:
        """The language: chosen before, else the browser's, else English."""
        chosen = self.request.cookies.get(_LANGUAGE)
        if chosen in LANGUAGES:
            return chosen
        for one in self.request.headers.get("accept-language", "").split(","):
            name = one.partition(";")[0].strip().partition("-")[0].lower()
            if name in LANGUAGES:
                return name
        return "en"

    @property
    def theme(self) -> str:
        """The theme."""
        chosen = self.request.cookies.get(_THEME)
        return chosen if chosen in THEMES else THEMES[0]

    @property
    def who(self) -> Operator:
        """The operator of a page that only operators see."""
        assert self.operator is not None
        return self.operator

    def asked(self, name: str) -> str:
        """Return a parameter of the URL, or an empty text."""
        return self.request.query_params.get(name, "").strip()

    def given(self, name: str) -> str:
        """Return a field of the form, or an empty text."""
        return next(iter(self.form.get(name, ())), "").strip()

    @property
    def here(self) -> str:
        """The address of this page; where it is the answer to a form, of the page that has it."""
        if self.request.method != "POST":
            return self.query()
        return f"{ROOT}/{self.section if self.section in _WITH_FORMS else ''}"

    @property
    def section(self) -> str:
        """The first segment of the page's path; empty for the overview."""
        return self.request.url.path.removeprefix(ROOT).strip("/").partition("/")[0]

    def query(self, **changed: str) -> str:
        """Return this page's address with other parameters."""
        wanted = dict(self.request.query_params) | changed
        told = urlencode({name: value for name, value in wanted.items() if value})
        return self.request.url.path + (f"?{told}" if told else "")


#: Sections whose page of the same name has the forms.
_WITH_FORMS = ("archive", "dead", "pauses")
#: Answers a visit.
View = Callable[[Visit], Awaitable[Response]]


async def read_form(request: Request) -> dict[str, list[str]]:
    """Return the fields of a form. Raises `Problem` where it is none, or too large."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Problem(415, "This is no form of the console.")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM:
            raise Problem(413, "The form is too large.")
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"
        )
    except ValueError:
        raise Problem(400, "This is no form of the console.") from None
    if any("\0" in value for _, value in pairs):  # PostgreSQL keeps none
        raise Problem(400, "This is no form of the console.")
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def check_origin(visit: Visit) -> None:
    """Raise `Problem` where a form does not come from a page of this console."""
    headers = visit.request.headers
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        is_ours = site == "same-origin"
    else:
        is_ours = origin is not None and urlsplit(origin).netloc == headers.get("host")
    cookie = visit.request.cookies.get(_CSRF, "")
    is_known = bool(cookie) and hmac.compare_digest(cookie.encode(), visit.given("csrf").encode())
    if not is_ours or not is_known:
        raise Problem(403, "The form was not sent by a page of this console. Nothing was done.")


class Pages:
    """Makes pages from templates."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("gateway.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= FILTERS

    def page(self, visit: Visit, template: str, http_status: int = 200, **values: Any) -> Response:
        """Return a page."""
        csrf = visit.request.cookies.get(_CSRF) or secrets.token_urlsafe(24)
        text = self._environment.get_template(template).render(
            values,
            visit=visit,
            root=ROOT,
            csrf=csrf,
            themes=THEMES,
            languages=LANGUAGES,
            static=static_url,
            current=visit.section,
            tellings=TELLINGS,
            _=partial(translate, visit.language),
        )
        answer = Response(text, http_status, media_type="text/html")
        set_cookie(visit.request, answer, _CSRF, csrf)
        return answer


def go_to(path: str) -> Response:
    """Answer a form: the browser asks for another page, which it may load anew at will."""
    return RedirectResponse(path, 303)


def set_cookie(
    request: Request, answer: Response, name: str, value: str | None, seconds: int | None = None
) -> None:
    """Set a cookie that no script can read and no other site's page sends; None deletes it."""
    # Behind a proxy that speaks TLS. A browser that is told otherwise harms itself alone.
    is_secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
    answer.set_cookie(
        name,
        value or "",
        max_age=0 if value is None else seconds,
        path=ROOT,
        secure=is_secure,
        httponly=True,
        samesite="strict",
    )


def prefer(visit: Visit) -> Response:
    """Keep a language or a theme that was chosen, and go back to the page."""
    back = visit.given("back")
    answer = go_to(back if back.startswith(f"{ROOT}/") and back.isprintable() else f"{ROOT}/")
    for cookie, name, known in (
        (_LANGUAGE, "language", tuple(LANGUAGES)),
        (_THEME, "theme", THEMES),
    ):
        if visit.given(name) in known:
            set_cookie(visit.request, answer, cookie, visit.given(name), _YEAR)
    return answer


#: The console's own files, and htmx, which is vendored whole.
_STATIC = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "htmx.LICENSE.txt": "text/plain; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@cache
def _content(name: str) -> bytes:
    return files("gateway.console").joinpath("static", name).read_bytes()


def static_url(name: str) -> str:
    """Return the address of a file, which is another one once its content is."""
    return f"{ROOT}/static/{name}?{hashlib.sha256(_content(name)).hexdigest()[:12]}"


def static_file(name: str) -> Response | None:
    """Return one of the files that pages load; None where there is none of this name."""
    if name not in _STATIC:
        return None
    headers = {"Content-Type": _STATIC[name], "Cache-Control": "max-age=31536000, immutable"}
    return Response(_content(name), headers=headers)

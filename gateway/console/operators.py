"""The operator behind a request of the console: known by a token, or let in by a one-time address.

No session is kept where tokens are verified: the browser keeps the token in cookies that no script
can read, and each request verifies it anew. So any gateway answers any request, and a token that
has expired logs its operator out. Where publishers are trusted there is nothing to verify: only the
machine's own users come in, by an address that works once, and their sessions end with the gateway.
"""

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from starlette.requests import Request

from messages.errors import Transient
from messages.fields import MAX_NAME
from messages.record import record
from workers.identity.jwt import MAX_TOKEN, Expired, bare, check_times
from workers.identity.requester import NotProven
from workers.identity.token_authentication import TokenVerifier

#: Name of the cookies that hold a token, in parts that a browser takes, and their number at most.
TOKEN_COOKIE, PART, PARTS = "ecs_console", 3500, 5
#: Seconds for which a session lasts that a one-time address began.
SESSION_SECONDS = 12 * 3600
#: Sessions that one-time addresses have begun, at most.
_MOST_SESSIONS = 100
#: Headers by which a proxy says that somebody else asks, and how others of them begin.
_FORWARDED, _FORWARDED_BY = ("forwarded", "x-real-ip", "via"), "x-forwarded-"


class Why(Enum):
    """The reason why nobody is let in."""

    NOBODY = "nobody"
    EXPIRED = "expired"
    NOT_PROVEN = "not_proven"
    ROLE = "role"
    NO_KEYS = "no_keys"
    NOT_LOCAL = "not_local"
    USED = "used"


class NotAdmitted(Exception):
    """A request whose sender is no operator."""

    def __init__(self, why: Why, detail: str = "") -> None:
        self.why = why
        #: For the log: never a token, nor a value of its claims.
        self.detail = detail
        super().__init__(detail or why.value)


@record
class Operator:
    """An operator who is let in: `name` is what the audit record calls the operator, `real_user` the
    proven identity (the token's subject, else the system's user), `address` the peer's.

    `until`: Unix seconds at which the session ends.
    """

    name: str
    real_user: str
    address: str
    until: float


class Guard(Protocol):
    """The interface by which a request's operator is identified."""

    #: Whether operators log in by a token.
    takes_tokens: bool

    async def identify(self, request: Request) -> Operator:
        """Return the operator. Raises `NotAdmitted`."""

    def leave(self, request: Request) -> None:
        """End the session of a request, where one is kept here."""


class TokenGuard:
    """Lets in who has a token with a role."""

    takes_tokens = True

    def __init__(self, verifier: TokenVerifier, role: str) -> None:
        self._verifier = verifier
        self._role = role

    async def identify(self, request: Request) -> Operator:
        # A proxy's header goes before a cookie: the proxy knows who asks now.
        given = set(request.headers.getlist("authorization"))
        if len(given) > 1:
            raise NotAdmitted(Why.NOT_PROVEN, "several Authorization headers")
        return await self.verify(given.pop() if given else _token_of(request), request)

    async def verify(self, token: str | None, request: Request) -> Operator:
        """Return the operator with this token. Raises `NotAdmitted`."""
        if not token:
            raise NotAdmitted(Why.NOBODY)
        try:
            claims = await self._verifier.claims_of(token)
            check_times(claims, time.time())
        except Expired:
            raise NotAdmitted(Why.EXPIRED, "the token has expired") from None
        except NotProven as refused:
            raise NotAdmitted(Why.NOT_PROVEN, refused.detail or "") from None
        except Transient:
            raise NotAdmitted(Why.NO_KEYS, "the key set cannot be fetched") from None
        if self._role not in claims.roles:
            raise NotAdmitted(Why.ROLE, "the token has not the role of operators")
        name = claims.username or claims.subject
        return Operator(name, claims.subject, address_of(request), claims.expires)

    def leave(self, request: Request) -> None:
        return  # the answer deletes the cookies


class LocalGuard:
    """Lets in who asks from this very machine, by an address that works once.

    `announce` is called with the code of each such address: by `renew`, and whenever one was used,
    so that whoever has lost a session need not start the gateway again. `real_user` is the system's
    user that the gateway runs as: who came in by the address is a name that was typed.
    """

    takes_tokens = False

    def __init__(self, port: int, real_user: str, announce: Callable[[str], None]) -> None:
        self._cookie = f"{TOKEN_COOKIE}_{port}"
        self._port = port
        self._real_user = real_user
        self._announce = announce
        self._sessions: dict[bytes, tuple[str, float]] = {}
        #: The digest of the code that is valid now.
        self._code = b""

    @property
    def cookie(self) -> str:
        """Name of the session's cookie. Gateways of one machine share a browser's cookies."""
        return self._cookie

    def renew(self) -> None:
        """Announce a new address; the one before works no more."""
        code = secrets.token_urlsafe(24)
        self._code = _digest(code)
        self._announce(code)

    async def identify(self, request: Request) -> Operator:
        self.check_local(request)
        given = request.cookies.get(self._cookie)
        if not given:
            raise NotAdmitted(Why.NOBODY)
        name, until = self._sessions.get(_digest(given), ("", 0.0))
        if until <= time.time():
            raise NotAdmitted(Why.EXPIRED, "no such session")
        return Operator(name, self._real_user, address_of(request), until)

    def is_valid(self, code: str) -> bool:
        """Tell whether an address's code would be taken now."""
        return hmac.compare_digest(_digest(code), self._code)

    def enter(self, code: str, name: str, request: Request) -> str:
        """Begin the session of an operator of this name, and return its cookie's value. Raises
        `NotAdmitted` where the code was used before, or never was one.
        """
        self.check_local(request)
        if not self.is_valid(code):
            raise NotAdmitted(Why.USED, "the one-time address was used")
        self.renew()
        now = time.time()
        self._sessions = {key: one for key, one in self._sessions.items() if one[1] > now}
        while len(self._sessions) >= _MOST_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        session = secrets.token_urlsafe(32)
        self._sessions[_digest(session)] = (name[:MAX_NAME], now + SESSION_SECONDS)
        return session

    def check_local(self, request: Request) -> None:
        """Raise `NotAdmitted` where somebody may ask from elsewhere.

        The peer of the connection decides, whatever a header says. A header of a proxy's means that
        the peer only passes on what somebody else asks; another name of the host than a local one,
        that a page from elsewhere made the browser ask (DNS rebinding).
        """
        host = request.headers.get("host", "")
        name = host.removesuffix(f":{self._port}").strip("[]").lower()
        is_passed_on = any(
            one in _FORWARDED or one.startswith(_FORWARDED_BY) for one in request.headers
        )
        is_local_name = name == "localhost" or is_loopback(name)
        if not is_loopback(address_of(request)) or is_passed_on or not is_local_name:
            raise NotAdmitted(Why.NOT_LOCAL, "not from this machine")

    def leave(self, request: Request) -> None:
        self._sessions.pop(_digest(request.cookies.get(self._cookie, "")), None)


def address_of(request: Request) -> str:
    """Return the address of the connection's peer; what headers say of others proves nothing."""
    return request.client.host if request.client is not None else "?"


def is_loopback(address: str) -> bool:
    """Tell whether an address is one of this machine's own."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def token_cookies(token: str) -> dict[str, str | None]:
    """Return the cookies that hold a token; None: one to delete. Raises `NotAdmitted`."""
    try:
        whole = bare(token)
    except NotProven as refused:
        raise NotAdmitted(Why.NOT_PROVEN, refused.detail or "") from None
    parts = [whole[at : at + PART] for at in range(0, len(whole), PART)]
    named: list[str | None] = [*parts, *[None] * (PARTS - len(parts))]
    return {f"{TOKEN_COOKIE}_{number}": part for number, part in enumerate(named)}


def _token_of(request: Request) -> str | None:
    parts = []
    for number in range(PARTS):
        part = request.cookies.get(f"{TOKEN_COOKIE}_{number}")
        if part is None:
            break
        parts.append(part)
    return "".join(parts)[:MAX_TOKEN] or None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()

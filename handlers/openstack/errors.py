"""Errors of OpenStack: what it refused for good, and how its answers and failures are told apart.

    EcsError
    └── CloudRefusal       any 4xx that is not listed below; the same again would be answered the same
        ├── NotFound       404, 410
        ├── Conflict       409: the state does not allow it, or another task is under way
        ├── QuotaExceeded  a quota, in each service's own way
        └── Forbidden      403: the service account lacks a right

What may pass is `messages.errors.Transient`, and `Ambiguous` where it may have been done.

One status stands for several things:
- 403: one of Nova's quota messages, few of which say "quota"; or a policy, also that of
  `os-quota-sets`.
- 409: Neutron's quota (type `OverQuota`); or a conflict with the state.
- 413: Cinder's quota (`overLimit` with `Retry-After: 0`), Glance's (a limit has been exceeded); or
  a rate limit (`Retry-After` above 0); or a body that is too large for the service or a proxy.
- 429: a rate limit.
- 500: Glance's 413, of which Nova knows nothing but the exception's name; else nobody knows what
  was done.

The bodies are in `tests/fixtures/openstack_errors`, as the services send them.
"""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from html import unescape
from typing import Any

import orjson

from messages.codes import Code
from messages.errors import Ambiguous, EcsError, OutcomeUnknown, Refused, Transient
from messages.tls import TlsCause, causes, innermost, is_cut_off, tls_cause_of

#: Characters of an error's text that are kept, and of what TLS says.
MAX_DETAIL, MAX_REASON = 500, 200
#: The host and port of a URL.
_ASKED = re.compile(r"https?://(?:[^/\s'\"@]*@)?([^/\s'\"@]+)")
#: What to do where TLS fails. Without URLs, which health checks do not show.
TLS_ADVICE: Mapping[TlsCause, str] = {
    TlsCause.WRONG_NAME: (
        "the certificate is another host's: auth_url in clouds.yaml, or the service's URL in the"
        " catalogue, must name the host as its certificate does"
    ),
    TlsCause.EXPIRED: "the service needs another certificate, or a clock is wrong",
    TlsCause.UNKNOWN_CA: (
        "cacert in clouds.yaml (OS_CACERT) must hold the CA that signed the certificate"
    ),
    TlsCause.CERTIFICATE_NEEDED: (
        "it asks for a client certificate: set cert and key in clouds.yaml (OS_CERT, OS_KEY)"
    ),
    TlsCause.CERTIFICATE_REFUSED: (
        "it does not accept our certificate: check cert and key in clouds.yaml (OS_CERT, OS_KEY),"
        " and which CA it knows"
    ),
    TlsCause.NO_TLS: (
        "the port speaks no TLS: auth_url in clouds.yaml, or the service's URL in the catalogue,"
        " must begin with http: or name the port that does"
    ),
    TlsCause.NEEDS_TLS: (
        "the port speaks TLS: auth_url in clouds.yaml, or the service's URL in the catalogue, must"
        " begin with https:"
    ),
    TlsCause.OLD_TLS: "the service must offer TLS 1.2 or newer",
    TlsCause.FILE: "check cacert, cert and key in clouds.yaml (OS_CACERT, OS_CERT, OS_KEY)",
    TlsCause.OTHER: "see the log of the service, or of the proxy before it",
}
#: How Nova's quota errors begin: `OverQuota` and its kinds, `ImageQuotaExceeded`, oslo.limit's
#: `ProjectOverLimit`. Not the word "quota": a policy's refusal may name `os-quota-sets`.
_NOVA_QUOTA = re.compile(
    r"Quota exceeded|Maximum number of [\w ]+ exceed|Personality file|Project \S+ is over a limit for",
    re.ASCII,
)
#: How Cinder's begin, behind which it repeats the message: the exception's name.
_CINDER_QUOTA = re.compile(r"\w*(Quota|LimitExceeded|ExceedsLimit)\w*: ", re.ASCII)
#: Glance's texts are all that it sends.
_GLANCE_QUOTA = re.compile(
    r"limit has been exceeded|will exceed the limit|quota|is over a limit for", re.ASCII
)
#: Nova's rendering of Glance's 413 at createImage: nothing has been registered, and nothing will
#: be.
_GLANCE_QUOTA_OF_NOVA = "<class 'glanceclient.exc.HTTPOverLimit'>"
_RATE_LIMIT = re.compile(r"rate.?limit", re.IGNORECASE | re.ASCII)
#: The parts of an HTML page that are no text.
_MARKUP = re.compile(r"<(head|style|script)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)


class Foreseen(BaseException):
    """A change would be made now, in a session that only reads. Not an error: nothing may catch it
    on its way to the preview that asked.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(what)


class CloudRefusal(EcsError):
    """OpenStack refused. `detail` is its own text, `request_id` its id of the call."""

    reason = "refused_by_cloud"

    def __init__(self, status: int, detail: str, request_id: str | None) -> None:
        self.status = status
        self.detail = detail
        self.request_id = request_id
        super().__init__(f"HTTP {status}: {detail}")

    def as_failure(self) -> Refused:
        """Return the answer to a request that ends with this."""
        return Refused(Code.FAILED, reason=self.reason, detail=str(self))


def failure_of(error: Exception) -> Refused | None:
    """Return the failure that a request is answered with which this error ends.

    None for an error that says nothing to the requester, such as `Postponed` or one of the
    worker's own.
    """
    match error:
        case Refused():
            return error
        case CloudRefusal():
            return error.as_failure()
        case OutcomeUnknown():
            return Refused(Code.FAILED, reason="outcome_unknown", detail=str(error))
        case Transient():
            return Refused(Code.FAILED, reason=error.reason, detail=str(error))
        case _:
            return None


class NotFound(CloudRefusal):
    reason = "not_found"


class Conflict(CloudRefusal):
    reason = "conflict"


class QuotaExceeded(CloudRefusal):
    reason = "quota"


class Forbidden(CloudRefusal):
    reason = "forbidden"


@dataclass(frozen=True)
class ErrorResponse:
    """A response of 400 and above.

    `service` is its proxy's name in the SDK; `headers` are looked up in lower case.
    """

    service: str
    status: int
    headers: Mapping[str, str]
    text: str

    @cached_property
    def _fault(self) -> tuple[str, Any]:
        """The JSON body's first field, such as `("overLimit", {...})`; `("", None)` for others."""
        try:
            body = orjson.loads(self.text)
        except orjson.JSONDecodeError:
            return "", None
        return next(iter(body.items()), ("", None)) if isinstance(body, dict) else ("", None)

    @cached_property
    def detail(self) -> str:
        """OpenStack's own words: the `message` that the body holds, else the text alone."""
        _, content = self._fault
        if isinstance(content, dict) and "message" in content:
            return str(content["message"])[:MAX_DETAIL]
        if isinstance(content, str):
            return content[:MAX_DETAIL]
        text = self.text
        if "<" in text:
            text = " ".join(unescape(_MARKUP.sub(" ", text[: 10 * MAX_DETAIL])).split())
        return text[:MAX_DETAIL]

    @property
    def retry_after(self) -> float | None:
        """Seconds, which the header gives as such or as a date; None where it says nothing."""
        value = self.headers.get("retry-after", "")
        if value.isascii() and value.isdigit():
            return float(value[:9])
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except ValueError:
            return None

    @property
    def _is_quota(self) -> bool:
        name, content = self._fault
        match self.service, self.status:
            case "compute", 403 | 413:
                return _NOVA_QUOTA.match(self.detail) is not None
            case "compute", 500:
                return self.detail.endswith(_GLANCE_QUOTA_OF_NOVA)
            case "block_storage", 413:
                silent = name == "overLimit" and self.retry_after == 0
                return silent or _CINDER_QUOTA.match(self.detail) is not None
            case "network", 409:
                kind = content.get("type", "") if isinstance(content, dict) else ""
                return name == "NeutronError" and str(kind).endswith(("OverQuota", "QuotaExceeded"))
            case "image", 413:
                return _GLANCE_QUOTA.search(self.detail) is not None
        return False

    @property
    def _is_rate_limit(self) -> bool:
        if self.status == 413:
            name, _ = self._fault
            if (self.retry_after or 0) > 0 or name == "overLimitFault":
                return True
            return _RATE_LIMIT.search(self.detail) is not None
        return self.status == 429

    def as_error(self, *, mutating: bool) -> Exception:
        """Return the error that says what to do; `mutating`: the call was to change something."""
        reason, wait = f"http_{self.status}", self.retry_after
        request_id = self.headers.get("x-openstack-request-id")  # a proxy gives none
        if self._is_quota:
            return QuotaExceeded(self.status, self.detail, request_id)
        if self.status >= 500 and mutating:
            # A gateway that gave up (502, 504) may have given up on a request that still runs.
            late = self.status in (502, 504)
            return Ambiguous(reason, detail=self.detail, may_land_late=late, retry_after=wait)
        if self.status >= 500 or self.status == 401 or self._is_rate_limit:
            return Transient(reason, detail=self.detail, retry_after=wait)
        kinds = {403: Forbidden, 404: NotFound, 409: Conflict, 410: NotFound}
        return kinds.get(self.status, CloudRefusal)(self.status, self.detail, request_id)


def from_exception(error: Exception) -> Transient:
    """Return the error that says what to do after the SDK, keystoneauth, requests or urllib3 raised
    one in a call that changes nothing.
    """
    is_odd = any(type(one).__name__ == "OddAnswer" for one in causes(error))
    detail, advice = described(error)
    return Transient("bad_answer" if is_odd else "no_connection", detail=detail, advice=advice)


@contextmanager
def as_transient(reason: str, place: str | None = None) -> Iterator[None]:
    """Raise whatever the SDK raises inside as `Transient` with this reason. `place`: the host and
    port that are asked, where the SDK does not say it.
    """
    try:
        yield
    except Transient:
        raise
    except Exception as error:
        detail, advice = described(error, place)
        raise Transient(reason, detail=detail, advice=advice) from None


def described(error: Exception, place: str | None = None) -> tuple[str, str]:
    """Return an exception's kind and text, and no advice; of one of TLS the innermost reason with
    the host and port, and the setting to change.
    """
    answers = [one.response for one in causes(error) if getattr(one, "response", None) is not None]
    said = _page_of(answers[0]) if answers else None
    # What a service says is no error of TLS, whatever it quotes of a request.
    cause = tls_cause_of(said or "") if answers else tls_cause_of(error)
    url = str(getattr(answers[0], "url", "")) if answers else str(error)
    if place is None and (asked := _ASKED.search(url)) is not None:
        place = asked[1]
    if cause is None and not answers and place is not None and is_cut_off(error):
        return f"{type(error).__name__}: {place}: {innermost(error)}"[:MAX_DETAIL], ""
    if cause is None:
        return f"{type(error).__name__}: {error}"[:MAX_DETAIL], ""
    reason = said or innermost(error)
    where = f" with {place}" if place is not None else ""
    return f"TLS{where} failed: {reason[:MAX_REASON]}", TLS_ADVICE[cause]


def _page_of(answer: Any) -> str | None:
    """Return the text of an answer that a proxy gave and no service; None for any other."""
    page = getattr(answer, "text", None)
    if not isinstance(page, str) or _MARKUP.search(page) is None:
        return None
    return " ".join(unescape(_MARKUP.sub(" ", page)).split())


def advice_of(error: Transient | CloudRefusal) -> str:
    """Return the setting to change; empty where none is known. A refusal has one where a proxy
    gave it in place of the service, and tells of TLS.
    """
    if isinstance(error, Transient):
        return error.advice
    cause = tls_cause_of(error.detail) if error.request_id is None else None
    return "" if cause is None else TLS_ADVICE[cause]

"""Failures that the gateway itself answers, in the shape of a result's envelope."""

from starlette.responses import Response

from messages.codes import Code
from messages.errors import Refused
from messages.results import Result
from messages.wire import encode

JSON = "application/json"
#: Seconds of `Retry-After`: while the broker is away, and while too many requests are under way.
BROKER_AWAY, BUSY = 5, 1


class HttpFailure(Exception):
    """A request that the gateway answers with a failure.

    `subject` fills the place of xxx in the code's message, `reason` is the word that a program can
    use. `retry_after` is in seconds; `close`: the connection is of no use any more.
    """

    def __init__(
        self,
        status: int,
        code: Code = Code.FAILED,
        subject: str | None = None,
        *,
        reason: str | None = None,
        retry_after: int | None = None,
        close: bool = False,
    ) -> None:
        self.status = status
        self.refused = Refused(code, subject, reason=reason)
        #: Why, for the log alone: never a token, nor a value of its claims.
        self.why = reason
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)
        if close:
            self.headers["Connection"] = "close"
        super().__init__(reason or code.text_for(subject))

    @property
    def body(self) -> bytes:
        """The envelope."""
        return encode(Result.refusal(self.refused).envelope())

    def response(self) -> Response:
        """Return the answer."""
        return Response(self.body, self.status, self.headers, JSON)


def failure_of(refused: Refused) -> HttpFailure:
    """Return the failure that the worker would answer where it refused the same."""
    failure = HttpFailure(refused.code.http, refused.code, refused.subject, reason=refused.reason)
    if refused.code is Code.IDENTITY:
        failure.why = refused.detail
    return failure


def parameter(name: str, reason: str | None = None) -> HttpFailure:
    """Return the failure of a parameter that is missing or wrong."""
    return HttpFailure(400, Code.PARAMETER, name, reason=reason)


def not_found() -> HttpFailure:
    """Return the failure of a URL that is not served."""
    return HttpFailure(404, Code.PARAMETER, "url", reason="no_such_url")


def wrong_method(allowed: str) -> HttpFailure:
    """Return the failure of a URL that is asked for by another method than its own."""
    failure = HttpFailure(405, Code.PARAMETER, "method", reason="method_not_allowed")
    failure.headers["Allow"] = allowed
    return failure


def too_large() -> HttpFailure:
    """Return the failure of a body of more than 1 MiB."""
    return HttpFailure(413, Code.PARAMETER, "body", reason="too_large", close=True)


def busy(reason: str = "too_many_requests") -> HttpFailure:
    """Return the failure of a request for which there is no place now."""
    return HttpFailure(503, reason=reason, retry_after=BUSY)


def broker_away(reason: str = "broker_unavailable") -> HttpFailure:
    """Return the failure of a request that no broker takes now."""
    return HttpFailure(503, reason=reason, retry_after=BROKER_AWAY)

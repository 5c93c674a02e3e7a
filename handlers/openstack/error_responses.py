"""Error responses of OpenStack told apart by service, status and body.

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
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from html import unescape
from typing import Any

import orjson

from handlers.openstack.errors import CloudRefusal, Conflict, Forbidden, NotFound, QuotaExceeded
from messages.errors import Ambiguous, Transient

#: Characters of an error's text that are kept.
MAX_DETAIL = 500
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
#: What Nova makes of Glance's 413 at createImage: nothing has been registered, and nothing will be.
_GLANCE_QUOTA_OF_NOVA = "<class 'glanceclient.exc.HTTPOverLimit'>"
_RATE_LIMIT = re.compile(r"rate.?limit", re.IGNORECASE | re.ASCII)
#: What of a page is no text.
_MARKUP = re.compile(r"<(head|style|script)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class ErrorResponse:
    """A response of 400 and above.

    `service` is its proxy's name in the SDK; `headers` are asked for in lower case.
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
    def request_id(self) -> str | None:
        """OpenStack's id of the call; a proxy gives none."""
        return self.headers.get("x-openstack-request-id")

    @property
    def retry_after(self) -> float | None:
        """Seconds, which may be told as such or as a date; None where it says nothing."""
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
        if self._is_quota:
            return QuotaExceeded(self.status, self.detail, self.request_id)
        if self.status >= 500:
            return self._as_server_error(mutating)
        if self.status == 401 or self._is_rate_limit:
            reason = f"http_{self.status}"
            return Transient(reason, detail=self.detail, retry_after=self.retry_after)
        kinds = {403: Forbidden, 404: NotFound, 409: Conflict, 410: NotFound}
        kind = kinds.get(self.status, CloudRefusal)
        return kind(self.status, self.detail, self.request_id)

    def _as_server_error(self, mutating: bool) -> Transient:
        """A gateway that gave up (502, 504) may have given up on a request that still runs."""
        reason, wait = f"http_{self.status}", self.retry_after
        if not mutating:
            return Transient(reason, detail=self.detail, retry_after=wait)
        late = self.status in (502, 504)
        return Ambiguous(reason, detail=self.detail, may_land_late=late, retry_after=wait)

"""Answers of OpenStack that are final: trying the same again would be answered the same.

    EcsError
    └── CloudRefusal       any 4xx that is not listed below
        ├── NotFound       404, 410
        ├── Conflict       409: the state does not allow it, or another task is under way
        ├── QuotaExceeded  a quota, in each service's own way (`error_responses`)
        └── Forbidden      403: the service account lacks a right
What may pass is `messages.errors.Transient`, and `Ambiguous` where it may have been done.
"""

from messages.codes import Code
from messages.errors import EcsError, Refused


class Foreseen(BaseException):
    """Something would be done now, where it is only asked what would be. No error: nothing may
    catch it on its way.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(what)


class CloudRefusal(EcsError):
    """OpenStack said no. `detail` is its own text, `request_id` its id of the call."""

    reason = "refused_by_cloud"

    def __init__(self, status: int, detail: str, request_id: str | None) -> None:
        self.status = status
        self.detail = detail
        self.request_id = request_id
        super().__init__(f"HTTP {status}: {detail}")

    def as_failure(self) -> Refused:
        """The answer for a request that this ends."""
        return Refused(Code.FAILED, reason=self.reason, detail=str(self))


class NotFound(CloudRefusal):
    reason = "not_found"


class Conflict(CloudRefusal):
    reason = "conflict"


class QuotaExceeded(CloudRefusal):
    reason = "quota"


class Forbidden(CloudRefusal):
    reason = "forbidden"

"""The errors, each named for what the caller must do.

EcsError
├── RequestFailed           the worker answered with a failure: one class for each code below
├── NoAnswer                ask again with the same message_id
├── BrokerUnavailable       ask again later with the same message_id
│   └── BrokerRefused       ask again when the credentials, the virtual host or TLS are mended
├── Unroutable              nobody takes it: the namespace, or the worker's exchanges, are wrong
└── ClientClosed            the client was closed
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from messages.codes import Code


class EcsError(Exception):
    """Base of all errors of this library."""


class _Unanswered(EcsError):
    """A request without an answer; `message_id` is its idempotency key. `is_unsent`: nothing of it
    has left this process.
    """

    def __init__(
        self, text: str, message_id: str | None = None, *, is_unsent: bool = False
    ) -> None:
        self.message_id = message_id
        self.is_unsent = is_unsent
        super().__init__(text)


class NoAnswer(_Unanswered):
    """The broker took the request, and no answer came in time.

    It may still be carried out. Asking again with the same `message_id` is safe: it is carried out
    once, and the answer is the same.
    """


class BrokerUnavailable(_Unanswered):
    """The broker did not take the message in time: it is away, blocks publishers, or refused it.

    Unless `is_unsent`, it may have taken it without saying so. Asking again with the same
    `message_id` is safe.
    """


class BrokerRefused(BrokerUnavailable):
    """The broker refuses user and password, the virtual host or its permissions, or TLS fails.

    A client that is not closed goes on trying every few seconds, and works again when that is
    mended.
    """


class Unroutable(_Unanswered):
    """No exchange or queue takes the message; nothing was done."""


class ClientClosed(EcsError):
    """The client was closed, before or while it was asked."""


class RequestFailed(EcsError):
    """The worker's answer is a failure.

    `code` and `message` are the envelope's, `data` its data, `reason` the word in them that a
    program can use (None: there is none).
    """

    #: The codes that a class stands for.
    codes: ClassVar[tuple[Code, ...]] = ()

    def __init__(
        self, code: int | str, message: str, data: Any, http_status: int, message_id: str
    ) -> None:
        self.code = code
        self.message = message
        self.data = data
        self.http_status = http_status
        self.message_id = message_id
        reason = data.get("reason") if isinstance(data, Mapping) else None
        self.reason: str | None = reason if isinstance(reason, str) else None
        super().__init__(f"{message} ({code}{f', {self.reason}' if self.reason else ''})")


class InvalidParameter(RequestFailed):
    """A parameter is missing or wrong; the message names it."""

    codes = (Code.PARAMETER,)


class IdentityNotProven(RequestFailed):
    """The token is missing, forged, expired, or another tenant's or user's."""

    codes = (Code.IDENTITY,)


class ServerNotOwned(RequestFailed):
    """os-stop: a server is not the requester's, or does not exist."""

    codes = (Code.SERVER_NOT_OWNED,)


class ServerNotFound(RequestFailed):
    """The requester has no such server."""

    codes = (Code.SERVER_UNKNOWN,)


class ServerUnpaid(RequestFailed):
    """os-stop: a server has no billing information."""

    codes = (Code.SERVER_UNPAID,)


class WrongServerState(RequestFailed):
    """A server is not in the state that the operation needs."""

    codes = (Code.SERVER_STATE,)


class OperationFailed(RequestFailed):
    """The platform failed or did not answer in time; `reason` says how."""

    codes = (Code.FAILED,)


class ImageNotFound(RequestFailed):
    """The requester has no such image."""

    codes = (Code.IMAGE_UNKNOWN,)


class ImageUpdateFailed(RequestFailed):
    """The image could not be changed."""

    codes = (Code.IMAGE_UPDATE,)


class ImageDeleteFailed(RequestFailed):
    """The image could not be deleted: it is protected, or another tenant's."""

    codes = (Code.IMAGE_DELETE,)


class ImageCreateFailed(RequestFailed):
    """The image could not be made."""

    codes = (Code.IMAGE_CREATE,)


class NoImageInThisState(RequestFailed):
    """The server's state does not allow an image of it; the message names the state."""

    codes = (Code.IMAGE_STATE,)


class ImageInUse(RequestFailed):
    """A server uses the image; the message names the server."""

    codes = (Code.IMAGE_IN_USE,)


class ImageStillCreating(RequestFailed):
    """The image cannot be changed before it is complete."""

    codes = (Code.IMAGE_CREATING,)


class ImageNotPrivate(RequestFailed):
    """Only private images can be changed."""

    codes = (Code.IMAGE_NOT_PRIVATE,)


_BY_CODE: dict[int | str, type[RequestFailed]] = {
    code.wire: kind for kind in RequestFailed.__subclasses__() for code in kind.codes
}


def failure_of(
    code: int | str, message: str, data: Any, http_status: int, message_id: str
) -> RequestFailed:
    """Return the error of a failing answer, of the class of its code."""
    kind = _BY_CODE.get(code, RequestFailed)
    return kind(code, message, data, http_status, message_id)

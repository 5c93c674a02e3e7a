"""Connections of clients: uvicorn's, within bounds that it does not have."""

import asyncio
import contextlib
import resource
import time
import uuid
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.events import ABORT
from gateway.failures import JSON, HttpFailure
from messages.codes import Code

#: Bytes of a request's line and headers: a token has 16 KiB at most.
MAX_HEAD = 32 * 1024
#: Seconds for the headers of a request to arrive; between two requests of a connection; in which
#: the reader of an answer must take some of it.
HEAD_SECONDS, IDLE_SECONDS, STALL_SECONDS = 10.0, 30, 30.0
#: Requests that one connection may have sent before the first is answered.
_MOST_PIPELINED = 16
#: File descriptors that are not for connections of clients, and connections at most.
OTHER_FILES, _MOST_CONNECTIONS = 128, 16384


class Connections(ServerState):
    """The connections of clients; `idle` are those that have no request under way, oldest first."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.idle: dict[Connection, None] = {}

    def admit(self) -> bool:
        """Make room for one more; False where all are busy."""
        if len(self.connections) <= self.limit:
            return True
        oldest = next(iter(self.idle), None)
        if oldest is None:
            return False
        oldest.abort()
        return True

    async def watch(self) -> None:
        """Close connections that hold what they do not use, until cancelled."""
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            for one in list(self.connections):
                cast("Connection", one).look(now)


class Connection(HttpToolsProtocol):
    """A connection of uvicorn's, with limits that it has not: on headers, on a silent client, on one
    that does not read; and with answers in the shape of an envelope.
    """

    _head = 0
    _is_in_head = True
    _completed = 0
    _too_large = False
    #: Since when the headers of a request are awaited; None while none are.
    _head_since: float | None = None
    _stalled_since: float | None = None
    _unsent = 0

    @property
    def _all(self) -> Connections:
        return cast("Connections", self.server_state)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_since = time.monotonic()
        if self._all.admit():
            self._all.idle[self] = None
        else:
            self._refuse(HttpFailure(503, reason="too_many_connections", retry_after=1))

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.idle.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_in_head and self._head_since is None:
            self._head_since = time.monotonic()
        completed = self._completed
        super().data_received(data)
        # What ends a body is no part of the next request's headers.
        if self._is_in_head and self._completed == completed:
            self._head += len(data)
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self._refuse(_head_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        if self._head_since is None:
            self._head_since = time.monotonic()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._head_since = None
        self._head = 0
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD or len(self.pipeline) >= _MOST_PIPELINED:
            self._too_large = True
            raise ValueError("too large")  # ends the parsing, and is answered below
        self._all.idle.pop(self, None)
        cast("dict[str, Any]", self.scope)[ABORT] = self.abort
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head_since = None
        self._is_in_head = True
        self._completed += 1

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_in_head:  # the rest of a body that nobody wants is awaited no longer
            self._head_since = time.monotonic()
        if not self.pipeline and not self.transport.is_closing():
            self._all.idle[self] = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or has too many headers."""
        self._refuse(
            _head_too_large()
            if self._too_large
            else HttpFailure(400, Code.PARAMETER, "request", reason="no_http")
        )

    def abort(self) -> None:
        """Close it at once, whatever is being sent."""
        self._all.idle.pop(self, None)
        self.transport.abort()

    def look(self, now: float) -> None:
        """Close it where it has waited for too long, for headers or for its reader."""
        if self._head_since is not None and now - self._head_since > HEAD_SECONDS:
            self.abort()
            return
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent or self._stalled_since is None:
            self._stalled_since = now if unsent else None
        elif now - self._stalled_since > STALL_SECONDS:
            self.abort()
        self._unsent = unsent

    def _refuse(self, failure: HttpFailure) -> None:
        """Answer without a request, and close. An answer that is being sent is cut off."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.abort()
            return
        headers = failure.headers | {
            "Content-Type": JSON,
            "Content-Length": str(len(failure.body)),
            "Connection": "close",
            "X-Request-Id": uuid.uuid4().hex,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = STATUS_LINE[failure.status] + lines.encode() + b"\r\n"
        self.transport.write(head + failure.body)
        self.transport.close()


def _head_too_large() -> HttpFailure:
    return HttpFailure(431, Code.PARAMETER, "headers", reason="too_large")


def file_limit() -> int:
    """Raise the number of files that the process may open as far as it may, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_CONNECTIONS + OTHER_FILES
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft

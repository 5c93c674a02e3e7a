"""Health checks and metrics over HTTP: `/livez`, `/readyz` and `/metrics`, on the worker's loop.

Not uvicorn, which keeps an idle connection for as long as the peer likes: anybody who reaches the
port could use up the worker's file descriptors. Here a request must arrive within some seconds, and
of too many connections the oldest is closed. Each connection serves one request.
"""

import asyncio
import errno
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

#: Seconds for a request to arrive, and for its answer to be taken.
REQUEST_SECONDS = 5.0
#: Connections at once. It must be more than the loop accepts in one iteration, or a good request
#: among many idle connections would be closed before it is read.
MOST_CONNECTIONS = 128
_BACKLOG = 64
#: Bytes of a request.
_LONGEST = 8192
_END = b"\r\n\r\n"


class PortUnusable(Exception):
    """The port cannot be used. The text is one line that names the variable."""


class HealthServer:
    """Serves from `open` to `close`. `problems` returns a line for each reason why the worker is
    not ready. A request and its answer may take `limit` seconds.
    """

    def __init__(
        self,
        host: str,
        port: int,
        problems: Callable[[], list[str]],
        registry: "CollectorRegistry",
        limit: float = REQUEST_SECONDS,
    ) -> None:
        self.limit = limit
        self._host = host
        self._port = port
        self._problems = problems
        self._registry = registry
        #: Lines about what an operator has paused: it is meant, and the worker stays ready.
        self.paused: Callable[[], list[str]] = list
        self._server: asyncio.Server | None = None
        #: Oldest first.
        self._connections: dict[_Connection, None] = {}

    async def open(self) -> None:
        """Begin to serve. Raises `PortUnusable`."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: _Connection(self), self._host, self._port, backlog=_BACKLOG
            )
        except OSError as error:
            raise PortUnusable(self._advice(error)) from error

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()
        for one in list(self._connections):
            one.end()

    def opened(self, connection: "_Connection") -> None:
        """Note a new connection; of too many the oldest is closed."""
        self._connections[connection] = None
        if len(self._connections) > MOST_CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.end()

    def ended(self, connection: "_Connection") -> None:
        """Forget a connection."""
        self._connections.pop(connection, None)

    def answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """Return status, media type and body of a GET."""
        # Imported with the first scrape.
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest  # noqa: PLC0415

        if path == "/livez":
            return HTTPStatus.OK, "application/json", _json({"status": "ok"})
        if path == "/readyz":
            found = self._problems()
            status = HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK
            return (
                status,
                "application/json",
                _json(
                    {
                        "status": "not ready" if found else "ok",
                        "problems": found,
                        "paused": self.paused(),
                    }
                ),
            )
        if path == "/metrics":
            return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        return (
            HTTPStatus.NOT_FOUND,
            "application/json",
            _json({"status": "there is /livez, /readyz, /metrics"}),
        )

    def _advice(self, error: OSError) -> str:
        if error.errno == errno.EADDRINUSE:
            return f"ECS_HTTP_PORT: port {self._port} of {self._host} is in use; choose another, or 0 for none"
        if error.errno == errno.EACCES:
            return f"ECS_HTTP_PORT: port {self._port} may only be used by root; choose one from 1024 on"
        why = error.strerror or type(error).__name__
        return f"ECS_HTTP_HOST: nothing can listen on {self._host!r} ({why}); it must be an address of this machine"


class _Connection(asyncio.Protocol):
    """One connection, which serves one request."""

    def __init__(self, server: HealthServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._head = b""
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._limit = asyncio.get_running_loop().call_later(self._server.limit, self.end)
        self._server.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        self._head += data
        if _END in self._head:
            self._answer()
        elif len(self._head) > _LONGEST:
            self._write(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "text/plain", b"", with_body=False
            )

    def connection_lost(self, exc: Exception | None) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._server.ended(self)

    def end(self) -> None:
        """Close it at once, whatever is being sent."""
        if self._transport is not None:
            self._transport.abort()

    def _answer(self) -> None:
        method, path, version = ([*self._head.split(b"\r\n", 1)[0].split(b" "), b"", b"", b""])[:3]
        if not version.startswith(b"HTTP/1."):
            self._write(HTTPStatus.BAD_REQUEST, "text/plain", b"", with_body=False)
        elif method not in (b"GET", b"HEAD"):
            self._write(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"", with_body=False)
        else:
            asked = path.partition(b"?")[0].decode("ascii", "replace")
            self._write(*self._server.answer(asked), with_body=method == b"GET")

    def _write(self, status: HTTPStatus, media_type: str, body: bytes, *, with_body: bool) -> None:
        assert self._transport is not None
        self._answered = True
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {media_type}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._transport.write(head.encode() + (body if with_body else b""))
        self._transport.close()


def _json(value: object) -> bytes:
    return json.dumps(value).encode()

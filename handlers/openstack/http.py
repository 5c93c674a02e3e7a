"""HTTP with limits: an answer has a size and a time, whatever a server sends and however slowly.

A time-out of requests counts from one byte to the next, and its answers are as large as the server
likes. Here all of an answer, its head included, must have come within a limit, and its body is read
up to `MAX_ANSWER` bytes; it is never unpacked.
"""

import http.client
import io
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

#: Bytes of an answer; a page of a thousand servers is some megabytes.
MAX_ANSWER = 32 * 2**20
_PART = 65536
_UNAUTHORIZED, _TOKEN = 401, "X-Auth-Token"


@dataclass(frozen=True, slots=True)
class CallTimes:
    """Time limits of one call, in seconds."""

    #: In which nothing comes, while connecting or between two bytes.
    silence: float
    #: From the request to the last byte of its answer.
    total: float


class OddAnswer(RequestException):
    """An answer that is not read: too long, packed, or a log-in before there can be one."""


class Transport(HTTPAdapter):
    """Connections for so many threads, with time limits."""

    def __init__(self, threads: int, times: CallTimes) -> None:
        self._pools: dict[str, Any] = {
            "http": partial(_timed_pool, HTTPConnectionPool, _HTTPConnection, times),
            "https": partial(_timed_pool, HTTPSConnectionPool, _HTTPSConnection, times),
        }
        # The default of ten would throw connections away.
        super().__init__(pool_connections=8, pool_maxsize=threads)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
        """Send the request; the answer is read whole. Raises `OddAnswer`."""
        request.headers["Accept-Encoding"] = "identity"
        response = super().send(request, *arguments, **options | {"stream": True})
        if response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            raise OddAnswer("the answer is packed")
        if (
            response.status_code == _UNAUTHORIZED
            and request.method == "GET"
            and _TOKEN not in request.headers
        ):
            # Keystone's versions, which anybody may see. keystoneauth would ask for them with a
            # token: in the middle of getting one, so that it waits for itself, for ever and with
            # all who share the session.
            response.close()
            raise OddAnswer("a log-in is asked for before there can be one")
        parts, size = [], 0
        for part in response.iter_content(_PART):
            size += len(part)
            if size > MAX_ANSWER:
                response.close()  # the connection, too: nobody reads the rest of it
                raise OddAnswer(f"the answer is longer than {MAX_ANSWER} bytes")
            parts.append(part)
        response._content = b"".join(parts)
        return response


class _TimedFile(io.RawIOBase):
    """The bytes that a socket gives until an instant of the monotonic clock; then `TimeoutError`."""

    def __init__(self, raw: io.RawIOBase, sock: Any, until: float, silence: float) -> None:
        self._raw = raw
        self._sock = sock
        self._until = until
        self._silence = silence

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        self._sock.settimeout(min(left, self._silence))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(
        self, sock: Any, *arguments: Any, until: float, silence: float, **options: Any
    ) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_TimedFile(self.fp.detach(), sock, until, silence))


class _Timed:
    """A connection whose answers end. It is used by one thread at a time."""

    sock: Any
    #: The class with which `http.client` reads an answer.
    response_class: Any

    def __init__(self, *arguments: Any, times: CallTimes, **options: Any) -> None:
        self._times = times
        super().__init__(*arguments, **options)

    def request(self, *arguments: Any, **options: Any) -> None:
        until = time.monotonic() + self._times.total
        self.response_class = partial(_TimedResponse, until=until, silence=self._times.silence)
        if self.sock is not None:  # an earlier answer has shortened it
            self.sock.settimeout(self._times.silence)
        super().request(*arguments, **options)  # type: ignore[misc]


class _HTTPConnection(_Timed, HTTPConnection):
    pass


class _HTTPSConnection(_Timed, HTTPSConnection):
    pass


def _timed_pool(
    pool: Any, connection: Any, times: CallTimes, host: str, port: int, **options: Any
) -> Any:
    made = pool(host, port, **options)
    made.ConnectionCls = partial(connection, times=times)
    return made

"""HTTP of the SDK's sessions, which blocks: log-ins, discovery, the account's projects. And what a
session would send, without sending it.

A time-out of requests counts from one byte to the next, and its answers are as large as the server
likes. Here all of an answer, its head included, must have come within a limit, and its body is read
up to `MAX_ANSWER` bytes; it is never unpacked.
"""

import http.client
import io
import ssl
import time
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidProxyURL, InvalidURL, RequestException
from requests.utils import (
    DEFAULT_CA_BUNDLE_PATH,
    extract_zipped_paths,
    prepend_scheme_if_needed,
    select_proxy,
)
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.ssl_ import create_urllib3_context

from handlers import tracing
from handlers.openstack.http_client import MAX_ANSWER, CallTimes, Origin, Proxy

#: A header that marks a request which is not to be sent: `Unsent` is its answer.
NOT_SENT = "X-Not-Sent"
_PART = 65536
_UNAUTHORIZED, _TOKEN = 401, "X-Auth-Token"


class Unsent(Response):
    """A request as a session would have sent it: where to, its URL (`target`; whole where a proxy
    wants it so), and all lines of its head but the first, without those that tell of a body.
    """

    def __init__(self, request: PreparedRequest, options: Any, adapter: HTTPAdapter) -> None:
        super().__init__()
        self.request, self.url, self.status_code = request, str(request.url), 200
        self._content = b""
        url = urlsplit(self.url)
        path = url.path + (f"?{url.query}" if url.query else "")
        host = url.netloc.rpartition("@")[2]
        tls = _tls_context(options, url.scheme)
        at = select_proxy(self.url, options["proxies"])
        if at is None:
            self.origin = Origin(*_host_and_port(url), tls, None)
            self.target = path
        else:
            at = prepend_scheme_if_needed(at, "http")
            via, for_proxy = urlsplit(at), _lines(adapter.proxy_headers(at))
            if via.scheme not in ("http", "https"):
                raise InvalidProxyURL(f"a proxy of the kind {via.scheme} is not supported")
            if tls is not None:
                proxy = Proxy(*_host_and_port(via), _tls_context(options, via.scheme), for_proxy)
                self.origin = Origin(*_host_and_port(url), tls, proxy)
                self.target = path
            else:
                self.origin = Origin(*_host_and_port(via), _tls_context(options, via.scheme), None)
                self.target = f"{url.scheme}://{host}{path}"
        headers = {"Host": host, **request.headers}
        self.head = _lines(headers) + (for_proxy if at is not None and tls is None else b"")


def _host_and_port(url: SplitResult) -> tuple[str, int]:
    if not url.hostname:
        raise InvalidURL("the host is missing")
    return url.hostname, url.port or {"http": 80, "https": 443}[url.scheme]


def _lines(headers: Mapping[str, str | bytes]) -> bytes:
    return b"".join(
        b"%b: %b\r\n"
        % (name.encode(), value if isinstance(value, bytes) else value.encode("latin-1"))
        for name, value in headers.items()
    )


def _tls_context(options: Any, scheme: str) -> ssl.SSLContext | None:
    """The context for a certificate that is checked as `requests` would, None without TLS."""
    if scheme != "https":
        return None
    verify, cert = options["verify"], options["cert"]
    authorities = extract_zipped_paths(DEFAULT_CA_BUNDLE_PATH) if verify is True else verify or None
    own = (cert, None) if isinstance(cert, str) else cert or ()
    files = [one for one in (authorities, *own) if one is not None]
    # Files that were renewed count when a token is.
    return _context(authorities, own, tuple(Path(one).stat().st_mtime_ns for one in files))


@lru_cache(maxsize=8)
def _context(
    authorities: str | None, own: tuple[str, str | None], _stamps: tuple[int, ...]
) -> ssl.SSLContext:
    context = create_urllib3_context(
        cert_reqs=ssl.CERT_REQUIRED if authorities is not None else ssl.CERT_NONE
    )
    if authorities is not None:
        is_folder = Path(authorities).is_dir()
        context.load_verify_locations(**{"capath" if is_folder else "cafile": authorities})
    if own:
        context.load_cert_chain(*own, password="")  # else an encrypted key would ask a terminal
    return context


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
        if request.headers.pop(NOT_SENT, None) is not None:
            return Unsent(request, options, self)
        with tracing.call("keystoneauth", request.method, urlsplit(request.url).path) as span:
            request.headers.update(tracing.headers())
            response = super().send(request, *arguments, **options | {"stream": True})
            tracing.ended(span, str(response.status_code))
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

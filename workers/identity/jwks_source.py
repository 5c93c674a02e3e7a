"""The source of the key set: a file, or a URL."""

import contextlib
import http.client
import socket
import threading
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from messages.secrets import shown_url
from messages.wire import MAX_BODY


class KeySetError(Exception):
    """The key set cannot be read, or has no usable key; the text says why, in one line."""


class KeySource(Protocol):
    """The source of a key set; `name` is shown, `limit` is the most seconds that `read` takes."""

    name: str
    limit: float

    def read(self) -> bytes:
        """Return the key set as it is now; blocks. Raises `KeySetError`."""


def is_url(source: str) -> bool:
    """Return whether a setting names a URL, not a file."""
    return source.startswith(("http://", "https://"))


def key_source(source: str) -> KeySource:
    """Return the source that a setting names."""
    return UrlSource(source) if is_url(source) else FileSource(source)


class FileSource:
    """A file, read at each fetch: it may have been replaced."""

    limit = 5.0

    def __init__(self, path: str) -> None:
        self.name = path

    def read(self) -> bytes:
        try:
            with Path(self.name).open("rb") as file:
                return _bounded(file.read(MAX_BODY + 1))
        except OSError as error:
            raise KeySetError(f"{self.name}: {error.strerror or type(error).__name__}") from None


class UrlSource:
    """A URL. No redirect is followed; `wait` limits the seconds of one wait on the network, `limit`
    those of the whole exchange.
    """

    def __init__(self, url: str, *, wait: float = 5.0, limit: float = 10.0) -> None:
        # It is logged and shown: a query may hold a secret.
        self.name = shown_url(url)
        self.limit = limit
        self._wait = wait
        self._parts = urlsplit(url)

    def read(self) -> bytes:
        kind = (
            http.client.HTTPSConnection
            if self._parts.scheme == "https"
            else http.client.HTTPConnection
        )
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=self._wait)
        # A server that sends one byte now and then would keep within each single wait, in headers
        # as well as in the body.
        alarm = threading.Timer(self.limit, _hang_up, [connection])
        alarm.daemon = True
        alarm.start()
        try:
            return self._get(connection)
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise KeySetError(f"{self.name}: {why}") from None
        finally:
            alarm.cancel()
            connection.close()

    def _get(self, connection: http.client.HTTPConnection) -> bytes:
        path = self._parts.path or "/"
        target = f"{path}?{self._parts.query}" if self._parts.query else path
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "ecs-worker",
        }
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        if response.status != 200:
            raise KeySetError(f"{self.name}: HTTP {response.status}")
        return _bounded(response.read(MAX_BODY + 1))


def _bounded(body: bytes) -> bytes:
    if len(body) > MAX_BODY:
        raise KeySetError(f"the key set is larger than {MAX_BODY} bytes")
    return body


def _hang_up(connection: http.client.HTTPConnection) -> None:
    with contextlib.suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)

"""Where the key set comes from: a file, or a URL."""

import contextlib
import http.client
import socket
import threading
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from messages.secrets import shown_url
from messages.wire import MAX_BODY

#: Seconds for one wait on the network, and for all of them.
_WAIT, TOTAL = 5.0, 10.0


class KeySetError(Exception):
    """The key set cannot be read, or holds nothing of use; the text says why, in one line."""


class KeySource(Protocol):
    """What the key set is read from."""

    name: str

    def read(self) -> bytes:
        """The set as it is now; blocks, for some ten seconds at most. `KeySetError` where it cannot
        be read.
        """


def is_url(source: str) -> bool:
    """Whether a key set is to be fetched, not read from a file."""
    return source.startswith(("http://", "https://"))


def key_source(source: str) -> KeySource:
    """The source that a setting names."""
    return UrlSource(source) if is_url(source) else FileSource(source)


class FileSource:
    """A file, read anew each time: it may have been replaced."""

    def __init__(self, path: str) -> None:
        self.name = path

    def read(self) -> bytes:
        try:
            with Path(self.name).open("rb") as file:
                return _bounded(file.read(MAX_BODY + 1))
        except OSError as error:
            raise KeySetError(f"{self.name}: {error.strerror or type(error).__name__}") from None


class UrlSource:
    """A URL, asked for with nothing that the requester could have a say in: no redirect is
    followed.
    """

    def __init__(self, url: str) -> None:
        # It is logged and shown: a query may hold a secret.
        self.name = shown_url(url)
        self._parts = urlsplit(url)

    def read(self) -> bytes:
        connection = self._connection()
        # A server that sends a byte now and then would satisfy every single wait.
        alarm = threading.Timer(TOTAL, _hang_up, [connection])
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

    def _connection(self) -> http.client.HTTPConnection:
        kind = (
            http.client.HTTPSConnection
            if self._parts.scheme == "https"
            else http.client.HTTPConnection
        )
        return kind(self._parts.hostname or "", self._parts.port, timeout=_WAIT)

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

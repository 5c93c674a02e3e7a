"""A TLS listener before a server's plain port, with whatever certificate: it keeps what it gets
after the handshake.
"""

import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from sandbox.processes import free_ports
from tests.support.certificates import Pair

#: The first byte of TLS.
_HANDSHAKE = b"\x16"


class TlsProxy:
    """Takes connections on a port of 127.0.0.1, from the beginning to the end of a `with`."""

    def __init__(
        self,
        pair: Pair,
        target: int,
        *,
        clients: Path | None = None,
        newest: ssl.TLSVersion | None = None,
        to_plain: bytes = b"",
    ) -> None:
        """`target` is the server's plain port; `clients` the CA of the certificates that clients
        must have; `to_plain` the answer to who speaks no TLS.
        """
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.certificate, pair.key)
        self._context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        if clients is not None:
            self._context.load_verify_locations(clients)
            self._context.verify_mode = ssl.CERT_REQUIRED
        if newest is not None:
            self._context.maximum_version = newest
        self._target, self._to_plain = target, to_plain
        (self.port,) = free_ports(1)
        self._listener = socket.create_server(("127.0.0.1", self.port))
        #: The names that clients asked for (SNI), one a handshake that was begun.
        self.names: list[str | None] = []
        #: Connections that were accepted.
        self.accepted = 0
        #: All that clients sent inside TLS.
        self.received = b""

    def __enter__(self) -> "TlsProxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                self.accepted += 1
                threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        with suppress(OSError), raw:
            raw.settimeout(10)
            if self._to_plain and raw.recv(1, socket.MSG_PEEK) != _HANDSHAKE:
                raw.recv(65536)
                raw.sendall(self._to_plain)
                return
            inside = self._context.wrap_socket(raw, server_side=True)
            inside.settimeout(None)
            with inside, socket.create_connection(("127.0.0.1", self._target)) as broker:
                threading.Thread(target=self._answer, args=(broker, inside), daemon=True).start()
                while data := inside.recv(65536):
                    self.received += data
                    broker.sendall(data)

    @staticmethod
    def _answer(broker: socket.socket, inside: ssl.SSLSocket) -> None:
        with suppress(OSError):
            while data := broker.recv(65536):
                inside.sendall(data)

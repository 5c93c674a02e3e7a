"""The brokers' addresses, and how they are connected to.

Over TLS the broker's certificate chain and host name are always checked, by TLS 1.2 or newer;
nothing in a URL turns that off.
"""

import random
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from kombu import Connection

from messages.record import record

#: Seconds between heartbeats, and for a connection with all its steps, where the URL does not say.
_HEARTBEAT, _CONNECT = 15, 5.0
#: Seconds for which the peer may take nothing before the kernel ends the connection. py-amqp's own
#: second would end it while a broker under memory alarm reads nothing; heartbeats notice the rest.
_SILENT = 60
_SOCKET = {socket.TCP_USER_TIMEOUT: _SILENT * 1000} if hasattr(socket, "TCP_USER_TIMEOUT") else {}
_PORTS = {"amqp": 5672, "amqps": 5671}
_ACCESS_REFUSED, _NOT_ALLOWED = 403, 530
_FORM = (
    "a broker's URL is written amqp://user:password@host:5672/vhost, with %2F %23 %3F %40 %3A for "
    "/ # ? @ : in user, password and vhost"
)


@record
class Endpoint:
    """One broker."""

    host: str
    port: int
    virtual_host: str
    user: str
    password: str = field(repr=False)
    is_tls: bool
    heartbeat: int
    connect_timeout: float

    def __str__(self) -> str:
        """Return the URL as it may be shown: without the password."""
        scheme = "amqps" if self.is_tls else "amqp"
        return f"{scheme}://{self.user}:***@{self.address}/{self.virtual_host}"

    @property
    def address(self) -> str:
        """Host and port, as a URL has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def refuses(self, error: Exception) -> bool:
        """Tell whether an error of `connect` comes again until somebody mends something: user and
        password, the virtual host, permissions, TLS.
        """
        if isinstance(error, ssl.SSLError):
            # A connection that breaks meanwhile says nothing of certificates.
            return not isinstance(
                error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
            )
        # There may be too many connections at the moment, which is NOT_ALLOWED, too.
        code = getattr(error, "reply_code", None)
        return code == _ACCESS_REFUSED or (code == _NOT_ALLOWED and "limit" not in str(error))

    def why(self, error: Exception) -> str:
        """Return in a line, without secrets, why there is no connection."""
        said = line_of(error)
        if "Login was refused" in said:
            return f"the broker at {self.address} refuses this user and password"
        if isinstance(error, ssl.SSLError):
            return f"the TLS connection to the broker at {self.address} failed: {said}"
        if isinstance(error, OSError):
            return f"no broker at {self.address}: {error.strerror or said}"
        return f"the broker at {self.address} cannot be used: {said}"


@record
class Brokers:
    """The brokers of one cluster, and the files of TLS."""

    endpoints: tuple[Endpoint, ...]
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __str__(self) -> str:
        """Return the URLs as they may be shown."""
        return ", ".join(map(str, self.endpoints))

    def in_random_order(self) -> list[Endpoint]:
        """Return the endpoints, so shuffled that clients spread over the nodes."""
        return random.sample(self.endpoints, len(self.endpoints))

    def connect(self, endpoint: Endpoint, **callbacks: Callable[..., None]) -> Any:
        """Return py-amqp's open connection. Blocks.

        Raises `OSError`, or an error of py-amqp's, which is an `Exception` with `reply_code`.
        """
        tls = {
            # The name goes into SNI, and is what the certificate must hold.
            "server_hostname": endpoint.host,
            "cert_reqs": ssl.CERT_REQUIRED,
            "ca_certs": self.ca_file,
            "certfile": self.cert_file,
            "keyfile": self.key_file,
            "tls_minimum_version": ssl.TLSVersion.TLSv1_2,
        }
        connection = Connection(
            hostname=f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host,
            port=endpoint.port,
            userid=endpoint.user,
            password=endpoint.password,
            virtual_host=endpoint.virtual_host,
            transport="pyamqp",
            login_method="PLAIN",
            ssl=tls if endpoint.is_tls else False,
            connect_timeout=endpoint.connect_timeout,
            heartbeat=endpoint.heartbeat,
            transport_options={
                "read_timeout": endpoint.connect_timeout,
                "write_timeout": endpoint.connect_timeout,
                "socket_settings": _SOCKET,
                "client_properties": {"connection_name": "ecs-client"},
                **callbacks,
            },
        )
        return connection.transport.establish_connection()


def line_of(error: BaseException) -> str:
    """Return an error in a line."""
    if reply_text := getattr(error, "reply_text", None):
        return " ".join(str(reply_text).split())[:250]
    text = " ".join(str(error).split())[:250]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def read_brokers(
    url: str, ca_file: str | None, cert_file: str | None, key_file: str | None
) -> Brokers:
    """Read one URL or several, separated by commas. Raises `ValueError`, which holds no secret."""
    endpoints = tuple(_endpoint(one) for one in re.split(r"\s*,\s*(?=amqps?://)", url.strip()))
    for name, file in (("ca_file", ca_file), ("cert_file", cert_file), ("key_file", key_file)):
        if file is not None and not Path(file).is_file():
            raise ValueError(f"{name}: there is no file {file}")
        if file is not None and not any(one.is_tls for one in endpoints):
            raise ValueError(f"{name} is of no use with amqp://: TLS needs a URL with amqps://")
    if key_file is not None and cert_file is None:
        raise ValueError("key_file is of no use without cert_file")
    return Brokers(endpoints, ca_file, cert_file, key_file)


def _endpoint(url: str) -> Endpoint:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        options = dict(parse_qsl(parts.query))
        heartbeat = int(options.get("heartbeat", _HEARTBEAT))
        connect_timeout = float(options.get("socket_timeout", _CONNECT))
    except ValueError:  # its text may show half a password
        raise ValueError(_FORM) from None
    # One of / ? # in a password ends the host there: the rest of it, which must not be shown,
    # follows up to an @.
    is_odd = parts.fragment or "@" in parts.path or "@" in parts.query
    if parts.scheme not in _PORTS or not host or is_odd:
        raise ValueError(_FORM)
    return Endpoint(
        host=host,
        port=port or _PORTS[parts.scheme],
        virtual_host=unquote(parts.path[1:]) or "/",
        user=unquote(parts.username) if parts.username is not None else "guest",
        password=unquote(parts.password or "") if parts.username is not None else "guest",
        is_tls=parts.scheme == "amqps",
        heartbeat=heartbeat,
        connect_timeout=connect_timeout,
    )

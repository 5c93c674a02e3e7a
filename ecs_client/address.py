"""The brokers' URLs, read in one place for client and worker, the addresses that they stand for,
and the reasons for which a connection is not made.

Over TLS the broker's certificate chain and host name are always checked, by TLS 1.2 or newer;
nothing in a URL turns that off. The name is the URL's host, whatever its address is.
"""

import random
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from kombu import Connection

from messages.record import record
from messages.tls import TlsCause, text_of, tls_cause_of

#: Seconds between heartbeats, and for a connection with all its steps, where the URL does not say.
_HEARTBEAT, _CONNECT = 15, 5.0
#: Seconds for which the peer may take nothing before the kernel ends the connection. py-amqp's own
#: second would end it while a broker under memory alarm reads nothing; heartbeats notice the rest.
_SILENT = 60
_SOCKET = {socket.TCP_USER_TIMEOUT: _SILENT * 1000} if hasattr(socket, "TCP_USER_TIMEOUT") else {}
#: Ports where the URL names none.
_PORTS = {"amqp": 5672, "amqps": 5671}
#: What a URL may say after `?`: the type, the least and the greatest value; times in seconds.
_OPTIONS: Mapping[str, tuple[type[int] | type[float], float, float]] = {
    "heartbeat": (int, 0, 65535),
    "connection_attempts": (int, 1, 1000),
    "retry_delay": (float, 0, 3600),
    "socket_timeout": (float, 0.1, 3600),
    "stack_timeout": (float, 0.1, 3600),
    "channel_max": (int, 16, 65535),
    "frame_max": (int, 4096, 131072),
}
#: Beginnings of other programs' options for TLS.
_OF_TLS = ("ssl", "verify", "fail_if", "cacert", "cert", "key", "tls", "server_name")
_UNREADABLE = (
    "is no URL like amqp://user:password@host:5672/vhost; in user, password and vhost "
    "/ # ? @ : , are written %2F %23 %3F %40 %3A %2C"
)
_HOST = re.compile(r"[\w.-]+|[0-9A-Fa-f:.]+(%[\w.-]+)?")
#: Where a list of URLs is split.
_SEPARATOR = re.compile(r"\s*,\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_ACCESS_REFUSED, _NOT_ALLOWED = 403, 530
#: Seconds for which an address that failed is tried after the others.
_REMEMBERED = 60.0
#: When an address failed last, in monotonic time: host, port, address. All connections of the
#: process learn from one that a node hangs, and pay its time-out once.
_failed_at: dict[tuple[str, int, str], float] = {}


@record
class Endpoint:
    """One broker, as a URL names it. `options` are those of the URL, by pika's names."""

    host: str
    port: int
    virtual_host: str
    user: str
    password: str = field(repr=False)
    is_tls: bool
    options: Mapping[str, Any]

    def __str__(self) -> str:
        """Return the URL as it may be shown: without password and options."""
        scheme = "amqps" if self.is_tls else "amqp"
        path = "" if self.virtual_host == "/" else self.virtual_host
        return f"{scheme}://{self.user}:***@{self.address}/{path}"

    @property
    def address(self) -> str:
        """Host and port, as a URL has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@record
class Target:
    """One address of a broker: `ip` is what its host's name stands for, among others perhaps."""

    endpoint: Endpoint
    ip: str

    def __str__(self) -> str:
        """Return host, port and the address where it is not the host itself."""
        shown = self.endpoint.address
        return shown if self.ip == self.endpoint.host else f"{shown} ({self.ip})"

    @property
    def key(self) -> tuple[str, int, str]:
        """Host, port and address, by which two are told apart."""
        return self.endpoint.host, self.endpoint.port, self.ip

    def failed(self) -> None:
        """Have it tried after the others for a while: it does not answer, or was lost."""
        now = time.monotonic()
        for key, when in list(_failed_at.items()):
            if now - when > _REMEMBERED:
                _failed_at.pop(key, None)
        _failed_at[self.key] = now

    def worked(self) -> None:
        """Have it tried as any other."""
        _failed_at.pop(self.key, None)

    @property
    def last_failure(self) -> float:
        """Return the time of its last failure within a minute, in monotonic time; 0: none."""
        when = _failed_at.get(self.key, 0.0)
        return when if time.monotonic() - when <= _REMEMBERED else 0.0


def targets(endpoints: Iterable[Endpoint]) -> list[Target]:
    """Return all addresses of some brokers in the order in which they are to be tried: those that
    failed lately last, IPv6 or IPv4 first as the machine prefers it, else at random, so that
    clients spread over the nodes. Blocks while names are looked up.

    Raises `OSError` where no name can be looked up.
    """
    found: dict[tuple[str, int, str], tuple[int, Target]] = {}
    problem: OSError | None = None
    for one in endpoints:
        try:
            entries = socket.getaddrinfo(one.host, one.port, type=socket.SOCK_STREAM)
        except UnicodeError:  # a label of the name is too long, or empty
            problem = socket.gaierror(socket.EAI_NONAME, f"{one.host} is no name of a host")
        except OSError as error:
            problem = error
        else:
            families = list(dict.fromkeys(entry[0] for entry in entries))
            for family, *_, address in entries:
                target = Target(one, _ip(one, address))
                found.setdefault(target.key, (families.index(family), target))
    if not found:
        raise problem or OSError("no broker is named")
    shuffled = random.sample(list(found.values()), len(found))
    shuffled.sort(key=lambda one: (one[1].last_failure, one[0]))
    return [target for _, target in shuffled]


def _ip(endpoint: Endpoint, address: tuple[Any, ...]) -> str:
    # A link-local address is of no use without its zone, which stands in the host alone.
    return endpoint.host if len(address) == 4 and address[3] else str(address[0])


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

    def client(self, target: Target, **options: Any) -> Connection:
        """Return kombu's connection to one address, which is not open yet."""
        endpoint, ip = target.endpoint, target.ip
        tls = {
            # The name goes into SNI, and is what the certificate must hold.
            "server_hostname": endpoint.host,
            "cert_reqs": ssl.CERT_REQUIRED,
            "ca_certs": self.ca_file,
            "certfile": self.cert_file,
            "keyfile": self.key_file,
            "tls_minimum_version": ssl.TLSVersion.TLSv1_2,
        }
        return Connection(
            hostname=f"[{ip}]" if ":" in ip else ip,
            port=endpoint.port,
            userid=endpoint.user,
            password=endpoint.password,
            virtual_host=endpoint.virtual_host,
            transport="pyamqp",
            login_method="PLAIN",
            ssl=tls if endpoint.is_tls else False,
            **options,
        )

    def connect(self, target: Target, **callbacks: Callable[..., None]) -> Any:
        """Return py-amqp's open connection of the client library. Blocks.

        Raises `OSError`, or an error of py-amqp's, which is an `Exception` with `reply_code`.
        """
        options = target.endpoint.options
        seconds = options.get("socket_timeout", _CONNECT)
        connection = self.client(
            target,
            connect_timeout=seconds,
            heartbeat=options.get("heartbeat", _HEARTBEAT),
            transport_options={
                "read_timeout": seconds,
                "write_timeout": seconds,
                "socket_settings": _SOCKET,
                "client_properties": {"connection_name": "ecs-client"},
                **callbacks,
            },
        )
        found = connection.transport.establish_connection()
        # The kernel's time-outs alone would have py-amqp wait for ever for the rest of a frame.
        found.sock.settimeout(seconds)
        return found


def line_of(error: BaseException) -> str:
    """Return an error in a line."""
    if reply_text := getattr(error, "reply_text", None):
        return " ".join(str(reply_text).split())[:250]
    text = " ".join(str(error).split())[:250]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# The URLs.


def read_brokers(
    url: str, ca_file: str | None, cert_file: str | None, key_file: str | None
) -> Brokers:
    """Read one URL or several, and check the files of TLS. Raises `ValueError`, which holds no
    secret.
    """
    try:
        endpoints = read_urls(url)
    except ValueError as error:
        form = "a broker's URL is written amqp://user:password@host:5672/vhost"
        raise ValueError(f"url: {error}; {form}") from None
    for name, file in (("ca_file", ca_file), ("cert_file", cert_file), ("key_file", key_file)):
        if file is not None and not Path(file).is_file():
            raise ValueError(f"{name}: there is no file {file}")
        if file is not None and not endpoints[0].is_tls:
            raise ValueError(f"{name} is of no use with amqp://: TLS needs a URL with amqps://")
    if key_file is not None and cert_file is None:
        raise ValueError("key_file is of no use without cert_file")
    return Brokers(endpoints, ca_file, cert_file, key_file)


def read_urls(text: str) -> tuple[Endpoint, ...]:
    """Read the URLs of the nodes of one cluster, separated by commas.

    All must begin alike: a node without TLS would be sent the password in plain. User and password
    may differ.

    Raises `ValueError`, which shows nothing of a URL but an option's name.
    """
    urls = _SEPARATOR.split(text.strip())
    found = []
    for number, url in enumerate(urls, 1):
        try:
            found.append(_read_url(url))
        except ValueError as error:
            which = f"URL {number} of {len(urls)}: " if len(urls) > 1 else ""
            raise ValueError(f"{which}{error}") from None
    if len({one.is_tls for one in found}) > 1:
        raise ValueError("all URLs must begin with amqps://, or all with amqp://")
    return tuple(found)


def _read_url(url: str) -> Endpoint:
    if url.endswith(","):
        raise ValueError("ends with a comma, and no URL follows")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    # Its text shows what stands where the port should be: perhaps half a password.
    except ValueError:
        raise ValueError(_UNREADABLE) from None
    if parts.scheme not in _PORTS:
        raise ValueError("must begin with amqp:// or amqps://")
    # One of / ? # in a password ends the host there: the rest of it, which must not be shown,
    # follows up to an @. A comma in the path would be another host's, written without amqp://.
    is_odd = parts.fragment or "@" in parts.path + parts.query or "," in parts.path + parts.query
    if not host or not _HOST.fullmatch(host) or is_odd or port == 0:
        raise ValueError(_UNREADABLE)
    return Endpoint(
        host=host,
        port=port or _PORTS[parts.scheme],
        # "//" is how the virtual host "/" is written everywhere but in pika.
        virtual_host=unquote(parts.path[1:]) or "/",
        user=unquote(parts.username) if parts.username is not None else "guest",
        password=unquote(parts.password or "") if parts.username is not None else "guest",
        is_tls=parts.scheme == "amqps",
        options=_options(parts.query),
    )


def _options(query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise ValueError(_unknown(name))
        if name in found:
            raise ValueError(f"the option {name} stands there twice")
        kind, least, most = _OPTIONS[name]
        try:
            found[name] = kind(value)
        except ValueError:
            raise ValueError(f"the option {name} must be a number") from None
        if not least <= found[name] <= most:
            raise ValueError(f"the option {name} must be from {least:g} to {most:g}")
    return found


def _unknown(name: str) -> str:
    shown = "".join(one for one in name if one.isalnum() or one == "_")[:40]
    if shown.startswith(_OF_TLS):
        return (
            f"the option {shown} is not taken: TLS is set up by the files of CA, certificate and key "
            "(ECS_BROKER_CA_FILE, ECS_BROKER_CERT_FILE, ECS_BROKER_KEY_FILE), and the broker's "
            "certificate is always checked"
        )
    return f"the option {shown} is not known; known are {', '.join(_OPTIONS)}"


# Why there is no connection.


class Cause(StrEnum):
    """The reason for which a connection is not made, as far as it can be told from the error and is
    no `TlsCause`.
    """

    REFUSED = "user, password or virtual host refused"
    LIMIT = "too many connections"
    CUT_OFF_TLS = "cut off, with TLS"
    CUT_OFF_PLAIN = "cut off, without TLS"
    UNKNOWN = "unknown"


def is_refusal(cause: TlsCause | Cause) -> bool:
    """Return True where somebody has to mend something: trying again alone does not help."""
    return isinstance(cause, TlsCause) or cause is Cause.REFUSED


#: What the error's text holds; the first that fits counts.
_SIGNS: tuple[tuple[str, Cause], ...] = (
    # Too many connections are NOT_ALLOWED, too, and pass.
    (r"NOT_ALLOWED.*limit \(\d+\) is reached", Cause.LIMIT),
    (
        r"ACCESS_REFUSED|NOT_ALLOWED|Login was refused|ProbableAuthentication|ProbableAccessDenied",
        Cause.REFUSED,
    ),
)
#: The connection ended while it was made, and nobody said why.
_CUT_OFF = re.compile(
    r"EOF occurred|reset by peer|[Bb]roken pipe|IncompatibleProtocol|unexpectedly closed"
    r"|UnexpectedFrame|StreamLost"
)


def cause_of(error: BaseException | str, *, is_tls: bool) -> TlsCause | Cause:
    """Return why a connection is not made, from an error of pika, kombu, py-amqp or the socket."""
    of_tls = tls_cause_of(error)
    if of_tls not in (None, TlsCause.OTHER):
        return of_tls
    text = text_of(error)
    for sign, cause in _SIGNS:
        if re.search(sign, text):
            return cause
    if _CUT_OFF.search(text):
        return Cause.CUT_OFF_TLS if is_tls else Cause.CUT_OFF_PLAIN
    return of_tls or Cause.UNKNOWN


#: What a user of the client library has to do, where the error itself does not say.
_HINTS: dict[TlsCause | Cause, str] = {
    TlsCause.WRONG_NAME: "the URL must name the broker as its certificate does",
    TlsCause.EXPIRED: "the broker needs another certificate, or a clock is wrong",
    TlsCause.UNKNOWN_CA: "ca_file (ECS_BROKER_CA_FILE) must hold the CA that signed its certificate",
    TlsCause.CERTIFICATE_NEEDED: (
        "it asks for a client certificate: cert_file, key_file (ECS_BROKER_CERT_FILE,"
        " ECS_BROKER_KEY_FILE)"
    ),
    TlsCause.CERTIFICATE_REFUSED: (
        "it does not accept the certificate in cert_file (ECS_BROKER_CERT_FILE)"
    ),
    TlsCause.NO_TLS: (
        "the port speaks no TLS: name the one that does (usually 5671), or begin the URL with amqp://"
    ),
    TlsCause.OLD_TLS: "the broker must offer TLS 1.2 or newer",
    Cause.CUT_OFF_TLS: (
        "it may ask for a client certificate, or not accept this one: cert_file, key_file"
        " (ECS_BROKER_CERT_FILE, ECS_BROKER_KEY_FILE)"
    ),
    Cause.CUT_OFF_PLAIN: "for a port with TLS the URL must begin with amqps://",
}


def explained(error: Exception, target: Target) -> tuple[str, bool]:
    """Return in a line, without secrets, why `Brokers.connect` failed, and whether that comes again
    until somebody mends something.
    """
    endpoint, said = target.endpoint, line_of(error)
    cause = cause_of(error, is_tls=endpoint.is_tls)
    if "Login was refused" in said:
        return f"the broker at {target} refuses this user and password", True
    if isinstance(error, ssl.SSLError):
        text = f"the TLS connection to the broker at {target} failed: {said}"
    elif isinstance(error, OSError):
        text = f"no broker at {target}: {error.strerror or said}"
    else:
        text = f"the broker at {target} cannot be used: {said}"
    hint = _HINTS.get(cause)
    return f"{text}; {hint}" if hint else text, is_refusal(cause)

"""The broker's address and TLS files, read in one place: pika's and kombu's connections are made
from what stands here.

Every connection over TLS checks the broker's certificate chain and host name, sends SNI, and takes
TLS 1.2 or newer. Nothing in a URL turns that off. Credentials are sent after the handshake, so
never to a peer that was not verified.
"""

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from messages.record import record

#: Bytes of a secret's file that are read.
_LONGEST_SECRET = 16 * 1024
#: Ports where the URL names none.
_PORTS = {"amqp": 5672, "amqps": 5671}
#: What a URL may say after `?`: the type, the least and the greatest value. The names are pika's;
#: times in seconds.
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
    "/ # ? @ : are written %2F %23 %3F %40 %3A"
)


class BrokerUnusable(ValueError):
    """A URL or a file that no connection can be made with. `variable` names the setting; the text
    holds no secret.
    """

    def __init__(self, variable: str, problem: str) -> None:
        self.variable = variable
        self.problem = problem
        super().__init__(f"{variable}: {problem}")


@record
class Endpoint:
    """The broker's address and credentials. `options` are those of the URL, by pika's names."""

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
        host = f"[{self.host}]" if ":" in self.host else self.host
        path = "" if self.virtual_host == "/" else self.virtual_host
        return f"{scheme}://{self.user}:***@{host}:{self.port}/{path}"


@record
class Broker:
    """The configuration of the broker; the files are those of `ECS_BROKER_CA_FILE`, `_CERT_FILE`,
    `_KEY_FILE` and `_URL_FILE`.
    """

    url: str = field(repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    #: Read at each connection, so that a password is changed without a restart; `url` counts where
    #: there is none.
    url_file: str | None = None

    @property
    def endpoint(self) -> Endpoint:
        """The URL as it is now, read. Raises `BrokerUnusable`."""
        if self.url_file is None:
            return read_url(self.url)
        try:
            return read_url(read_secret(self.url_file))
        except BrokerUnusable:
            raise
        except ValueError as error:
            raise BrokerUnusable("ECS_BROKER_URL_FILE", str(error)) from None

    def tls_context(self) -> ssl.SSLContext | None:
        """Return a context with the files as they are now; None where the URL asks for no TLS.
        Raises `BrokerUnusable`.
        """
        if not self.endpoint.is_tls:
            return None
        context = _context_with_ca(self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert_file is not None:
            _load_own_certificate(context, self.cert_file, self.key_file)
        return context


#: A URL alone stands for a broker without files of its own.
Where = Broker | str


def broker_at(where: Where) -> Broker:
    """Return the broker; a URL alone is one without TLS files."""
    return where if isinstance(where, Broker) else Broker(where)


def read_secret(path: str) -> str:
    """Return the content of a secret's file without the newline at its end. Raises `ValueError`."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(_LONGEST_SECRET + 1).decode()
    except OSError as error:
        raise ValueError(
            f"the file cannot be read: {error.strerror or type(error).__name__}"
        ) from None
    except ValueError:  # a path with a NUL, or bytes that are no UTF-8
        raise ValueError("the file is no UTF-8 text") from None
    text = text.rstrip("\r\n")
    if not text:
        raise ValueError("the file is empty")
    if len(text) >= _LONGEST_SECRET or not text.isprintable():
        raise ValueError("the file must hold one line, the URL, and nothing else")
    return text


def read_url(url: str) -> Endpoint:
    """Read an AMQP URL. Raises `BrokerUnusable`, which shows nothing of it but an option's name."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except (
        ValueError
    ):  # its text shows what stands where the port should be: perhaps half a password
        raise BrokerUnusable("ECS_BROKER_URL", _UNREADABLE) from None
    if parts.scheme not in _PORTS:
        raise BrokerUnusable("ECS_BROKER_URL", "must begin with amqp:// or amqps://")
    # One of / ? # in a password ends the host there: the rest of it, which must not be shown,
    # follows up to an @.
    if not host or parts.fragment or "@" in parts.path or "@" in parts.query:
        raise BrokerUnusable("ECS_BROKER_URL", _UNREADABLE)
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
            raise BrokerUnusable("ECS_BROKER_URL", _unknown(name))
        if name in found:
            raise BrokerUnusable("ECS_BROKER_URL", f"the option {name} stands there twice")
        kind, least, most = _OPTIONS[name]
        try:
            found[name] = kind(value)
        except ValueError:
            raise BrokerUnusable("ECS_BROKER_URL", f"the option {name} must be a number") from None
        if not least <= found[name] <= most:
            raise BrokerUnusable(
                "ECS_BROKER_URL", f"the option {name} must be from {least:g} to {most:g}"
            )
    return found


def _unknown(name: str) -> str:
    shown = "".join(one for one in name if one.isalnum() or one == "_")[:40]
    if shown.startswith(_OF_TLS):
        return (
            f"the option {shown} is not taken: TLS is set up by ECS_BROKER_CA_FILE, ECS_BROKER_CERT_FILE and "
            "ECS_BROKER_KEY_FILE, and the broker's certificate is always checked"
        )
    return f"the option {shown} is not known; known are {', '.join(_OPTIONS)}"


# The files.


def check_files(broker: Broker) -> list[BrokerUnusable]:
    """Return all that is wrong with the TLS files, each problem with its variable. The URL must be
    right.
    """
    if not broker.endpoint.is_tls:
        named = ("CA", broker.ca_file), ("CERT", broker.cert_file), ("KEY", broker.key_file)
        useless = "is of no use with amqp://: ECS_BROKER_URL must begin with amqps:// for TLS"
        return [
            BrokerUnusable(f"ECS_BROKER_{name}_FILE", useless)
            for name, file in named
            if file is not None
        ]
    found = []
    checks: list[Callable[[], object]] = [lambda: _context_with_ca(broker.ca_file)]
    if (certificate := broker.cert_file) is not None:
        context = ssl.create_default_context()
        checks.append(lambda: _load_own_certificate(context, certificate, broker.key_file))
    elif broker.key_file is not None:
        found.append(
            BrokerUnusable("ECS_BROKER_KEY_FILE", "is of no use without ECS_BROKER_CERT_FILE")
        )
    for check in checks:
        try:
            check()
        except BrokerUnusable as problem:
            found.append(problem)
    return found


def _context_with_ca(ca_file: str | None) -> ssl.SSLContext:
    if ca_file is None:
        return ssl.create_default_context()
    _read("ECS_BROKER_CA_FILE", ca_file)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        problem = f"{ca_file} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
        raise BrokerUnusable("ECS_BROKER_CA_FILE", problem) from None


def _load_own_certificate(context: ssl.SSLContext, cert_file: str, key_file: str | None) -> None:
    if b"-----BEGIN CERTIFICATE-----" not in _read("ECS_BROKER_CERT_FILE", cert_file):
        problem = f"{cert_file} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
        raise BrokerUnusable("ECS_BROKER_CERT_FILE", problem)
    if key_file is None and b"PRIVATE KEY-----" not in _read("ECS_BROKER_CERT_FILE", cert_file):
        raise BrokerUnusable(
            "ECS_BROKER_KEY_FILE", f"must name the private key of the certificate in {cert_file}"
        )
    if key_file is not None and b"PRIVATE KEY-----" not in _read("ECS_BROKER_KEY_FILE", key_file):
        raise BrokerUnusable("ECS_BROKER_KEY_FILE", f"{key_file} holds no private key in PEM form")
    key = key_file or cert_file

    def asked_for_passphrase() -> str:
        # Left to itself OpenSSL would ask at the terminal, and a service would hang.
        raise BrokerUnusable(
            "ECS_BROKER_KEY_FILE", f"the key in {key} has a passphrase; store it without one"
        )

    try:
        context.load_cert_chain(cert_file, key_file, asked_for_passphrase)
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            problem = f"the key in {key} is not that of the certificate in {cert_file}"
            raise BrokerUnusable("ECS_BROKER_KEY_FILE", problem) from None
        problem = f"{cert_file} and {key} cannot be used ({error.reason or 'no PEM'})"
        raise BrokerUnusable("ECS_BROKER_CERT_FILE", problem) from None


def _read(variable: str, file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise BrokerUnusable(variable, f"{file} cannot be read: {error.strerror}") from None
    except ValueError:  # a zero byte in its name
        raise BrokerUnusable(variable, "is no file name") from None


# Errors of connections, from pika's and kombu's alike.

_LONGEST = 250
#: Where OpenSSL's own source raised it.
_SOURCE_LINE = re.compile(r" ?\(_ssl\.c:\d+\)")

_USER = "check user, password and virtual host of ECS_BROKER_URL"
_START = "start it, or set ECS_BROKER_URL"
#: What the error's text holds, and what to do then; the first that fits counts.
_ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"Hostname mismatch|IP address mismatch|doesn't match",
        "the certificate is another host's: ECS_BROKER_URL must name the broker as its certificate does",
    ),
    (
        r"certificate has expired|not yet valid",
        "the broker needs another certificate, or a clock is wrong",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "the certificate is not signed by a CA that is trusted: ECS_BROKER_CA_FILE must hold the one that signed it",
    ),
    (
        r"CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE",
        "the broker asks for a client certificate: set ECS_BROKER_CERT_FILE and ECS_BROKER_KEY_FILE",
    ),
    (
        r"ALERT_(?:UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_|UNSUPPORTED_CERTIFICATE|ACCESS_DENIED)",
        "the broker does not accept our certificate: check ECS_BROKER_CERT_FILE, and which CA the broker knows",
    ),
    (
        r"WRONG_VERSION_NUMBER|RECORD_LAYER|UNKNOWN_PROTOCOL|PACKET_LENGTH",
        "the port speaks no TLS: name the one that does (usually 5671) in ECS_BROKER_URL, or begin it with amqp://",
    ),
    (r"PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL", "the broker must offer TLS 1.2 or newer"),
    (r"ACCESS_REFUSED|NOT_ALLOWED|ProbableAuthentication|ProbableAccessDenied", _USER),
)
#: The connection ended while it was made, and nobody said why: with TLS, and without.
_CUT_OFF = re.compile(
    r"EOF occurred|reset by peer|[Bb]roken pipe|IncompatibleProtocol|unexpectedly closed|UnexpectedFrame|StreamLost"
)
_CUT_OFF_TLS = (
    "the broker ended the connection: it may ask for a client certificate, or not accept ours "
    "(ECS_BROKER_CERT_FILE, ECS_BROKER_KEY_FILE); see its log"
)
_CUT_OFF_PLAIN = "it ended the connection before it said anything: for a port with TLS ECS_BROKER_URL must begin with amqps://"
#: What a person has to mend: trying again alone does not help.
_REFUSED = re.compile(r"ACCESS_REFUSED|NOT_ALLOWED|ProbableAuthentication|ProbableAccessDenied")
_TLS_ERROR = re.compile(r"\[SSL|SSLError|SSLCertVerificationError")


@record
class Explained:
    """An error in one line, without a password, and advice. `is_refused`: the broker does not let
    the worker in.
    """

    reason: str
    advice: str
    is_refused: bool


def explain(error: BaseException | str, where: Where) -> Explained:
    """Explain an error of pika, kombu, amqp or the socket, while a connection is made or
    afterwards.
    """
    if isinstance(error, BrokerUnusable):
        return Explained(
            str(error), "put it right; it is read again at each attempt", is_refused=True
        )
    causes = _causes(error)
    text = " ".join(f"{type(one).__name__}: {one}" for one in causes)
    cut_off = _CUT_OFF_TLS if broker_at(where).endpoint.is_tls else _CUT_OFF_PLAIN
    otherwise = cut_off if _CUT_OFF.search(text) else _START
    advice = next((what for pattern, what in _ADVICE if re.search(pattern, text)), otherwise)
    is_refused = bool(_REFUSED.search(text) or _TLS_ERROR.search(text))
    # The innermost names the cause; what the libraries put around it names their classes.
    inner = next((one for one in reversed(causes) if isinstance(one, OSError)), causes[0])
    shown = _SOURCE_LINE.sub("", " ".join(str(inner).split()))[:_LONGEST]
    return Explained(shown or type(inner).__name__, advice, is_refused)


def _causes(error: BaseException | str) -> list[Any]:
    """Return the error and all that led to it, through chaining and through pika's own ways,
    outermost first.
    """
    found: list[Any] = []
    pending: list[Any] = [error]
    while pending:
        one = pending.pop(0)
        if any(one is other for other in found) or not (
            isinstance(one, BaseException) or one is error
        ):
            continue
        found.append(one)
        if isinstance(one, BaseException):
            pending += [
                one.__cause__,
                one.__context__,
                *(getattr(one, "exceptions", None) or ()),
                *one.args,
            ]
            pending.append(getattr(one, "exception", None))
    return found

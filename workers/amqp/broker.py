"""The brokers' URLs and TLS files, read in one place: pika's and kombu's connections are made from
what stands here.

Every connection over TLS checks the broker's certificate chain and host name, sends SNI, and takes
TLS 1.2 or newer. Nothing in a URL turns that off. Credentials are sent after the handshake, so
never to a peer that was not verified.
"""

import ssl
from collections.abc import Callable
from dataclasses import field
from pathlib import Path

from ecs_client.address import Brokers, Cause, Endpoint, Target, cause_of, is_refusal, targets
from ecs_client.address import read_urls as read_client_urls
from messages.record import record
from messages.tls import TlsCause, causes, without_place

#: Bytes of a secret's file that are read.
_LONGEST_SECRET = 16 * 1024


class BrokerUnusable(ValueError):
    """A URL or a file that no connection can be made with. `variable` names the setting; the text
    holds no secret.
    """

    def __init__(self, variable: str, problem: str) -> None:
        self.variable = variable
        self.problem = problem
        super().__init__(f"{variable}: {problem}")


@record
class Broker:
    """The configuration of the broker; the files are those of `ECS_BROKER_CA_FILE`, `_CERT_FILE`,
    `_KEY_FILE` and `_URL_FILE`. `url` may be several, the nodes of one cluster.
    """

    url: str = field(repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    #: Read at each connection, so that a password is changed without a restart; `url` counts where
    #: there is none.
    url_file: str | None = None

    @property
    def brokers(self) -> Brokers:
        """The URLs as they are now, read. Raises `BrokerUnusable`."""
        return Brokers(self._endpoints(), self.ca_file, self.cert_file, self.key_file)

    @property
    def is_tls(self) -> bool:
        """Tell whether the URLs ask for TLS; all do, or none. Raises `BrokerUnusable`."""
        return self._endpoints()[0].is_tls

    def targets(self) -> list[Target]:
        """Return all addresses in the order in which they are to be tried. Blocks. Raises
        `BrokerUnusable`, or `OSError` where no name can be looked up.
        """
        return targets(self._endpoints())

    def _endpoints(self) -> tuple[Endpoint, ...]:
        if self.url_file is None:
            return read_urls(self.url)
        try:
            return read_urls(read_secret(self.url_file))
        except BrokerUnusable:
            raise
        except ValueError as error:
            raise BrokerUnusable("ECS_BROKER_URL_FILE", str(error)) from None

    def tls_context(self) -> ssl.SSLContext | None:
        """Return a context with the files as they are now; None where the URL asks for no TLS.
        Raises `BrokerUnusable`.
        """
        if not self.is_tls:
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


def read_urls(text: str) -> tuple[Endpoint, ...]:
    """Read one AMQP URL or several. Raises `BrokerUnusable`, which shows nothing of them but an
    option's name.
    """
    try:
        found = read_client_urls(text)
    except ValueError as error:
        raise BrokerUnusable("ECS_BROKER_URL", str(error)) from None
    if len({one.virtual_host for one in found}) > 1:
        # The worker would consume in one and publish to the other.
        problem = "all URLs must name the same virtual host: they are the nodes of one cluster"
        raise BrokerUnusable("ECS_BROKER_URL", problem)
    return found


# The files.


def check_files(broker: Broker) -> list[BrokerUnusable]:
    """Return all that is wrong with the TLS files, each problem with its variable. The URL must be
    right.
    """
    if not broker.is_tls:
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

_ADVICE: dict[TlsCause | Cause, str] = {
    TlsCause.WRONG_NAME: (
        "the certificate is another host's: ECS_BROKER_URL must name the broker as its certificate"
        " does"
    ),
    TlsCause.EXPIRED: "the broker needs another certificate, or a clock is wrong",
    TlsCause.UNKNOWN_CA: (
        "the certificate is not signed by a CA that is trusted: ECS_BROKER_CA_FILE must hold the one"
        " that signed it"
    ),
    TlsCause.CERTIFICATE_NEEDED: (
        "the broker asks for a client certificate: set ECS_BROKER_CERT_FILE and ECS_BROKER_KEY_FILE"
    ),
    TlsCause.CERTIFICATE_REFUSED: (
        "the broker does not accept our certificate: check ECS_BROKER_CERT_FILE, and which CA the"
        " broker knows"
    ),
    TlsCause.NO_TLS: (
        "the port speaks no TLS: name the one that does (usually 5671) in ECS_BROKER_URL, or begin"
        " it with amqp://"
    ),
    TlsCause.OLD_TLS: "the broker must offer TLS 1.2 or newer",
    TlsCause.NEEDS_TLS: "ECS_BROKER_URL must begin with amqps://",
    TlsCause.FILE: "check ECS_BROKER_CA_FILE, ECS_BROKER_CERT_FILE and ECS_BROKER_KEY_FILE",
    TlsCause.OTHER: "see the broker's log",
    Cause.REFUSED: "check user, password and virtual host of ECS_BROKER_URL",
    Cause.LIMIT: "raise the limit, or look who has so many: rabbitmqctl list_connections",
    Cause.CUT_OFF_TLS: (
        "the broker ended the connection: it may ask for a client certificate, or not accept ours "
        "(ECS_BROKER_CERT_FILE, ECS_BROKER_KEY_FILE); see its log"
    ),
    Cause.CUT_OFF_PLAIN: (
        "it ended the connection before it said anything: for a port with TLS ECS_BROKER_URL must"
        " begin with amqps://"
    ),
    Cause.UNKNOWN: "start it, or set ECS_BROKER_URL",
}


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
    try:
        is_tls = broker_at(where).is_tls
    except BrokerUnusable:  # its file is being replaced; it was right when the connection was made
        is_tls = False
    cause = cause_of(error, is_tls=is_tls)
    return Explained(_innermost(error), _ADVICE[cause], is_refusal(cause))


def _innermost(error: BaseException | str) -> str:
    """Return the line that names the cause; what the libraries put around it names their classes."""
    chain = causes(error)
    said = [one for one in chain if str(one).strip()]
    inner = next(
        (one for one in reversed(said) if isinstance(one, OSError)),
        next(
            (one for one in reversed(said) if getattr(one, "reply_text", None)),
            said[-1] if said else chain[0],
        ),
    )
    return without_place(str(inner))[:_LONGEST] or type(inner).__name__

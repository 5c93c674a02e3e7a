"""Reading of TLS errors, the same for the broker, the journal and the cloud: why a connection is not
made, from the texts of OpenSSL, Python's `ssl`, PostgreSQL's libpq, and servers that answer in plain.
"""

import re
from enum import StrEnum
from typing import Any


class TlsCause(StrEnum):
    """The reason for which TLS fails. Trying again alone helps with none."""

    WRONG_NAME = "wrong name"
    EXPIRED = "expired"
    UNKNOWN_CA = "unknown CA"
    CERTIFICATE_NEEDED = "client certificate needed"
    CERTIFICATE_REFUSED = "client certificate refused"
    NO_TLS = "no TLS there"
    NEEDS_TLS = "TLS needed"
    OLD_TLS = "old TLS"
    FILE = "file of TLS"
    OTHER = "TLS failed"


#: What the error's text holds; the first that fits counts.
_SIGNS: tuple[tuple[str, TlsCause], ...] = (
    # libpq names the host that it wanted.
    (
        r"Hostname mismatch|IP address mismatch|doesn't match|does not match host name",
        TlsCause.WRONG_NAME,
    ),
    (r"certificate has expired|not yet valid", TlsCause.EXPIRED),
    (r"CERTIFICATE_VERIFY_FAILED|SSL error: certificate verify failed", TlsCause.UNKNOWN_CA),
    (
        r"CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE"
        r"|SSL error: (?:tlsv13 alert certificate required|sslv3 alert handshake failure)"
        r"|requires a valid client certificate|No required SSL certificate was sent",
        TlsCause.CERTIFICATE_NEEDED,
    ),
    (
        r"ALERT_(?:UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_|UNSUPPORTED_CERTIFICATE|ACCESS_DENIED)"
        r"|SSL error: \w+ alert (?:unknown ca|bad certificate|certificate|unsupported certificate"
        r"|access denied)|certificate authentication failed|The SSL certificate error",
        TlsCause.CERTIFICATE_REFUSED,
    ),
    (
        r"WRONG_VERSION_NUMBER|RECORD_LAYER|UNKNOWN_PROTOCOL|PACKET_LENGTH"
        r"|server does not support SSL",
        TlsCause.NO_TLS,
    ),
    (
        # PostgreSQL, Apache, nginx, Go.
        r"no pg_hba\.conf entry for .*, no encryption|plain HTTP to an SSL-enabled server port"
        r"|plain HTTP request was sent to HTTPS port|an HTTP request to an HTTPS server",
        TlsCause.NEEDS_TLS,
    ),
    (r"PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL|alert protocol version", TlsCause.OLD_TLS),
    (
        r"\[X509[:\]]|TLS CA certificate bundle|TLS certificate file|TLS key file"
        r"|(?:root )?certificate file \"|certificate present, but not private key|private key file \"",
        TlsCause.FILE,
    ),
)
#: Errors of which no more is known.
_OF_TLS = re.compile(r"\[SSL[:\]]|SSLError|SSLCertVerificationError|SSL error: ")
#: OpenSSL calls a connection that breaks an error, too.
_BROKEN = re.compile(
    r"EOF occurred|reset by peer|[Bb]roken pipe|closed connection without response"
    r"|closed before the answer|unexpected eof"
)
#: Where OpenSSL's own source raised it.
_SOURCE_LINE = re.compile(r" ?\(_ssl\.c:\d+\)")
#: What libraries quote of OpenSSL.
_OF_OPENSSL = re.compile(r"\[(?:SSL|X509)(?:: [^\]]*)?\][^'\"()]*(?:'[^'\"()]*'[^'\"()]*)?")


def causes(error: BaseException | str) -> list[Any]:
    """Return an error and all that led to it, through chaining and through the libraries' own ways
    (pika's `exception`, urllib3's `reason`), outermost first.
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
                getattr(one, "exception", None),
                getattr(one, "reason", None),
            ]
    return found


def text_of(error: BaseException | str) -> str:
    """Return the names and texts of an error and of all that led to it."""
    return " ".join(f"{type(one).__name__}: {one}" for one in causes(error))


def tls_cause_of(error: BaseException | str) -> TlsCause | None:
    """Return why TLS fails; None where it is not TLS, or the connection merely ended."""
    text = text_of(error)
    for sign, cause in _SIGNS:
        if re.search(sign, text):
            return cause
    return TlsCause.OTHER if _OF_TLS.search(text) and not _BROKEN.search(text) else None


def is_cut_off(error: BaseException | str) -> bool:
    """Return True where the connection ended and nobody said why: with TLS a server may have ended
    it that asks for a client certificate, and without TLS one that wants it.
    """
    return _BROKEN.search(text_of(error)) is not None


def without_place(text: str) -> str:
    """Return what OpenSSL said of a library's text, without the place in its source; else the
    text.
    """
    shown = _SOURCE_LINE.sub("", " ".join(text.split()))
    quoted = _OF_OPENSSL.search(shown)
    return quoted[0].strip(" .") if quoted is not None else shown


def innermost(error: BaseException) -> str:
    """Return the line that names the cause; what libraries put around it names their classes."""
    texts = [str(one) for one in causes(error) if isinstance(one, BaseException) and str(one)]
    quoting = [one for one in texts if _OF_OPENSSL.search(one)]
    return without_place((quoting or texts or [type(error).__name__])[-1])

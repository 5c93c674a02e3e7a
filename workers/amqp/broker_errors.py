"""Why a connection to the broker could not be made, and what to do about it, from pika's and
kombu's errors alike.
"""

import re
from dataclasses import dataclass
from typing import Any

from workers.amqp.broker import BrokerUnusable, Where, broker_at

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
_OF_TLS = re.compile(r"\[SSL|SSLError|SSLCertVerificationError")


@dataclass(frozen=True, slots=True)
class Explained:
    """An error in one line, without a password, and what to do. `is_refused`: the broker does not
    let us in.
    """

    reason: str
    advice: str
    is_refused: bool


def explain(error: BaseException | str, where: Where) -> Explained:
    """Whatever pika, kombu, amqp or the socket raise while a connection is made, or afterwards."""
    if isinstance(error, BrokerUnusable):
        return Explained(
            str(error), "put it right; it is read again at each attempt", is_refused=True
        )
    causes = _causes(error)
    text = " ".join(f"{type(one).__name__}: {one}" for one in causes)
    cut_off = _CUT_OFF_TLS if broker_at(where).endpoint.is_tls else _CUT_OFF_PLAIN
    otherwise = cut_off if _CUT_OFF.search(text) else _START
    advice = next((what for pattern, what in _ADVICE if re.search(pattern, text)), otherwise)
    is_refused = bool(_REFUSED.search(text) or _OF_TLS.search(text))
    # The innermost names the cause; what the libraries put around it names their classes.
    inner = next((one for one in reversed(causes) if isinstance(one, OSError)), causes[0])
    shown = _SOURCE_LINE.sub("", " ".join(str(inner).split()))[:_LONGEST]
    return Explained(shown or type(inner).__name__, advice, is_refused)


def _causes(error: BaseException | str) -> list[Any]:
    """The error and all that led to it, through chaining and through pika's own ways, outermost
    first.
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

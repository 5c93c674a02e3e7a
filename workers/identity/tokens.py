"""JSON Web Tokens (RFC 7519): what one proves, once its signature is verified.

Nothing that a token brings along says what it is to be verified with: the algorithms are ours, the
keys are those of the configured set, and a header that points to others, or asks for extensions,
ends it.
"""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from messages.errors import Refused
from messages.fields import MAX_NAME
from messages.wire import decode
from workers.identity.jwks import ALGORITHMS, MAX_KID, VerifyingKey
from workers.identity.requester import NotProven

#: Characters of a token. Keycloak's have two to six thousand.
MAX_TOKEN = 16 * 1024
#: Seconds by which the clocks of issuer, publisher and worker may differ.
LEEWAY = 60.0
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_BEARER = re.compile(r"bearer\s+", re.IGNORECASE | re.ASCII)
#: Header parameters by which a token would choose its own key, or the rules.
_NOT_FOLLOWED = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip"})


@dataclass(frozen=True, slots=True)
class Expected:
    """Requirements on a token; None where something is not looked at."""

    issuer: str | None
    audience: str | None
    tenant_claim: str
    #: Seconds after its `exp` within which a token may count because its message waited.
    grace: float = 86400.0


@dataclass(frozen=True, slots=True)
class Header:
    """What is needed to find the key."""

    algorithm: str
    kid: str | None


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says. Times are Unix seconds; None where it does not say them."""

    subject: str
    tenant: str
    expires: float
    not_before: float | None
    issued: float | None


def bare(token: str | None) -> str:
    """The token without `Bearer `, or `NotProven` where it is none or too long; before anything of
    it is decoded.
    """
    if not token or not token.strip():
        raise NotProven("there is no token")
    if len(token) > MAX_TOKEN:
        raise NotProven("the token is too long")
    found = token.strip()
    prefix = _BEARER.match(found)
    return found[prefix.end() :] if prefix is not None else found


def read_header(token: str) -> Header:
    """The header of a token that is still to be verified, or `NotProven`."""
    if not _COMPACT.fullmatch(token):
        raise NotProven("the token is no signed JWT")
    header = _object(token.partition(".")[0], "header")
    if found := _NOT_FOLLOWED & header.keys():
        raise NotProven(f"the token's header has {', '.join(sorted(found))}")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise NotProven("the token's algorithm is not one of ours")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= MAX_KID):
        raise NotProven("the token's key id is no text")
    return Header(algorithm, kid)


def verify(token: str, header: Header, keys: Sequence[VerifyingKey], expected: Expected) -> Claims:
    """What a token says, once one of these keys has verified its signature; `NotProven` where none
    does.
    """
    if not keys:
        raise NotProven("the token's key is not in the key set")
    registry = _REGISTRIES[header.algorithm]
    for key in keys:
        try:
            payload = jws.deserialize_compact(token, key.key, registry=registry).payload
        except (JoseError, ValueError, TypeError):
            continue
        return read_claims(payload or b"", expected)
    raise NotProven("the token's signature is not that of its key")


def read_claims(payload: bytes, expected: Expected) -> Claims:
    """What a payload says, or `NotProven` where that is not what is expected. Times are not judged
    yet.
    """
    claims = _json(payload, "payload")
    # A refresh token, an id token, a log-out token are signed with the same key, and open nothing.
    if claims.get("typ", "Bearer") != "Bearer":
        raise NotProven("the token is of another type than Bearer")
    if expected.issuer is not None and claims.get("iss") != expected.issuer:
        raise NotProven("the token is of another issuer")
    if expected.audience is not None and expected.audience not in _audiences(claims):
        raise NotProven("the token is for another audience")
    expires, issued = _time(claims, "exp"), _time(claims, "iat")
    if expires is None:
        raise NotProven("the token has no exp")
    if issued is not None and issued >= expires:
        raise NotProven("the token was over before it was issued")
    return Claims(
        subject=_name(claims, "sub"),
        tenant=_name(claims, expected.tenant_claim),
        expires=expires,
        not_before=_time(claims, "nbf"),
        issued=issued,
    )


def is_over(claims: Claims, instant: float) -> bool:
    """Whether the token had expired at this instant."""
    return instant >= claims.expires + LEEWAY


def is_too_early(claims: Claims, instant: float) -> bool:
    """Whether the token did not count yet at this instant, or was not even there."""
    return max(claims.not_before or 0.0, claims.issued or 0.0) > instant + LEEWAY


def _registry(algorithm: str) -> JWSRegistry:
    # Parameters that it does not know are no reason to refuse; those that matter have been looked
    # at.
    registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    registry.max_header_length = registry.max_signature_length = MAX_TOKEN
    return registry


_REGISTRIES = {algorithm: _registry(algorithm) for algorithm in ALGORITHMS}


def _object(part: str, name: str) -> dict[str, Any]:
    try:
        return _json(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), name)
    except ValueError:
        raise NotProven(f"the token's {name} is no base64url") from None


def _json(text: bytes, name: str) -> dict[str, Any]:
    try:
        return decode(text, None, None)
    except Refused:
        raise NotProven(f"the token's {name} is no JSON object") from None


def _audiences(claims: Mapping[str, Any]) -> list[Any]:
    audience = claims.get("aud")
    return audience if isinstance(audience, list) else [audience]


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise NotProven(f"the token's {name} is no time")
    return float(value)


def _name(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if (
        not isinstance(value, str)
        or not value.strip()
        or len(value) > MAX_NAME
        or not value.isprintable()
    ):
        raise NotProven(f"the token has no {name}")
    return value

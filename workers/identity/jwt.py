"""JSON Web Tokens (RFC 7519): header, signature and claims.

Nothing in a token decides how it is verified: the algorithms are fixed, the keys are those of the
configured set, and a header that names other keys, or asks for extensions, is rejected.
"""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from joserfc import jws
from joserfc.errors import ClaimError, ExpiredTokenError, JoseError
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from messages.errors import Refused
from messages.fields import MAX_NAME
from messages.record import record
from messages.wire import decode
from workers.identity.jwks import ALGORITHMS, MAX_KID, VerifyingKey
from workers.identity.requester import NotProven

#: Characters of a token. Keycloak's have two to six thousand.
MAX_TOKEN = 16 * 1024
#: Seconds by which the clocks of issuer, publisher and worker may differ.
LEEWAY = 60
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_BEARER = re.compile(r"bearer\s+", re.IGNORECASE | re.ASCII)
#: Header parameters by which a token would choose its own key, or other rules.
_FORBIDDEN = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip"})


@record
class Expected:
    """Requirements on a token; `issuer` and `audience` are not checked where they are None.

    `tenant_claim` names the claim that holds the tenant; None: the token is an operator's, who acts
    for no tenant, and `Claims.tenant` is empty. `grace` is the number of seconds after
    its `exp` for which a token is accepted, because its message waited in a queue.
    """

    issuer: str | None
    audience: str | None
    tenant_claim: str | None
    grace: float = 86400.0


@record
class Header:
    """The part of a token's header by which its key is found."""

    algorithm: str
    kid: str | None


@record
class Claims:
    """Claims of a verified token. Times are Unix seconds, or None where the token has none.

    `roles` are those of `realm_access.roles`, `username` is `preferred_username`; both are read of
    an operator's token alone.
    """

    subject: str
    tenant: str
    expires: float
    not_before: float | None
    issued: float | None
    roles: frozenset[str] = frozenset()
    username: str | None = None


class Expired(NotProven):
    """A token that is valid but for its age; the text says which limit it has passed."""

    def __init__(self, claims: Claims, why: str) -> None:
        self.claims = claims
        super().__init__(why)


def bare(token: str | None) -> str:
    """Return the token without `Bearer `. Raises `NotProven` where there is none, or it is too
    long, before any of it is decoded.
    """
    if not token or not token.strip():
        raise NotProven("there is no token")
    if len(token) > MAX_TOKEN:
        raise NotProven("the token is too long")
    found = token.strip()
    prefix = _BEARER.match(found)
    return found[prefix.end() :] if prefix is not None else found


def read_header(token: str) -> Header:
    """Return the header of a token that is not verified yet. Raises `NotProven`."""
    if not _COMPACT.fullmatch(token):
        raise NotProven("the token is no signed JWT")
    header = _object(token.partition(".")[0], "header")
    if found := _FORBIDDEN & header.keys():
        raise NotProven(f"the token's header has {', '.join(sorted(found))}")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise NotProven("the token's algorithm is not one of ours")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= MAX_KID):
        raise NotProven("the token's key id is no text")
    return Header(algorithm, kid)


def verify(token: str, header: Header, keys: Sequence[VerifyingKey], expected: Expected) -> Claims:
    """Return the claims of a token whose signature one of these keys verifies. Raises `NotProven`."""
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
    """Return the claims of a payload. Raises `NotProven` where they are not what is expected; times
    are not compared yet.
    """
    claims = _json(payload, "payload")
    # Refresh, id and log-out tokens are signed with the same key, and authorize nothing.
    if claims.get("typ", "Bearer") != "Bearer":
        raise NotProven("the token is of another type than Bearer")
    registry = JWTClaimsRegistry()
    for name, value in (("iss", expected.issuer), ("aud", expected.audience)):
        if value is not None:
            registry.options[name] = {"essential": True, "value": value}
    try:
        registry.validate({name: claims.get(name) for name in registry.options})
    except ClaimError as error:
        other = "another issuer" if error.claim == "iss" else "another audience"
        raise NotProven(f"the token is of {other}") from None
    expires, issued = _time(claims, "exp"), _time(claims, "iat")
    if expires is None:
        raise NotProven("the token has no exp")
    if issued is not None and issued >= expires:
        raise NotProven("the token was over before it was issued")
    tenant = expected.tenant_claim
    return Claims(
        subject=_name(claims, "sub"),
        tenant=_name(claims, tenant) if tenant is not None else "",
        expires=expires,
        not_before=_time(claims, "nbf"),
        issued=issued,
        roles=_roles(claims) if tenant is None else frozenset(),
        username=_username(claims) if tenant is None else None,
    )


def unverified_subject(token: str | None) -> str:
    """Return the `sub` of a token that is not verified: it proves nothing. Raises `NotProven` where
    it can be no token.
    """
    found = bare(token)
    _ = read_header(found)
    return _name(_object(found.split(".")[1], "payload"), "sub")


def check_times(claims: Claims, instant: float) -> None:
    """Raise `Expired`, or `NotProven` for a token that was not valid yet, at an instant (Unix
    seconds, of which a part counts as a whole one).
    """
    times = {"nbf": claims.not_before, "iat": claims.issued, "exp": claims.expires}
    try:
        JWTClaimsRegistry(now=math.ceil(instant), leeway=LEEWAY).validate(
            {name: value for name, value in times.items() if value is not None}
        )
    except ExpiredTokenError:
        raise Expired(claims, "the token had expired when the message was published") from None
    except ClaimError:
        raise NotProven("the token did not count yet when the message was published") from None


def _registry(algorithm: str) -> JWSRegistry:
    # Unknown header parameters are accepted; those that matter have been checked before.
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


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise NotProven(f"the token's {name} is no time")
    return float(value)


def _roles(claims: Mapping[str, Any]) -> frozenset[str]:
    """Return the roles; none where the claim is of another shape, which proves no role."""
    access = claims.get("realm_access")
    listed = access.get("roles") if isinstance(access, dict) else None
    if not isinstance(listed, list):
        return frozenset()
    return frozenset(one for one in listed if isinstance(one, str) and len(one) <= MAX_NAME)


def _username(claims: Mapping[str, Any]) -> str | None:
    try:
        return _name(claims, "preferred_username")
    except NotProven:
        return None


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

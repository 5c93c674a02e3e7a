"""JSON Web Key Sets (RFC 7517): the keys of one that tokens may be verified with."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from messages.errors import Refused
from messages.record import record
from messages.wire import decode
from workers.identity.jwks_source import KeySetError

#: Accepted signature algorithms, by the type of key that they need.
_RSA, _EC = frozenset({"RS256", "RS384", "RS512", "PS256"}), frozenset({"ES256"})
ALGORITHMS = _RSA | _EC
#: Bits of an RSA key: shorter ones are insecure, longer ones cost too much.
_LEAST_BITS, _MOST_BITS = 2048, 8192
#: Keys of a set.
MAX_KEYS = 100
MAX_KID = 255


@record
class VerifyingKey:
    """A public key with its id (or None) and the algorithms that it may be used with."""

    kid: str | None
    algorithms: frozenset[str]
    #: Its parameters, by which two keys are compared.
    public: Mapping[str, str]
    key: RSAKey | ECKey = field(compare=False, repr=False)


def usable_keys(document: bytes) -> tuple[VerifyingKey, ...]:
    """Return the keys of a set that may verify a signature; all others are ignored (encryption
    keys, other curves, symmetric keys).

    Raises `KeySetError` where the document is no key set, or has no such key.
    """
    try:
        listed = decode(document, None, None).get("keys")
    except Refused as refused:
        raise KeySetError(f"the key set cannot be read: {refused.detail}") from None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise KeySetError(f"the key set has no list of at most {MAX_KEYS} keys")
    found = tuple(key for one in listed if (key := _usable(one)) is not None)
    if not found:
        raise KeySetError(
            f"of the {len(listed)} keys of the set none can verify {', '.join(sorted(ALGORITHMS))}"
        )
    return found


def _usable(described: Any) -> VerifyingKey | None:
    if not isinstance(described, dict) or not _is_for_signatures(described):
        return None
    algorithms, parameters = _kind(described)
    if "alg" in described:
        algorithms &= {described["alg"]} if isinstance(described["alg"], str) else set()
    kid = described.get("kid")
    if not algorithms or not (kid is None or (isinstance(kid, str) and 0 < len(kid) <= MAX_KID)):
        return None
    # A private part, should somebody have published one, is not taken along.
    public = {name: value for name in parameters if isinstance(value := described.get(name), str)}
    if len(public) != len(parameters):
        return None
    key = _imported(public)
    return VerifyingKey(kid, frozenset(algorithms), public, key) if key is not None else None


def _is_for_signatures(described: Mapping[str, Any]) -> bool:
    operations = described.get("key_ops", ["verify"])
    return (
        described.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
    )


def _kind(described: Mapping[str, Any]) -> tuple[frozenset[str], tuple[str, ...]]:
    """The algorithms of a type of key, and the names of its public parameters."""
    if described.get("kty") == "RSA":
        return _RSA, ("kty", "n", "e")
    if described.get("kty") == "EC" and described.get("crv") == "P-256":
        return _EC, ("kty", "crv", "x", "y")
    return frozenset(), ()


def _imported(public: Mapping[str, str]) -> RSAKey | ECKey | None:
    parameters: dict[str, str | list[str]] = {**public}
    try:
        if public["kty"] == "EC":
            return ECKey.import_key(parameters)
        key = RSAKey.import_key(parameters)
        return key if _LEAST_BITS <= key.public_key.key_size <= _MOST_BITS else None
    except (JoseError, ValueError, TypeError):
        return None

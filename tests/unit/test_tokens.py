"""Tests what a token proves, and every way in which it does not."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from messages.codes import Code
from sandbox.issuer import USER, Issuer, KeySetServer
from tests.support.envelopes import envelope
from workers.identity.jwks_source import FileSource, UrlSource
from workers.identity.jwt import (
    LEEWAY,
    MAX_TOKEN,
    Claims,
    Expected,
    Expired,
    bare,
    read_claims,
    read_header,
)
from workers.identity.key_set import FetchTimes, KeySet
from workers.identity.requester import NotProven
from workers.identity.token_authentication import TokenCache, TokenVerifier, published_at

NOW = time.time()
ANYBODY = Expected(None, None, "project")


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
def key_set(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return issuer.write(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture
def verifier(key_set: Path, issuer: Issuer) -> TokenVerifier:
    return TokenVerifier(
        KeySet(FileSource(str(key_set))), Expected(issuer.name, "client-gaoss", "project")
    )


async def refused(
    verifier: TokenVerifier, token: str | None, user: str | None = USER, published: float = 0.0
) -> str:
    """Tell why it is refused; with the one code and without a reason that would help a forger."""
    with pytest.raises(NotProven) as caught:
        await verifier.verify(token, user, published or time.time())
    assert (caught.value.code, caught.value.reason, caught.value.data) == (
        Code.IDENTITY,
        None,
        None,
    )
    if token and len(token) > 20:
        assert token[-20:] not in str(caught.value)
    return str(caught.value)


# What is right.


async def test_a_token_of_keycloak_proves_user_and_tenant(
    verifier: TokenVerifier, issuer: Issuer
) -> None:
    claims = await verifier.verify(issuer.token(), USER, time.time())
    assert (claims.subject, claims.tenant, claims.not_before) == (USER, "gaoss", 0.0)


@pytest.mark.parametrize("prefix", ["Bearer ", "bearer ", "BEARER  ", "  Bearer ", " "])
async def test_bearer_may_stand_before_it(
    verifier: TokenVerifier, issuer: Issuer, prefix: str
) -> None:
    assert (
        await verifier.verify(f"{prefix}{issuer.token()}\n", USER, time.time())
    ).tenant == "gaoss"


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "ES256"])
async def test_each_algorithm_of_ours_counts(tmp_path: Path, algorithm: str) -> None:
    issuer = Issuer()
    issuer.rotate("EC" if algorithm == "ES256" else "RSA")
    document = json.loads(issuer.key_set())
    for key in document["keys"]:
        del key["alg"]
    (tmp_path / "keys.json").write_text(json.dumps(document))
    verifier = TokenVerifier(KeySet(FileSource(str(tmp_path / "keys.json"))), ANYBODY)
    token = issuer.token(header={"alg": algorithm})
    assert (await verifier.verify(token, USER, time.time())).subject == USER


async def test_claims_that_are_not_asked_for_may_be_missing(key_set: Path, issuer: Issuer) -> None:
    verifier = TokenVerifier(KeySet(FileSource(str(key_set))), ANYBODY)
    token = issuer.token(typ=None, nbf=None, iat=None, iss=None, aud=None)
    assert (await verifier.verify(token, USER, time.time())).tenant == "gaoss"


@pytest.mark.parametrize("audience", ["client-gaoss", ["client-gaoss"], ["a", "client-gaoss"]])
async def test_an_audience_is_a_text_or_a_list(
    verifier: TokenVerifier, issuer: Issuer, audience: Any
) -> None:
    assert await verifier.verify(issuer.token(aud=audience), USER, time.time())


async def test_another_claim_may_name_the_tenant(key_set: Path, issuer: Issuer) -> None:
    verifier = TokenVerifier(KeySet(FileSource(str(key_set))), Expected(None, None, "tenant"))
    assert (await verifier.verify(issuer.token(tenant="t-1"), USER, time.time())).tenant == "t-1"
    assert "has no tenant" in await refused(verifier, issuer.token())


async def test_a_key_without_id_is_used_where_there_is_no_other(tmp_path: Path) -> None:
    issuer = Issuer()
    document = json.loads(issuer.key_set())
    for key in document["keys"]:
        del key["kid"]
    (tmp_path / "keys.json").write_text(json.dumps(document))
    verifier = TokenVerifier(KeySet(FileSource(str(tmp_path / "keys.json"))), ANYBODY)
    assert await verifier.verify(issuer.token(header={"kid": None}), USER, time.time())
    assert "not in the key set" in await refused(verifier, issuer.token())


async def test_a_token_without_key_id_is_nobodys_where_there_are_several_keys(
    tmp_path: Path,
) -> None:
    issuer = Issuer()
    issuer.rotate()
    verifier = TokenVerifier(KeySet(FileSource(str(issuer.write(tmp_path / "keys.json")))), ANYBODY)
    assert await verifier.verify(issuer.token(), USER, time.time())
    assert "not in the key set" in await refused(verifier, issuer.token(header={"kid": None}))


# Attacks: how it is signed.


def encoded(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def altered(token: str, **claims: Any) -> str:
    header, payload, signature = token.split(".")
    said = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return ".".join([header, encoded(said | claims), signature])


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", ""])
async def test_alg_none_is_refused(verifier: TokenVerifier, issuer: Issuer, name: str) -> None:
    header, payload = (
        encoded({"alg": name, "typ": "JWT", "kid": issuer.kid}),
        encoded(issuer.claims()),
    )
    for signature in ("", "x", issuer.token().split(".")[2]):
        await refused(verifier, f"{header}.{payload}.{signature}")


@pytest.mark.parametrize("size", ["256", "384", "512"])
async def test_hs256_with_the_public_key_is_refused(
    verifier: TokenVerifier, issuer: Issuer, size: str
) -> None:
    """The public key is known to all; whoever takes it for a shared secret believes all."""
    public = issuer.keys[issuer.kid].public_key
    secrets = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        issuer.key_set(),
        b"",
    ]
    signed = f"{encoded({'alg': f'HS{size}', 'typ': 'JWT', 'kid': issuer.kid})}.{encoded(issuer.claims())}"
    for secret in secrets:
        signature = hmac.new(secret, signed.encode(), getattr(hashlib, f"sha{size}")).digest()
        assert "algorithm" in await refused(verifier, f"{signed}.{encoded(signature)}")


@pytest.mark.parametrize(
    "algorithm", ["ES256", "ES384", "ES512", "EdDSA", "PS384", "PS512", "RS1", "rs256", "RSA1_5"]
)
async def test_an_algorithm_that_is_not_the_keys_is_refused(
    verifier: TokenVerifier, issuer: Issuer, algorithm: str
) -> None:
    _, payload, signature = issuer.token().split(".")
    header = encoded({"alg": algorithm, "typ": "JWT", "kid": issuer.kid})
    await refused(verifier, f"{header}.{payload}.{signature}")


async def test_a_key_is_used_with_its_own_algorithm_only(
    verifier: TokenVerifier, issuer: Issuer
) -> None:
    """The set says RS256 of it."""
    assert "not in the key set" in await refused(verifier, issuer.token(header={"alg": "PS256"}))


async def test_an_unknown_key_is_refused(verifier: TokenVerifier) -> None:
    assert "not in the key set" in await refused(verifier, Issuer().token())


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../etc/passwd",
        "/dev/null",
        "file:///etc/passwd",
        "http://127.0.0.1:1/keys",
        "' OR 1=1 --",
        "a\x00b",
        "${jndi:ldap://x}",
        "k" * 256,
        "",
        1,
        None,
        ["a"],
        {"a": 1},
        True,
    ],
)
async def test_a_key_id_is_compared_and_nothing_else(
    issuer: Issuer, tmp_path: Path, kid: Any
) -> None:
    """A second key keeps the one without id from being the only one."""
    two = Issuer()
    two.rotate()
    verifier = TokenVerifier(KeySet(FileSource(str(two.write(tmp_path / "keys.json")))), ANYBODY)
    header = encoded({"alg": "RS256", "typ": "JWT", "kid": kid})
    _, payload, signature = two.token().split(".")
    await refused(verifier, f"{header}.{payload}.{signature}")


async def test_another_issuers_key_of_the_same_id_is_refused(
    verifier: TokenVerifier, issuer: Issuer
) -> None:
    forger = Issuer(issuer.name)
    token = forger.token(header={"kid": issuer.kid})
    assert "signature" in await refused(verifier, token)


@pytest.mark.parametrize("by_the_issuer", [True, False])
async def test_what_a_header_points_to_is_not_followed(
    issuer: Issuer, tmp_path: Path, by_the_issuer: bool
) -> None:
    verifier = TokenVerifier(KeySet(FileSource(str(issuer.write(tmp_path / "keys.json")))), ANYBODY)
    forger = Issuer()
    signer = issuer if by_the_issuer else forger
    with KeySetServer(forger) as server:
        for header in (
            {"jku": server.url},
            {"x5u": server.url},
            {"jwk": forger.keys[forger.kid].as_dict(private=False)},
            {"x5c": ["MIIB"]},
            {"crit": ["exp"], "exp": 1},
            {"crit": ["b64"], "b64": True},
            {"crit": []},
            {"zip": "DEF"},
        ):
            signed = f"{encoded({'alg': 'RS256', 'typ': 'JWT', 'kid': signer.kid} | header)}.{encoded(signer.claims())}"
            token = f"{signed}.{encoded(signer.sign(signed.encode()))}"
            assert "header has" in await refused(verifier, token)
        assert server.asked == []


@pytest.mark.parametrize(
    "claims", [{"sub": "somebody"}, {"project": "tenant-b"}, {"exp": 2**40}, {}]
)
async def test_an_altered_payload_is_refused(
    verifier: TokenVerifier, issuer: Issuer, claims: dict[str, Any]
) -> None:
    token = issuer.token(jti="1")
    other = altered(token, **claims | {"jti": "2"})
    assert "signature" in await refused(verifier, other, claims.get("sub", USER))
    # Neither does a token that was verified before lend its signature.
    assert await verifier.verify(token, USER, time.time())
    assert "signature" in await refused(verifier, other, claims.get("sub", USER))


async def test_an_altered_signature_is_refused(verifier: TokenVerifier, issuer: Issuer) -> None:
    token = issuer.token()
    assert await verifier.verify(token, USER, time.time())
    for altered_one in (token[:-1], token[:-4] + "AAAA", token + "AAAA"):
        await refused(verifier, altered_one)


async def test_300_kilobytes_are_refused_before_anything_is_decoded(
    verifier: TokenVerifier, issuer: Issuer
) -> None:
    assert "too long" in await refused(verifier, issuer.token(padding="x" * 300_000))
    assert "too long" in await refused(verifier, "a" * (MAX_TOKEN + 1))
    roles = [f"role-{number}" for number in range(800)]
    assert await verifier.verify(issuer.token(realm_access={"roles": roles}), USER, time.time()), (
        "ten thousand are not"
    )


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "  ",
        "Bearer",
        "Bearer ",
        "***",
        "Bearer ***",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "a.b.c.d.e",
        "..",
        "eyJ.eyJ.x",
        "é.é.é",
        "a b.c.d",
        "{}.{}.{}",
        "Basic dXNlcjpwYXNz",
        '{"payload": "", "signatures": []}',
        "a\n.b.c",
        "a.b.c==",
    ],
)
async def test_what_is_no_token_is_refused(verifier: TokenVerifier, token: str | None) -> None:
    await refused(verifier, token)


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"[]",
        b"null",
        b'"RS256"',
        b'{"alg": "RS256", "alg": "none"}',
        b'{"alg": ["RS256"]}',
        b'{"alg": null}',
        b"{}",
        b'{"alg": NaN}',
        b"\xff\xfe",
        b'{"alg":' + b"[" * 50 + b"]" * 50 + b"}",
    ],
)
async def test_a_header_that_is_none_is_refused(
    verifier: TokenVerifier, issuer: Issuer, header: bytes
) -> None:
    _, payload, signature = issuer.token().split(".")
    await refused(verifier, f"{encoded(header)}.{payload}.{signature}")


# Attacks: what it says.


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://iam.example/auth/realms/other"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"iss": ["https://iam.example/auth/realms/picp"]}, "issuer"),
        ({"aud": "account"}, "audience"),
        ({"aud": ["account", "client-gaoss2"]}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": {"client-gaoss": 1}}, "audience"),
        ({"aud": [["client-gaoss"]]}, "audience"),
        ({"typ": "Refresh"}, "type"),
        ({"typ": "ID"}, "type"),
        ({"typ": "Offline"}, "type"),
        ({"typ": "Logout"}, "type"),
        ({"typ": "bearer"}, "type"),
        ({"typ": ["Bearer"]}, "type"),
        ({"typ": ""}, "type"),
        ({"exp": None}, "exp"),
        ({"exp": "4102444800"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": [4102444800]}, "exp"),
        ({"nbf": "0"}, "nbf"),
        ({"nbf": False}, "nbf"),
        ({"iat": "now"}, "iat"),
        ({"iat": 4102444900, "exp": 4102444800}, "over before it was issued"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "sub"),
        ({"sub": [USER]}, "sub"),
        ({"project": None}, "project"),
        ({"project": ""}, "project"),
        ({"project": "  "}, "project"),
        ({"project": ["gaoss"]}, "project"),
        ({"project": {"id": "gaoss"}}, "project"),
        ({"project": "g" * 256}, "project"),
        ({"project": "gao\nss"}, "project"),
    ],
)
async def test_a_token_that_says_the_wrong_thing_is_refused(
    verifier: TokenVerifier, issuer: Issuer, claims: dict[str, Any], why: str
) -> None:
    assert why in await refused(verifier, issuer.token(**claims))


@pytest.mark.parametrize("user", [None, "", "somebody", USER.upper(), f" {USER}", USER[:-1]])
async def test_a_token_of_another_user_is_refused(
    verifier: TokenVerifier, issuer: Issuer, user: str | None
) -> None:
    token = issuer.token()
    assert await verifier.verify(token, USER, time.time())
    assert "user" in await refused(verifier, token, user)


@pytest.mark.parametrize(
    ("claims", "published", "why"),
    [
        ({"exp": NOW - LEEWAY, "iat": NOW - 900}, NOW, "expired"),
        ({"exp": NOW - LEEWAY + 1, "iat": NOW - 900}, NOW, None),
        ({"exp": NOW - 3600, "iat": NOW - 7200}, NOW, "expired"),
        ({"exp": NOW - 3600, "iat": NOW - 7200}, NOW - 3700, None),
        ({"exp": NOW - 3600, "iat": NOW - 7200}, NOW - 3600 + LEEWAY - 1, None),
        ({"exp": NOW - 3600, "iat": NOW - 7200}, NOW - 3600 + LEEWAY, "expired"),
        ({"exp": 0, "iat": None}, NOW, "expired"),
        ({"exp": -1, "iat": None}, NOW, "expired"),
        ({"nbf": NOW + LEEWAY - 1}, NOW, None),
        ({"nbf": NOW + LEEWAY + 1}, NOW, "did not count yet"),
        ({"nbf": NOW + 10**9}, NOW, "did not count yet"),
        ({"iat": NOW + LEEWAY + 1}, NOW, "did not count yet"),
        ({"iat": NOW + LEEWAY - 1}, NOW, None),
        # Published, so the message says, before there was the token.
        ({"iat": NOW - 100, "exp": NOW - 90}, NOW - 3600, "did not count yet"),
    ],
    ids=count(1),  # the instants differ between the processes that run the tests
)
async def test_a_token_counts_at_the_instant_of_publishing(
    verifier: TokenVerifier,
    issuer: Issuer,
    claims: dict[str, Any],
    published: float,
    why: str | None,
) -> None:
    # Issued when the instants were chosen: until the test is run a minute may have gone by.
    token = issuer.token(**{"iat": NOW - 1, "exp": NOW + 300} | claims)
    for _ in range(2):  # whether or not it is remembered
        if why is None:
            assert await verifier.verify(token, USER, published)
        else:
            assert why in await refused(verifier, token, USER, published)


async def test_what_had_expired_is_told_apart(verifier: TokenVerifier, issuer: Issuer) -> None:
    """For who was verified when the message first came."""
    with pytest.raises(Expired) as caught:
        await verifier.verify(issuer.token(exp=NOW - 100, iat=None), USER, NOW)
    assert caught.value.claims.tenant == "gaoss"


@pytest.mark.parametrize(
    ("timestamp", "published"),
    [(None, 1000.5), (0, 1000.5), (999, 999.0), (1001, 1000.5), (10**12, 1000.5)],
)
def test_published_in_the_future_or_unknown_when_is_now(
    timestamp: int | None, published: float
) -> None:
    assert published_at(envelope({}, timestamp=timestamp, arrived=1000.5)) == published


# Whatever comes.


@given(
    st.text(max_size=300) | st.from_regex(r"[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}", fullmatch=True)
)
def test_no_text_does_anything_but_be_refused(text: str) -> None:
    with pytest.raises(NotProven):
        read_header(bare(text))


@given(st.binary(max_size=200))
def test_no_payload_does_anything_but_be_refused(payload: bytes) -> None:
    with pytest.raises(NotProven):
        read_claims(payload, ANYBODY)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["sub", "exp", "nbf", "iat", "typ", "iss", "aud", "project"]), JSON
    )
)
def test_claims_of_any_type_are_read_or_refused(claims: dict[str, Any]) -> None:
    try:
        found = read_claims(json.dumps(claims).encode(), Expected("i", "a", "project"))
    except NotProven:
        return
    assert isinstance(found, Claims)
    assert (claims["iss"], claims["sub"], claims["project"]) == ("i", found.subject, found.tenant)


# What is remembered.


async def test_a_token_that_comes_again_costs_no_signature(
    verifier: TokenVerifier, issuer: Issuer
) -> None:
    token = issuer.token()
    first = await verifier.verify(token, USER, time.time())
    assert await verifier.verify(f"Bearer {token}", USER, time.time()) is first


def claims_until(expires: float) -> Claims:
    return Claims(USER, "gaoss", expires, None, None)


def test_tokens_are_forgotten_when_they_expire_and_when_there_are_too_many() -> None:
    known, later = TokenCache(maxsize=2), time.time() + 100
    known.keep("over", 0, claims_until(time.time() - LEEWAY - 1))
    assert len(known) == 0
    for token in ("a", "b"):
        known.keep(token, 0, claims_until(later))
    assert known.find("a", 0) is not None
    known.keep("c", 0, claims_until(later))
    assert [known.find(token, 0) is not None for token in ("a", "b", "c")] == [True, False, True]


def test_tokens_are_forgotten_with_the_keys_that_verified_them() -> None:
    known = TokenCache()
    known.keep("a", 0, claims_until(time.time() + 100))
    assert known.find("a", 1) is None
    known.keep("a", 0, claims_until(time.time() + 100))
    assert known.find("a", 1) is None, "verified with a set that is no longer the set"


def test_no_token_is_kept() -> None:
    known, token = TokenCache(), f"eyJ{uuid.uuid4().hex}.a.b"
    known.keep(token, 0, claims_until(time.time() + 100))
    assert token not in repr(vars(known))


async def test_a_withdrawn_key_ends_the_tokens_that_it_signed(tmp_path: Path) -> None:
    issuer = Issuer()
    keys = KeySet(FileSource(str(issuer.write(tmp_path / "keys.json"))))
    verifier = TokenVerifier(keys, ANYBODY)
    token = issuer.token()
    assert await verifier.verify(token, USER, time.time())
    issuer.rotate(forget=True)
    issuer.write(tmp_path / "keys.json")
    await keys.fetch()
    assert "not in the key set" in await refused(verifier, token)


async def test_a_withdrawn_key_ends_tokens_that_were_seen_before_though_no_key_is_missing(
    tmp_path: Path,
) -> None:
    """Every token that comes is one that was verified before: none of them has the set looked at
    for its key.
    """
    issuer = Issuer()
    source = FileSource(str(issuer.write(tmp_path / "keys.json")))
    verifier = TokenVerifier(KeySet(source, FetchTimes(fresh=2.0)), ANYBODY)
    token = issuer.token()
    assert await verifier.verify(token, USER, time.time())
    issuer.rotate("EC", forget=True)
    issuer.write(tmp_path / "keys.json")
    assert await verifier.verify(token, USER, time.time())
    await asyncio.sleep(2.0)
    assert "not in the key set" in await refused(verifier, token)


async def test_a_token_counts_no_longer_after_its_exp_than_the_grace_says(
    key_set: Path, issuer: Issuer
) -> None:
    verifier = TokenVerifier(KeySet(FileSource(str(key_set))), replace(ANYBODY, grace=100.0))
    now = time.time()
    recent, old = (
        issuer.token(iat=now - 999, exp=now - 90),
        issuer.token(iat=now - 999, exp=now - 110),
    )
    assert await verifier.verify(recent, USER, now - 500)
    assert "too long ago" in await refused(verifier, old, published=now - 500)


async def test_the_documents_own_token_is_read_as_far_as_its_signature(
    verifier: TokenVerifier,
) -> None:
    """Its key is nobody's here: so it is refused for that, and for nothing else."""
    header = {"alg": "RS256", "typ": "JWT", "kid": "lchQ_fk4WG7HBdZfvGQ-LqY50MlUAU0oVXQMJqQtR3s"}
    claims = {
        "jti": "7cccbce2-5993-4b30-b02d-b391161a86e0",
        "exp": 1557310873,
        "nbf": 0,
        "iat": 1557305473,
        "iss": "https://iopdev.10.110.25.123.xip.io/auth/realms/picp",
        "aud": [
            "insight",
            "realm-management",
            "iot-hub",
            "client-gaoss",
            "db-service",
            "account",
            "rds-mysql-api",
        ],
        "sub": USER,
        "typ": "Bearer",
        "azp": "console",
        "project": "gaoss",
        "groups": ["/group-gaoss"],
    }
    assert "not in the key set" in await refused(
        verifier, f"{encoded(header)}.{encoded(claims)}.{'A' * 342}"
    )
    said = read_claims(
        json.dumps(claims).encode(), Expected(claims["iss"], "client-gaoss", "project")
    )  # type: ignore[arg-type]
    assert said == Claims(USER, "gaoss", 1557310873.0, 0.0, 1557305473.0)


@pytest.fixture
async def served(issuer: Issuer) -> AsyncIterator[tuple[KeySetServer, TokenVerifier]]:
    with KeySetServer(issuer) as server:
        yield server, TokenVerifier(KeySet(UrlSource(server.url)), ANYBODY)


async def test_a_thousand_key_ids_that_are_made_up_fetch_the_set_once_more(
    served: tuple[KeySetServer, TokenVerifier], issuer: Issuer
) -> None:
    server, verifier = served
    assert await verifier.verify(issuer.token(), USER, time.time())
    for _ in range(1000):
        await refused(verifier, issuer.token(header={"kid": uuid.uuid4().hex}))
    assert len(server.asked) == 2, "at the start, and for the first that is unknown"

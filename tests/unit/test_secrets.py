"""Tests what is masked, wherever it stands; and what is left alone."""

import base64
import gzip
import json
import pickle
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.secrets import could_hold_secret, is_secret_name, mask, mask_text, shown_url
from sandbox.documents import change_configure, new_token
from workers.amqp.names import Names
from workers.asyncapi.document import document
from workers.identity.jwks_source import key_source
from workers.pipeline.replies import masked_body

TOKEN = new_token()
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEAcanary\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "Token",
        "access_token",
        "refreshToken",
        "id-token",
        "X-Auth-Token",
        "authorization",
        "Authorization",
        "password",
        "PASSWORD",
        "rootPassword",
        "passwd",
        "pwd",
        "pass",
        "adminPass",
        "admin_pass",
        "adminpass",
        "user_data",
        "userData",
        "User-Data",
        "secret",
        "client_secret",
        "clientSecret",
        "api_key",
        "apikey",
        "private_key",
        "secretAccessKey",
        "credentials",
        "Set-Cookie",
        "passwords",
        "tokens",
        "access_tokens",
        "secrets",
        "sshKey",
        "ssh_keys",
        "privateKey",
        "privateKeyPem",
        "credentialValue",
        "credential_json",
        "passwordHash",
        "newPassword2",
        "tokenValue",
        "secret1",
        "auth",
        "JSESSIONID",
        "encryptionKey",
        "pwds",
        "x" * 70_000 + "password",
        "pass\x00word",
    ],
)
def test_what_stands_under_such_a_name_is_a_secret(name: str) -> None:
    assert is_secret_name(name)
    assert mask({name: "canary", "deep": [{name: {"a": ["canary"]}}], "kept": 1})["kept"] == 1
    assert "canary" not in json.dumps(mask({name: "canary", "deep": [{name: {"a": ["canary"]}}]}))


@pytest.mark.parametrize(
    "name",
    [
        "orderId",
        "user_id",
        "userId",
        "keyName",
        "key_name",
        "tenant_id",
        "instanceId",
        "server_id",
        "tags",
        "description",
        "passage",
        "author",
        "keys",
        "sshPort",
        "sessions",
        "secretariats",
        "sort_key",
        "instanceStatus",
        "values",
        "x-ecs-pass",
        "x-ecs-attempts",
        "tokens_used",
        "secretary",
        "",
        "public_key",
        "bypass",
    ],
)
def test_other_names_hold_none(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"Bearer {TOKEN}",
        f"see {TOKEN}.",
        f"https://iam/?t={TOKEN}&x=1",
        f'{{"a": "{TOKEN}"}}',
        f"{TOKEN}{TOKEN}",
        f"x{TOKEN}",
        TOKEN.rpartition(".")[0],
        f"a\n{TOKEN}\nb",
        f"{TOKEN}.{TOKEN}.x",
    ],
)
def test_a_token_is_masked_wherever_it_stands(text: str) -> None:
    for part in TOKEN.split("."):
        assert part not in mask_text(text)
        assert part not in json.dumps(mask([text, {text: text}, {"a": {"b": text}}]))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Bearer 0123456789abcdef", "Bearer ***"),
        ("curl -H 'Authorization: bearer abc.def~ghi+/='", "curl -H 'Authorization: bearer ***'"),
        ("Basic dXNlcjpwYXNz", "Basic ***"),
        ("password=canary", "password=***"),
        ("a=1&password=canary&b=2", "a=1&password=***&b=2"),
        ("adminPass: canary, name: x", "adminPass: ***, name: x"),
        ('{"adminPass": "canary", "n": 1}', '{"adminPass": "***", "n": 1}'),
        ('{\\"userData\\": \\"canary\\"}', '{\\"userData\\": \\"***\\"}'),
        ("{'x-auth-token': 'canary'}", "{'x-auth-token': '***'}"),
        ("client_secret = canary", "client_secret = ***"),
        ("passwords: canary", "passwords: ***"),
        ("sshKey=canary", "sshKey=***"),
        ("https://h/x?pass=canary&pwd=canary", "https://h/x?pass=***&pwd=***"),
        ("postgresql://u:canary@h/db", "postgresql://u:***@h/db"),
        ("see redis://:canary@h:6379/0, and", "see redis://:***@h:6379/0, and"),
        ("amqp://u:can/a#r?y@h:5672/v", "amqp://u:***@h:5672/v"),
        ("amqp://u:can@ry@h", "amqp://u:***@h"),
        ("postgresql+psycopg://u:c%40nary@h,amqps://v:canary@i", "postgresql+psycopg://u:***@i"),
        ("postgresql://h/db?user=u&password=canary", "postgresql://h/db?user=u&password=***"),
        (f"a {PEM} b", "a -----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY----- b"),
        (PEM[:60], "-----BEGIN RSA PRIVATE KEY-----***"),
    ],
)
def test_a_secret_that_is_told_in_a_text_is_masked(text: str, masked: str) -> None:
    assert mask_text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing in here",
        "a web server: the first",
        "token: null",
        "the token is missing",
        "2026-11-23 10:00:00",
        "http://10.0.0.1:8080/x",
        "https://a.example:443",
        "mail me at a@b.example: soon",
        "-----BEGIN PUBLIC KEY-----",
        "bypass=1",
        "参数token不符合规范",
        "S1.medium.2",
        "https://iam.example/certs?x=1",
        "eyJ",
        "key=value",
        "basic plan",
    ],
)
def test_what_is_none_is_left_as_it_is(text: str) -> None:
    assert mask_text(text) == text


@given(
    st.recursive(
        st.none()
        | st.integers()
        | st.text(max_size=40)
        | st.sampled_from(
            [
                TOKEN,
                f"Bearer {TOKEN}",
                "password=x",
                "token: y",
                "Bearer abcdefgh",
                "***",
                "a://b:c@d",
                PEM,
                PEM[:50],
            ]
        ),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["token", "a", "adminPass", TOKEN]) | st.text(max_size=9),
                inner,
                max_size=3,
            )
        ),
        max_leaves=10,
    )
)
def test_masking_twice_is_masking_once(value: Any) -> None:
    once = mask(value)
    assert mask(once) == once
    assert TOKEN not in json.dumps(once)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://guest:canary@h:5672//", "amqp://guest:***@h:5672//"),
        ("amqp://guest:can/a#r?y@h:5672/v?heartbeat=1", "amqp://guest:***@h:5672/v"),
        ("postgresql://u:canary@h1,h2/db?password=canary", "postgresql://u:***@h1,h2/db"),
        ("postgresql://h/db?password=canary@x", "postgresql://h:***@x"),
        ("postgresql:///db?user=u&password=canary", "postgresql:///db"),
        ("sqlite:///folder/ecs-journal.db", "sqlite:///folder/ecs-journal.db"),
    ],
)
def test_a_url_is_shown_without_password_and_query(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def field_names(schema: Any) -> set[str]:
    """The names of all fields in a JSON document with schemas."""
    if isinstance(schema, list):
        return set().union(*map(field_names, schema))
    if not isinstance(schema, dict):
        return set()
    found = (
        set(schema.get("properties", {})) if isinstance(schema.get("properties"), dict) else set()
    )
    return found.union(*map(field_names, schema.values()))


def test_of_the_contracts_own_fields_only_its_secrets_are_masked() -> None:
    names = field_names(document(Names())) | field_names(
        {"properties": mask(json.loads(change_configure("", "")))}
    )
    assert len(names) > 90
    assert {name for name in names if is_secret_name(name)} <= {"token", "adminPass", "userData"}


BODY = json.dumps({"token": TOKEN, "adminPass": "canary"})


@pytest.mark.parametrize(
    "raw",
    [
        BODY[:-1].encode(),
        BODY.encode("utf-16"),
        BODY.encode("utf-16-le"),
        BODY.encode("utf-32"),
        gzip.compress(BODY.encode(), mtime=0),
        base64.b64encode(BODY.encode()),
        pickle.dumps(json.loads(BODY)),
        BODY.encode("cp037"),
        b'{"Token": "',
        TOKEN.encode(),
        b"\xff" + BODY.encode(),
        b'{"\\u0074oken": "canary", ',
        b"<token>canary</token>",
        b"password=canary",
        b"Bearer canary",
        f"--- !!python\ntoken: {TOKEN}\n".encode(),
    ],
)
def test_what_cannot_be_read_and_could_hold_a_secret_is_not_kept(raw: bytes) -> None:
    assert could_hold_secret(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"orderId": ',
        b"\xff\xfe",
        b"[1, 2",
        "{'a': '中文'".encode(),
        b"a,b,c\r\n1,2,3\r\n",
        b"[" * 1000,
    ],
)
def test_what_could_hold_none_is_kept(raw: bytes) -> None:
    assert not could_hold_secret(raw)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_secret_is_found_between_any_bytes(before: bytes, after: bytes) -> None:
    assert could_hold_secret(before + b'"token": "canary"' + after)
    assert could_hold_secret(before + '"token": "canary"'.encode("utf-16-le") + after)


@pytest.mark.parametrize(
    "part", ["passpass=", 'tokens:    """"""', "key:", "a://b:c@d ", "@://", "bearer "]
)
@pytest.mark.parametrize("form", ['{"a": "%s"}', '{"%s": 1}', '["%s"]'])
def test_masking_a_body_never_keeps_the_interpreter_for_long(part: str, form: str) -> None:
    """A text of nearly 1 MiB is in a body that is refused, and parked: it is masked before its
    length counts.
    """
    text = json.dumps(part * (1_000_000 // len(part)))[1:-1]
    began = time.thread_time()
    masked = masked_body((form % text).encode())
    assert time.thread_time() - began < 0.05
    assert part.encode() not in masked
    assert masked_body(masked) == masked


def test_the_token_in_a_consoles_url_is_masked_as_nova_writes_it() -> None:
    url = "http://127.0.0.1:6080/vnc_auto.html?path=%3Ftoken%3D1b6c2d3e-canary"
    assert "canary" not in mask_text(url)
    assert mask_text(mask_text(url)) == mask_text(url)


def test_a_key_sets_url_is_named_without_its_query() -> None:
    assert key_source("https://127.0.0.1/certs?token=canary").name == "https://127.0.0.1/certs"

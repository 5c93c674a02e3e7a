"""Bytes to one JSON object, within the contract's limits."""

import json
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.errors import Refused
from messages.wire import MAX_BODY, MAX_TEXT, decode, digest, encode, named_ids


def _json(longest: int) -> st.SearchStrategy[Any]:
    """JSON values; whole numbers up to `longest`."""
    return st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-longest, longest)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(
            st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=50
        ),
        lambda inner: (
            st.lists(inner, max_size=5)
            | st.dictionaries(st.text("abc\u4e2d", max_size=5), inner, max_size=5)
        ),
        max_leaves=20,
    )


JSON, WITHIN_64_BITS = _json(10**30), _json(2**63 - 1)


@given(st.dictionaries(st.text("xyz", min_size=1, max_size=4), JSON, max_size=5))
def test_what_is_within_the_limits_comes_back_as_it_was(message: dict[str, Any]) -> None:
    assert decode(encode(message), "application/json", "utf-8") == message


def test_a_body_that_kombu_was_given_as_bytes_is_read_and_another_encoding_is_refused_with_a_reason() -> (
    None
):
    assert decode(b'{"a": 1}', "application/json", "binary") == {"a": 1}
    for type_, encoding, reason in (
        ("application/json", "gzip", "not_utf8"),
        ("application/data", "binary", "not_json"),
    ):
        with pytest.raises(Refused) as caught:
            decode(b"{}", type_, encoding)
        assert caught.value.reason == reason


@given(st.dictionaries(st.text("xyz", min_size=1, max_size=4), WITHIN_64_BITS, max_size=5))
def test_without_orjson_the_bytes_and_the_digests_are_the_same(message: dict[str, Any]) -> None:
    bytes_, digest_ = encode(message), digest(message, ("x",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("messages.wire.orjson", None)
        assert encode(message) == bytes_
        assert digest(message, ("x",)) == digest_


@given(st.binary(max_size=300))
def test_no_bytes_do_anything_but_be_read_or_refused(body: bytes) -> None:
    try:
        found: Any = decode(body, None, None)
    except Refused as refused:
        found = {"refused": refused.subject}
    assert isinstance(found, dict)
    assert found.get("refused", "body") == "body"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xef\xbb\xbf{}",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 65 + b"}",
        b'{"a": "\\ud800"}',
        b'{"a": "\\u0000"}',
        b'{"a": ' + b"[" * 32 + b"]" * 32 + b"}",
        b'{"a":' + b"[" * 200_000,
        json.dumps({"a": "x" * (MAX_TEXT + 1)}).encode(),
        json.dumps({"中" * (MAX_TEXT // 3 + 1): 1}, ensure_ascii=False).encode(),
        b'{"a": "' + b"x" * MAX_BODY + b'"}',
    ],
)
def test_what_is_beyond_the_limits_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        decode(body, None, None)
    assert caught.value.subject == "body"


def test_the_limits_themselves_are_within() -> None:
    deep = b'{"a": ' + b"[" * 31 + b"]" * 31 + b"}"
    assert decode(deep, None, None)
    assert decode(
        json.dumps({"a": "x" * MAX_TEXT}).encode(), "application/json; charset=utf-8", "UTF-8"
    )


@pytest.mark.parametrize(
    ("content_type", "encoding", "subject"),
    [("text/plain", None, "content_type"), ("application/json", "gzip", "content_encoding")],
)
def test_another_form_is_refused_undecoded(
    content_type: str, encoding: str | None, subject: str
) -> None:
    with pytest.raises(Refused) as caught:
        decode(b"\x00", content_type, encoding)
    assert caught.value.subject == subject


def test_the_order_of_keys_and_what_is_left_out_make_no_difference() -> None:
    one = {"a": 1, "b": [1, 2], "token": "x"}
    assert digest(one, ("token",)) == digest({"b": [1, 2], "a": 1}, ("token",))
    assert digest(one, ("token",)) != digest({"a": 1, "b": [2, 1]}, ("token",))
    assert digest({"a": 10**40}, ()) != digest({"a": 10**41}, ())


@given(st.uuids(), st.text(st.characters(exclude_categories=["Cs"])))
def test_an_id_of_a_name_is_the_standard_librarys(namespace: UUID, name: str) -> None:
    assert named_ids(namespace)(name) == str(uuid5(namespace, name))

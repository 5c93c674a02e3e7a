"""JSON objects from bytes and back, within the limits of the contract, section 2.

Python's own parser is used rather than a quicker one because only it can tell a key that comes
twice.
"""

import hashlib
import json
import json.scanner
import math
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from messages.errors import Refused, wrong

try:  # the worker's; a client is installed without it
    import orjson
except ImportError:  # pragma: no cover - shown by the test of the client's wheel
    orjson = None  # type: ignore[assignment]

#: Bytes of a body.
MAX_BODY = 1024 * 1024
#: Objects and lists inside each other.
MAX_DEPTH = 32
#: Bytes that are enough for what a result has around its data.
_ENVELOPE = 2048
#: Bytes of one text, as UTF-8.
MAX_TEXT = 64 * 1024
_JSON = "application/json"
#: What a body that is not encoded any further is said to be. `binary` is what kombu says of a body
#: that it was given as bytes: neither compressed nor converted.
_ENCODINGS = ("utf-8", "utf8", "binary")
_UTF_8 = ("charset=utf-8", "charset=utf8")
#: Values of a document beyond which it is read value by value, so that other threads have their
#: turn in between.
_MANY = 20_000
#: Digits of a number; longer ones serve nobody and cost quadratic time.
MAX_DIGITS = 64


def decode(body: bytes, content_type: str | None, content_encoding: str | None) -> dict[str, Any]:
    """Return the JSON object in a body, or raise `Refused` naming what is wrong with it."""
    value = decode_value(body, content_type, content_encoding)
    if not isinstance(value, dict):
        raise wrong("body", "the body is no JSON object")
    return value


def decode_value(body: bytes, content_type: str | None, content_encoding: str | None) -> Any:
    """Return the JSON value in a body, or raise `Refused` naming what is wrong with it."""
    if content_encoding and content_encoding.strip().lower() not in _ENCODINGS:
        detail = "the body must be plain UTF-8: nothing is decompressed or converted"
        raise wrong("content_encoding", detail, reason="not_utf8")
    if content_type and content_type != _JSON and not _says_json(content_type):
        detail = "the body must be application/json in UTF-8"
        raise wrong("content_type", detail, reason="not_json")
    if len(body) > MAX_BODY:
        raise body_too_large()
    try:
        text = body.decode("utf-8")
        value = loads(text)
    except (ValueError, RecursionError) as error:
        raise wrong("body", f"the body is no JSON document: {type(error).__name__}") from None
    if not _is_within(text):
        _check(value, 1)
    return value


def loads(text: str) -> Any:
    """Return the value of a JSON text of any size.

    Raises `ValueError` where it is none or can be read in two ways, `RecursionError` beyond some
    hundred levels.
    """
    return (_STEPWISE if text.count(",") > _MANY else _AT_ONCE).decode(text)


def encode(value: Any) -> bytes:
    """Return compact UTF-8 JSON: the same bytes with orjson and, at three times the cost, without."""
    if orjson is None:
        return to_json(value, inf_nan_mode="null")
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer beyond 64 bits, echoed from a request
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def fits(data: Any) -> bool:
    """Tell whether a result's data are within the limits of a body, with the envelope around them."""
    return _depth_of(data) < MAX_DEPTH and len(encode(data)) < MAX_BODY - _ENVELOPE


def _depth_of(value: Any) -> int:
    """Count levels; the recursion is bounded by the limits of what was read, and a few levels more."""
    inner = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    )
    return 0 if inner is None else 1 + max(map(_depth_of, inner), default=0)


def digest(message: Mapping[str, Any], without: tuple[str, ...]) -> str:
    """Return the digest by which two requests are the same: of the content without the fields that
    may differ between copies, in any order of keys.
    """
    content = {key: value for key, value in message.items() if key not in without}
    if orjson is None:
        return hashlib.sha256(to_json(_sorted(content), inf_nan_mode="null")).hexdigest()
    try:
        canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # an integer beyond 64 bits
        canonical = json.dumps(
            content, sort_keys=True, ensure_ascii=False, separators=(",", ":")
        ).encode()
    return hashlib.sha256(canonical).hexdigest()


def _sorted(value: Any) -> Any:
    """Return the value with the keys of its objects in order, as orjson sorts them."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list) else value


def named_ids(namespace: UUID) -> Callable[[str], str]:
    """Return a function that makes the UUID of a name (version 5): the same name, the same id.

    The standard library's `uuid5` costs five times as much: it hashes the namespace each time.
    """
    begun = hashlib.sha1(namespace.bytes, usedforsecurity=False)

    def id_of(name: str) -> str:
        hashed = begun.copy()
        hashed.update(name.encode())
        text = hashed.hexdigest()
        variant = "89ab"[int(text[16], 16) & 3]
        return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"

    return id_of


def body_too_large() -> Refused:
    """Return the refusal of a body of more than `MAX_BODY` bytes."""
    return wrong("body", f"the body is larger than {MAX_BODY} bytes")


def _says_json(content_type: str) -> bool:
    kind, *parameters = content_type.lower().replace('"', "").replace(" ", "").split(";")
    return kind == _JSON and all(one in _UTF_8 for one in parameters if one.startswith("charset"))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _decoder(*, stepwise: bool) -> json.JSONDecoder:
    found = json.JSONDecoder(
        object_pairs_hook=_unique,
        parse_constant=_no_constant,
        parse_float=_finite,
        parse_int=_short,
    )
    if stepwise:
        # The one in C reads a list of 350,000 lists in one call, and no other thread runs
        # meanwhile.
        found.scan_once = json.scanner.py_make_scanner(found)  # type: ignore[attr-defined]
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    if len(digits) > MAX_DIGITS or not math.isfinite(value := float(digits)):
        raise ValueError("a number out of range")
    return value


def _short(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError("a number out of range")
    return int(digits)


_AT_ONCE, _STEPWISE = _decoder(stepwise=False), _decoder(stepwise=True)


def _is_within(text: str) -> bool:
    """Tell, by looking at the text as a whole, that nothing in it is beyond the limits, as in
    nearly every message.
    """
    if len(text) * 4 > MAX_TEXT or text.count("{") + text.count("[") > MAX_DEPTH:
        return False
    # Half a pair of surrogates, and NUL, come by an escape only.
    return "\\u" not in text or not ("\\u0000" in text or "\\ud" in text or "\\uD" in text)


def _check(value: Any, depth: int) -> None:
    """Check depth and texts; the recursion is bounded by the depth that it checks."""
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, (dict, list)):
        if depth > MAX_DEPTH:
            raise wrong("body", f"the body is nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            for key, inner in value.items():
                _check_text(key)
                _check(inner, depth + 1)
        else:
            for inner in value:
                _check(inner, depth + 1)


def _check_text(text: str) -> None:
    if len(text) * 4 > MAX_TEXT or not text.isascii():
        try:
            size = len(text.encode("utf-8"))
        except UnicodeEncodeError:
            raise wrong("body", "a text holds half a surrogate pair") from None
        if size > MAX_TEXT:
            raise wrong("body", f"a text is longer than {MAX_TEXT} bytes")
    if "\x00" in text:
        raise wrong("body", "a text holds the character NUL")

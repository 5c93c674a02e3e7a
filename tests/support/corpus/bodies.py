"""Bodies that are no JSON object within the limits, and those that just are."""

import gzip
from collections.abc import Iterator
from typing import Any

from tests.support.corpus.case import NO_SERVER, Case, Fate, command_case, js, order_case, show

FULL = js(show())
_TEXT = "x" * 65_536


def bodies() -> Iterator[Case]:
    """Return what is no JSON object within the limits."""
    keys = ",".join(f'"{number}":0' for number in range(140_000)).encode()
    wrong = {
        "empty": b"",
        "blank": b"  \n",
        "brace": b"{",
        "trailing comma": b'{"operation": "server.show",}',
        "two documents": FULL + FULL,
        "NaN": b'{"a": NaN}',
        "Infinity": b'{"a": -Infinity}',
        "BOM": b"\xef\xbb\xbf" + FULL,
        "UTF-16": FULL.decode().encode("utf-16"),
        "UTF-32": FULL.decode().encode("utf-32-be"),
        "Latin-1": b'{"a": "\xe9"}',
        "broken UTF-8": b'{"a": "\xe4\xb8"}',
        "overlong UTF-8": b'{"a": "\xc0\xaf"}',
        "surrogate in UTF-8": b'{"a": "\xed\xa0\x80"}',
        "gzip": gzip.compress(FULL, mtime=0),
        "key twice": b'{"operation": "server.show", "operation": "server.show"}',
        "key twice, once escaped": b'{"a": 1, "\\u0061": 2}',
        "key twice below": b'{"a": [{"b": 1, "b": 1}]}',
        "depth 33": b'{"a": ' + b"[" * 32 + b"]" * 32 + b"}",
        "depth 200": b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}",
        "depth 100000": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "never closed": b"[" * 500_000,
        "140000 keys": b"{" + keys + b"}",
        "1 MiB and a byte": _padded(1024 * 1024 + 1),
        "5000 digits": b'{"a": ' + b"9" * 5000 + b"}",
        "1e999": b'{"a": 1e999}',
        "65 digits": b'{"a": ' + b"9" * 65 + b"}",
        "a long fraction": b'{"a": 0.' + b"3" * 600_000 + b"}",
        "lone surrogate": b'{"a": "\\ud800"}',
        "pair the wrong way": b'{"a": "\\uDC00\\uD800"}',
        "NUL": b'{"a": "\\u0000"}',
        "NUL in a key": b'{"\\u0000": 1}',
        "raw control character": b'{"a": "\x1b"}',
        "raw line break": b'{"a": "\n"}',
        "null": b"null",
        "list": b"[]",
        "text": b'"x"',
        "number": b"1",
        "true": b"true",
        "hexadecimal": b'{"a": 0x10}',
        "leading zero": b'{"a": 01}',
        "plus": b'{"a": +1}',
        "single quotes": b"{'a': 1}",
        "comment": b'{"a": 1} // x',
        "text of 64 KiB and a byte": js({"a": _TEXT + "x"}),
        "key of 64 KiB and a byte": js({_TEXT + "x": 1}),
        "two-byte text beyond": js({"a": "é" * 32_768 + "x"}),
        "four-byte text beyond": js({"a": "😀" * 16_384 + "x"}),
        "escaped text beyond": b'{"a": "' + b"\\u4e2d" * 21_846 + b'"}',
        "pickle": b"\x80\x04}\x94.",
    }
    yield from (Case(f"json: {name}", body, "body") for name, body in wrong.items())
    yield from (
        order_case(f"order json: {name}", wrong[name], "body", kind="unknown")
        for name in ("empty", "NaN", "list", "gzip")
    )
    right = {
        "depth 32": show(a=_nested(31)),
        "text of 64 KiB": show(a=_TEXT),
        "key of 64 KiB": show(**{_TEXT: 1}),
        "two-byte text": show(a="é" * 32_768),
        "four-byte text": show(a="😀" * 16_384),
        "three-byte text": show(a="中" * 21_845),
        "64 digits": show(a=int("9" * 64)),
        "19 digits": show(a=9_223_372_036_854_775_808),
        "minus nothing": show(a=-0.0),
    }
    yield from (
        command_case(f"json: {name} is right", message, code=NO_SERVER)
        for name, message in right.items()
    )
    yield Case("json: 1 MiB is right", _padded(1024 * 1024), None, Fate.RIGHT, NO_SERVER)
    yield Case(
        "json: blanks around are right", b" \r\n\t" + FULL + b"\n", None, Fate.RIGHT, NO_SERVER
    )
    yield Case(
        "json: 1e2 is right", FULL.replace(b"{", b'{"a": 1e2, ', 1), None, Fate.RIGHT, NO_SERVER
    )
    yield Case(
        "json: escaped pair is right",
        FULL.replace(b"{", b'{"a": "\\ud83d\\ude00", ', 1),
        None,
        Fate.RIGHT,
        NO_SERVER,
    )


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def _padded(size: int) -> bytes:
    """A right command of just so many bytes, whose texts are within the limits."""
    message = show(pad=["y" * 65_000] * (size // 65_010))
    missing = size - len(js(message)) - len(', "x": ""')
    return js(message | {"x": "y" * missing})

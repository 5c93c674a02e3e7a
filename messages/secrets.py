"""What must never be kept, logged or sent back, and how it is masked.

Masking something twice is masking it once: what makes two requests the same is the masked content.
"""

import re
from functools import lru_cache
from typing import Any

MASK = "***"
#: Ends of names, without the marks between their words: what stands under such a name is nobody's business.
_SECRET_ENDS = (
    "token", "password", "passwd", "passphrase", "pwd", "secret", "adminpass", "rootpass", "authorization", "apikey",
    "accesskey", "secretkey", "privatekey", "credential", "credentials", "cookie", "userdata",
)  # fmt: skip
_LONGEST = 64
_MARKS = re.compile(r"[-_. \x00]")
#: A signed token wherever it stands: three parts of base64url, the first of which begins as `{"` does.
_TOKEN = re.compile(r"eyJ[\w-]{5,}(?:\.{1,2}[\w-]+)*")
_BEARER = re.compile(r"\b(bearer|basic)(\s{1,4})(?!\*)[\w.~+/=-]{6,}", re.IGNORECASE | re.ASCII)
#: A secret told in a text, as programs write them: `"adminPass": "…"`, `password=…`, and with the quotes of a JSON
#: document inside another. Every repetition is bounded: whoever sends a text must not choose how long it takes.
_TOLD = re.compile(
    r"((?:token|passw(?:or)?d|passphrase|secret|admin[-_]?pass|api[-_]?key|private[-_]?key|user[-_]?data)"
    r"[\\\"']{0,8}\s{0,4}[:=]\s{0,4}[\\\"']{0,8})(?!\*\*\*|null\b|bearer\b|[\s\\\"'])[^\s\\\"',;&}\]]+",
    re.IGNORECASE | re.ASCII,
)
#: What makes unreadable bytes suspicious: such a name, the beginning of a token, an escape that may spell either.
_TELLING = (*(name.encode() for name in _SECRET_ENDS), b"eyj", b"bearer", b"basic", b"\\u")
_CONTROLS = bytes(set(range(32)) - set(b"\t\r\n"))
#: Bytes that are looked through for what programs write; more would hold up all other messages.
_LOOKED_THROUGH = 1024 * 1024
#: Bytes below which something unreadable is too short to hide anything.
_HIDES = 24


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret."""
    return _is_secret(name[-_LONGEST:])


@lru_cache(4096)
def _is_secret(name: str) -> bool:
    bare = _MARKS.sub("", name.lower())
    return bare.endswith(_SECRET_ENDS) or bare == "pass"


def mask(value: Any) -> Any:
    """A copy in which every secret is replaced, at any depth."""
    if isinstance(value, dict):
        return {
            mask_text(key): MASK if inner is not None and is_secret_name(key) else mask(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [mask(inner) for inner in value]
    return mask_text(value) if isinstance(value, str) else value


def mask_text(text: str) -> str:
    """A text without the tokens in it, and without what it calls a secret."""
    if "eyJ" in text:
        text = _TOKEN.sub(MASK, text)
    if " " in text:
        text = _BEARER.sub(rf"\1\2{MASK}", text)
    if ":" in text or "=" in text:
        text = _TOLD.sub(rf"\1{MASK}", text)
    return text


def could_hold_secret(raw: bytes) -> bool:
    """Whether bytes that could not be read may hold a secret: then they are not kept as they came."""
    # Without the zeros that UTF-16 puts between letters.
    bare = raw.lower().translate(None, b"-_. \x00")
    if any(name in bare for name in _TELLING) or (len(raw) >= _HIDES and not _is_text(raw)):
        return True
    if len(raw) > _LOOKED_THROUGH:  # the names that it looks for are among those that were just looked for
        return False
    text = raw.replace(b"\x00", b"").decode("utf-8", "replace")
    return mask_text(text) != text


def _is_text(raw: bytes) -> bool:
    """Whether it is what somebody wrote; packed or encoded bytes, in which anything may be, are not."""
    odd = len(raw) - len(raw.translate(None, _CONTROLS)) + raw.decode("utf-8", "replace").count("\ufffd")
    return odd * 10 <= len(raw)

"""Masking of secrets, which are never kept, logged or sent back.

Masking something twice is masking it once: two requests are compared by their masked content.
"""

import re
from functools import lru_cache
from typing import Any

MASK = "***"
#: Ends of names of secrets, in lower case and without the marks between words.
_SECRET_ENDS = (
    "token",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "adminpass",
    "rootpass",
    "authorization",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "sshkey",
    "encryptionkey",
    "signingkey",
    "credential",
    "cookie",
    "sessionid",
    "userdata",
)
#: Any name that holds one of these words is the name of a secret.
_SECRET_WORDS = (
    "password",
    "passwd",
    "passphrase",
    "credential",
    "privatekey",
    "secretkey",
    "accesskey",
)
#: Additions to the name of a secret that leave it one: `tokens`, `secret2`, `tokenValue`.
_ADDITIONS = re.compile(r"(?:s|[0-9]{1,4}|value|hash|text|plain|base64|pem|json|string)$", re.ASCII)
_MOST_ADDITIONS = 3
#: Characters of a name that are looked at: at its beginning, and at its end.
_LONGEST = 64
_MARKS = re.compile(r"[-_. \x00]")
#: A signed token wherever it stands: three parts of base64url, the first of which begins as `{"`
#: does.
_TOKEN = re.compile(r"eyJ[\w-]{5,}(?:\.{1,2}[\w-]+)*")
_BEARER = re.compile(r"\b(bearer|basic)(\s{1,4})(?!\*)[\w.~+/=-]{6,}", re.IGNORECASE | re.ASCII)
#: A secret in a text, as programs write it: `"adminPass": "…"`, `password=…`, and with the
#: quotes of a JSON document inside another. Every repetition is bounded: whoever sends a text must
#: not choose how long it takes.
_TOLD = re.compile(
    r"((?:tokens?|passw(?:or)?ds?|passphrases?|secrets?|admin[-_]?pass|root[-_]?pass|\bpass|pwd|credentials?"
    r"|(?:api|access|secret|private|ssh)[-_]?keys?|user[-_]?data)"
    r"[\\\"']{0,8}\s{0,4}(?:[:=]|%3[ad])\s{0,4}[\\\"']{0,8})(?!\*\*\*|null\b|bearer\b|[\s\\\"'])[^\s\\\"',;&}\]]+",
    re.IGNORECASE | re.ASCII,
)
#: Parts of every name in `_TOLD`.
_TELLING_WORDS = (
    "token",
    "pass",
    "secret",
    "pwd",
    "credential",
    "key",
    "userdata",
    "user-data",
    "user_data",
)
#: End of a URL in a text, and the beginning of `user:password@` in one.
_URL_END = re.compile(r"[\s\"'<>]")
_USER = re.compile(r"[^/?#@:]{0,128}:")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY-----")
_PRIVATE_KEY_END = "-----END"
#: Parts that make unreadable bytes suspicious: such a name, the beginning of a token, an escape
#: that may spell either.
_TELLING = (*(name.encode() for name in _SECRET_ENDS), b"eyj", b"bearer", b"basic", b"\\u")
_CONTROLS = bytes(set(range(32)) - set(b"\t\r\n"))
#: Bytes that are looked through for what programs write; more would hold up all other messages.
_LOOKED_THROUGH = 1024 * 1024
#: Characters of a part that is looked through at once, and by which it overlaps the next.
_SLICE, _OVERLAP = 16 * 1024, 256
#: Characters of a text of a message that is searched; no request may have a longer one
#: (`wire.MAX_TEXT`).
_LONGEST_TEXT = 64 * 1024
#: Bytes below which something unreadable is too short to hide anything.
_HIDES = 24


def is_secret_name(name: str) -> bool:
    """Tell whether a field of this name holds a secret."""
    return _is_secret(name if len(name) <= 2 * _LONGEST else name[:_LONGEST] + name[-_LONGEST:])


@lru_cache(4096)
def _is_secret(name: str) -> bool:
    bare = _MARKS.sub("", name.lower())
    if bare in ("pass", "auth") or any(word in bare for word in _SECRET_WORDS):
        return True
    for _ in range(_MOST_ADDITIONS):
        if bare.endswith(_SECRET_ENDS):
            return True
        bare = _ADDITIONS.sub("", bare)
    return bare.endswith(_SECRET_ENDS)


def mask(value: Any) -> Any:
    """Return a copy in which every secret is replaced, at any depth.

    A longer text than any request may have is replaced as a whole: each search of it would be one
    call into C, which keeps the interpreter from the loop for as long as it takes.
    """
    if isinstance(value, str):
        return _masked(value)
    if isinstance(value, dict):
        return {
            # A short name, which is nearly always a known one, is looked at once.
            (_masked_name(key) if len(key) <= _LONGEST else _masked(key)): MASK
            if inner is not None and is_secret_name(key)
            else mask(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [mask(inner) for inner in value]
    return value


@lru_cache(4096)
def _masked_name(name: str) -> str:
    return mask_text(name)


def _masked(text: str) -> str:
    return mask_text(text) if len(text) <= _LONGEST_TEXT else MASK


def mask_text(text: str) -> str:
    """Return a text without tokens, private keys, passwords of URLs, and secrets that it names."""
    if "eyJ" in text:
        text = _TOKEN.sub(MASK, text)
    if " " in text:
        text = _BEARER.sub(rf"\1\2{MASK}", text)
    if "-----BEGIN" in text:
        text = _without_private_keys(text)
    if "@" in text and "://" in text:
        text = _without_url_passwords(text)
    if ":" in text or "=" in text:
        lower = text.lower()
        # The words alone are found ten times as quickly as the whole expression.
        if any(word in lower for word in _TELLING_WORDS):
            text = _TOLD.sub(rf"\1{MASK}", text)
    return text


def shown_url(url: str) -> str:
    """Return a URL as it may be shown: without its password, and without what it has after the
    path.

    A password may hold any character, and may stand in the query, too.
    """
    scheme, _, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    place = re.split(r"[?#]", host, maxsplit=1)[0]
    return (
        f"{scheme}://{re.split(r'[:/?#@]', user, maxsplit=1)[0]}:{MASK}@{place}"
        if at
        else f"{scheme}://{place}"
    )


def _without_url_passwords(text: str) -> str:
    """Mask the password in each `scheme://user:password@`.

    It goes as far as the URL's last `@`: people forget to write `/`, `#`, `?` and `@` in a password
    as a URL needs them. Takes time in proportion to the text, whatever it is.
    """
    kept, done, at = [], 0, text.find("://")
    while at >= 0:
        found = _URL_END.search(text, at)
        end = found.start() if found is not None else len(text)
        last = text.rfind("@", at, end)
        while 0 <= at < last:
            user = _USER.match(text, at + 3)
            if user is not None and user.end() <= last:
                kept.append(f"{text[done : user.end()]}{MASK}")
                done = last
                break
            at = text.find("://", at + 3, end)
        at = text.find("://", end)
    return "".join(kept) + text[done:]


def _without_private_keys(text: str) -> str:
    """Replace each PEM block of a private key; one that does not end goes as far as the text."""
    kept, at = [], 0
    while (found := _PRIVATE_KEY.search(text, at)) is not None:
        kept.append(f"{text[at : found.end()]}{MASK}")
        at = text.find(_PRIVATE_KEY_END, found.end())
        if at < 0:
            return "".join(kept)
    return "".join(kept) + text[at:]


def could_hold_secret(raw: bytes) -> bool:
    """Tell whether bytes that could not be read may hold a secret: then they are not kept as they
    came.
    """
    # Without the zeros that UTF-16 puts between letters.
    bare = raw.lower().translate(None, b"-_. \x00")
    if any(name in bare for name in _TELLING) or (len(raw) >= _HIDES and not _is_text(raw)):
        return True
    # The names that it looks for are among those that were just looked for.
    if len(raw) > _LOOKED_THROUGH:
        return False
    text = raw.replace(b"\x00", b"").decode("utf-8", "replace")
    # In parts that overlap by more than a match needs: a search of all of it at once would keep the
    # interpreter from other threads.
    parts = (text[begin : begin + _SLICE + _OVERLAP] for begin in range(0, len(text), _SLICE))
    return any(mask_text(part) != part for part in parts)


def _is_text(raw: bytes) -> bool:
    """Tell whether bytes are text that somebody wrote, and not packed or encoded, in which case
    anything may be in them.
    """
    odd = (
        len(raw)
        - len(raw.translate(None, _CONTROLS))
        + raw.decode("utf-8", "replace").count("\ufffd")
    )
    return odd * 10 <= len(raw)

"""The cause of a dead letter: code, reason, and the error without what varies from one to another."""

import hashlib
import re
from functools import lru_cache

from messages.record import record
from workers.journal.operators import storable
from workers.pipeline.rejections import LONGEST_REASON

_LONGEST_CODE = 16
_REASON = re.compile(rf"[a-z][a-z0-9_]{{0,{LONGEST_REASON - 1}}}", re.ASCII)
#: What varies: what is quoted, and every word with a digit (ids, keys, numbers, times). ASCII alone,
#: because Chinese puts no blank between a word and an id.
_QUOTED = re.compile(r"'[^']{0,255}'|\"[^\"]{0,255}\"|“[^”]{0,255}”")
_WORD = re.compile(r"[\w.:@/+-]+", re.ASCII)
_DIGIT = re.compile(r"\d", re.ASCII)
#: Put in its place.
_VARIES = "…"
#: Hexadecimal digits of a group's id: two of a thousand causes are alike once in ten thousand times.
_ID = 8


@record
class Cause:
    """A cause; dead letters of one cause are a group. `error` is without what varies."""

    code: str | None
    reason: str | None
    error: str

    @property
    def group(self) -> str:
        """The group's id: the same at any time, on any machine."""
        return _group_id(self)


@lru_cache(4096)
def cause_of(code: str | None, reason: str | None, error: str | None) -> Cause:
    """Return the cause of an error as the headers of a dead letter have it.

    Workers of earlier versions wrote no reason of its own: it is the second part of the error.
    """
    parts = (error or "").split("; ")
    if reason is None and len(parts) > 1 and _REASON.fullmatch(parts[1]):
        reason = parts[1]
    if reason is not None and not _REASON.fullmatch(reason):
        reason = None  # it becomes a label of the metrics
    text = _WORD.sub(_without_number, _QUOTED.sub(_VARIES, error or ""))
    return Cause(storable(code, _LONGEST_CODE) if code is not None else None, reason, text)


def _without_number(word: re.Match[str]) -> str:
    return _VARIES if _DIGIT.search(word[0]) else word[0]


@lru_cache(4096)
def _group_id(cause: Cause) -> str:
    text = "\n".join((cause.code or "", cause.reason or "", cause.error))
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:_ID]

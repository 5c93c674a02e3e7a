"""Rules for texts, and texts made safe to be shown."""

import re
from json import dumps
from unicodedata import category

#: Controls, line and paragraph ends, halves of pairs, unassigned characters. Joiners of emoji and
#: marks of direction (Cf) are part of a text.
_NOT_IN_A_LINE = ("Cc", "Zl", "Zp", "Cs", "Cn")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s'\"<>]*")


def without_urls(text: str) -> str:
    """Return a text without the URLs in it: they name places, and may hold a password."""
    return _URL.sub("…", text)


def is_line(text: str) -> bool:
    """Tell whether a text is one line, in whatever language."""
    return text.isprintable() or not any(category(one) in _NOT_IN_A_LINE for one in text)


def is_stored(text: str) -> bool:
    """Tell whether OpenStack's databases hold a text.

    Their tables are declared `utf8`, which is three bytes a character in MySQL: nothing above
    U+FFFF, so no emoji. Glance says so (400), Nova and Cinder answer 500, and a server that has
    such a tag stays in BUILD for good.
    """
    return all(one <= "\uffff" for one in text)


def is_resource_name(text: str) -> bool:
    """Tell whether Nova takes a text, without blanks around it, as the name of a server, an image
    or a key pair.

    Letters, marks, digits, punctuation, symbols and blanks of the Basic Multilingual Plane; no
    control or format character. Neutron's rule for the name of a port is the same, Cinder's and
    Glance's are weaker.
    """
    return all(
        one < "\uffff" and (category(one) == "Zs" or category(one)[0] not in "CZ") for one in text
    )


def terminal_safe(text: str, *, lines: bool = False, json: bool = False) -> str:
    """Escape every character that could move a cursor, colour a terminal or turn a line round.

    `lines` keeps line feeds. `json` escapes as JSON does, for a text that is a JSON document: there
    such characters can only stand within its strings.
    """
    if text.isprintable():
        return text
    quoted = dumps if json else ascii
    return "".join(
        one if one.isprintable() or (lines and one == "\n") else quoted(one)[1:-1] for one in text
    )

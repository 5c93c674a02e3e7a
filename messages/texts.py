"""What texts are taken, and how they are shown to a person."""

from unicodedata import category

#: Controls, line and paragraph ends, halves of pairs, what stands for no character. What joins emoji and turns the
#: direction of writing (Cf) is part of a text.
_NOT_IN_A_LINE = ("Cc", "Zl", "Zp", "Cs", "Cn")


def is_line(text: str) -> bool:
    """Whether a text is one line, in whatever language."""
    return text.isprintable() or not any(category(one) in _NOT_IN_A_LINE for one in text)


def one_line(text: str) -> str:
    """A text for a terminal: what would move the cursor, colour it or turn the line round is escaped."""
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)

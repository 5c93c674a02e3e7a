"""Exit codes, and errors as one line."""

from enum import IntEnum


class Exit(IntEnum):
    """Contract 9."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    CONFIGURATION = 3
    UNREACHABLE = 4
    CHECK_FAILED = 5
    PARTLY = 6
    REFUSED = 7


class CommandFailed(Exception):
    """A command ends here; the text is what is wrong and what to do."""

    def __init__(self, code: Exit, text: str) -> None:
        self.code = code
        super().__init__(text)

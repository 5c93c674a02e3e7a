"""The result envelope of the contract, section 3."""

from dataclasses import dataclass
from typing import Any

from messages.codes import Code
from messages.errors import Refused


@dataclass(frozen=True, slots=True)
class Result:
    """What a request is answered with; `http` travels as a header, not in the body."""

    code: int | str
    message: str
    data: Any
    http: int
    #: Meant for the requester alone: it goes to the reply queue or nowhere, and is not kept.
    confidential: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether the code is one of success."""
        return isinstance(self.code, int)

    def envelope(self) -> dict[str, Any]:
        """The body on the wire: `code`, `message`, `data`."""
        return {"code": self.code, "message": self.message, "data": self.data}

    @classmethod
    def of(cls, code: Code, data: Any = None, subject: str | None = None) -> "Result":
        """The result with this code's own message."""
        return cls(code.wire, code.text_for(subject), data, code.http)

    @classmethod
    def refusal(cls, refused: Refused) -> "Result":
        """The answer to what was refused: `data` as given, else its reason, else null."""
        data = refused.data
        if data is None and refused.reason is not None:
            data = {"reason": refused.reason}
        return cls.of(refused.code, data, refused.subject)

    def stored(self) -> dict[str, Any]:
        """The record that the journal keeps."""
        return {**self.envelope(), "http": self.http}

    @classmethod
    def restored(cls, record: dict[str, Any]) -> "Result":
        """The result that the journal kept."""
        return cls(record["code"], record["message"], record["data"], record["http"])

"""The errors, each named for what its receiver must do.

EcsError
├── Refused            answer it; nothing will change by trying again
├── Transient          try again later; surely nothing was done
│   └── Ambiguous      look whether it was done before trying again
├── OutcomeUnknown     answer so; never do it again
└── Postponed          not failed: reschedule it, it goes on where it was
"""

from typing import Any

from messages.codes import Code

#: The reasons of failures that a code alone tells.
_WORDS = {
    Code.SERVER_NOT_OWNED: "not_found",
    Code.SERVER_UNKNOWN: "not_found",
    Code.SERVER_UNPAID: "unpaid",
    Code.SERVER_STATE: "state",
    Code.IMAGE_UNKNOWN: "not_found",
    Code.IMAGE_IN_USE: "in_use",
}


class EcsError(Exception):
    """Base of all errors that the pipeline turns into a decision."""


class Refused(EcsError):
    """A request that is answered with a failure.

    `subject` fills the place of xxx in the code's message; `reason` is the word that a program can
    use (`data.reason`); `data` replaces the whole of the result's data where an operation has
    several targets.
    """

    def __init__(
        self,
        code: Code,
        subject: str | None = None,
        *,
        reason: str | None = None,
        detail: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        self.code = code
        self.subject = subject
        self.reason = reason
        self.detail = detail
        self.data = data
        super().__init__(detail or reason or code.text_for(subject))

    @property
    def word(self) -> str | None:
        """The reason that one of several targets has: where none is given, the code's own."""
        return self.reason or _WORDS.get(self.code)


class Transient(EcsError):
    """The cloud did not do it, and may do it later. `retry_after` is in seconds, where the cloud
    said it. `advice`: the setting to change, where it cannot be done before; the text ends with it.
    """

    def __init__(
        self,
        reason: str,
        *,
        detail: str = "",
        retry_after: float | None = None,
        advice: str = "",
    ) -> None:
        self.reason = reason
        self.detail = detail or reason
        self.retry_after = retry_after
        self.advice = advice
        super().__init__(f"{self.detail}; {advice}" if advice else self.detail)


class Ambiguous(Transient):
    """The cloud may have done it.

    `may_land_late` is true where the request may still be under way in the cloud (a time-out, a
    gateway's answer): not finding it now proves nothing.
    """

    def __init__(
        self,
        reason: str,
        *,
        detail: str = "",
        may_land_late: bool = False,
        retry_after: float | None = None,
        advice: str = "",
    ) -> None:
        self.may_land_late = may_land_late
        super().__init__(reason, detail=detail, retry_after=retry_after, advice=advice)


class OutcomeUnknown(EcsError):
    """It cannot be found out whether an effect was done. It is answered so and never repeated."""

    def __init__(self, effect: str) -> None:
        self.effect = effect
        super().__init__(f"whether {effect} was carried out cannot be found out")


class Postponed(EcsError):
    """The request still waits for something that takes long; it is rescheduled by a retry queue.

    `for_lock`: for its turn, at a server or at being begun.
    """

    def __init__(self, waiting_for: str, *, for_lock: bool = False) -> None:
        self.waiting_for = waiting_for
        self.for_lock = for_lock
        super().__init__(f"still waiting for {waiting_for}")


def wrong(parameter: str, detail: str | None = None, *, reason: str | None = None) -> Refused:
    """Return the refusal of a parameter that is missing or wrong."""
    return Refused(Code.PARAMETER, parameter, detail=detail, reason=reason)

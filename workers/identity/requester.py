"""Who asks, and the one question about it."""

from dataclasses import dataclass
from typing import Protocol

from messages.codes import Code
from messages.errors import Refused
from workers.request import Request

#: In the place of a project's id: the request is no tenant's, each server of it acts in the project
#: that owns it.
NOBODY = "-"


@dataclass(frozen=True, slots=True)
class Requester:
    """The project that a request acts in, or `NOBODY`.

    `operator` is who has answered for it, where the message did not prove by itself who asks;
    `resume_token` the word by which it was known again and may be known again the next time.
    """

    project_id: str
    operator: str | None = None
    resume_token: str | None = None


class NotProven(Refused):
    """Who asks is not proven. Why is told to the log and to operators, not to him."""

    def __init__(self, why: str) -> None:
        super().__init__(Code.IDENTITY, detail=why)


class Identity(Protocol):
    """A way to know who asks."""

    async def identify(self, request: Request) -> Requester:
        """The requester, or `Refused`; `Transient` where that cannot be told just now."""

    async def proves(self, request: Request) -> bool:
        """Return whether the sender of a message that is only refused is who it says.

        Asks nothing of the cloud. `Transient` where it cannot be told just now.
        """

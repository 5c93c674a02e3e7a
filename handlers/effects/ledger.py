"""Effects as the journal knows them: their ids, their states, and where they are written down."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

from messages.record import record


class EffectKind(StrEnum):
    """Kinds of changes to a target, and of values that are remembered; stored in the journal."""

    # Changes of servers.
    START = "os-start"
    STOP = "os-stop"
    REBOOT = "reboot"
    TAGS = "tags"
    CREATE = "create"
    DELETE = "delete"
    FORCE_DELETE = "force-delete"
    UNLOCK = "unlock"
    RESIZE = "resize"
    CONFIRM = "confirm"
    REVERT = "revert"
    RESET = "reset"
    ERROR = "error"
    METADATA = "metadata"
    RENEW = "renew"
    MARK = "mark"
    UNMARK = "unmark"
    NOTE = "note"
    UNDO_START = "undo-start"
    UNDO_RESET = "undo-reset"
    UNDO_ERROR = "undo-error"
    UNDO_RENEW = "undo-renew"
    UNDO_NAME = "undo-name"
    UNDO_UNMARK = "undo-unmark"
    # Changes of images, volumes, ports and floating IPs.
    CREATE_IMAGE = "createImage"
    UPDATE = "update"
    VOLUME = "volume"
    EXTEND = "extend"
    PORT = "port"
    RELEASE = "release"
    # Values that are remembered: of the whole request, ...
    ANSWER = "answer"
    IMAGE = "image"
    PLAN = "plan"
    FAILURE = "failure"
    FEES = "fees"
    # ... of one server, ...
    PROJECT = "project"
    BEFORE = "before"
    DEPARTURE = "departure"
    ENDED = "ended"
    # ... the id of what another effect made, the progress of an order by status, a final update.
    ID = "id"
    TOLD = "told"
    FINAL = "final"


@record
class EffectId:
    """An effect's kind and its target (an id; empty where the kind alone says it).

    `str()` is the text that is stored in the journal, and `parse` reads it.
    """

    #: A text is a kind of a later version, whose worker has begun the request: it is kept.
    kind: EffectKind | str
    target: str = ""

    @classmethod
    def parse(cls, text: str) -> "EffectId":
        """Read an id from the journal's text."""
        kind, _, target = text.partition(":")
        try:
            return cls(EffectKind(kind), target)
        except ValueError:
            return cls(kind, target)

    def __str__(self) -> str:
        return f"{self.kind}:{self.target}" if self.target else str(self.kind)

    @property
    def id_of_made(self) -> "EffectId":
        """The id under which is remembered the OpenStack id of what this effect made."""
        return EffectId(EffectKind.ID, str(self))


@record
class Effect:
    """The state of an effect as the journal knows it: `outcome` is None between intent and answer,
    times are Unix seconds.

    `sent` is false for a call that this run intends and that surely has not been sent yet.
    """

    marker: Any
    intended_at: float
    outcome: dict[str, Any] | None = None
    request_id: str | None = None
    sent: bool = True

    @property
    def unknown(self) -> bool:
        """True where it may have been done, and it is not known."""
        return self.outcome is None and self.sent

    @property
    def refused(self) -> bool:
        """True where the cloud refused it: nothing was done, and it may be tried again."""
        return self.outcome is not None and "refused" in self.outcome

    @property
    def done(self) -> bool:
        """True where it is known to have been done."""
        return self.outcome is not None and not self.refused

    @property
    def is_memory(self) -> bool:
        """True for a value that was remembered; nothing was done to the cloud."""
        return self.outcome is not None and "value" in self.outcome

    @property
    def value(self) -> Any:
        """The value that was remembered; None for anything else."""
        return self.outcome.get("value") if self.outcome is not None else None

    @property
    def was_sent(self) -> bool:
        """True for a change whose call may have been sent; an intent alone does not count."""
        return self.unknown or (self.done and not self.is_memory)


def any_begun(effects: Mapping[EffectId, Effect]) -> bool:
    """True where anything at all may have been done to the cloud: a change was intended and was not
    refused.
    """
    return any(not (one.refused or one.is_memory) for one in effects.values())


class Ledger(Protocol):
    """A durable record of effects, written before the next step is taken."""

    def effect(self, name: EffectId) -> Effect | None:
        """Return what is known of an effect."""

    def effects(self) -> Mapping[EffectId, Effect]:
        """Return all that is known, in the order in which it was intended."""

    async def intend(self, name: EffectId, marker: Any) -> None:
        """Write that it is about to be done; replaces an intent that was refused."""

    def sending(self, name: EffectId) -> None:
        """Note that its call is sent now: from here on it may have been done."""

    @property
    def closed(self) -> bool:
        """True once the request has its answer: nothing more is begun for it."""

    async def record(self, name: EffectId, outcome: dict[str, Any], request_id: str | None) -> None:
        """Write what became of it."""

    async def remember(self, name: EffectId, value: Any) -> None:
        """Write a value that a later run must find as it was."""


class NoLedger:
    """The ledger of a request that only reads: nothing is known, and nothing may be begun."""

    def effect(self, name: EffectId) -> Effect | None:
        return None

    def effects(self) -> Mapping[EffectId, Effect]:
        return {}

    closed = False

    async def intend(self, name: EffectId, marker: Any) -> None:
        raise RuntimeError(f"{name}: a read must change nothing")

    def sending(self, name: EffectId) -> None:
        raise RuntimeError(f"{name}: a read must change nothing")

    async def record(self, name: EffectId, outcome: dict[str, Any], request_id: str | None) -> None:
        raise RuntimeError(f"{name}: a read must change nothing")

    async def remember(self, name: EffectId, value: Any) -> None:
        """Remember nothing."""

"""Pausing kinds of requests for all workers, and going on with them."""

from collections.abc import Sequence

from workers.journal import Actor, Operations, Pausable, Pause

__all__ = ["Pausable", "Pause", "current", "pause", "resume"]


def current(journal: Operations) -> list[Pause]:
    """Return the pauses that are in force, oldest first; a kind may have several."""
    return journal.pauses()


def pause(
    journal: Operations,
    kinds: Sequence[Pausable],
    actor: Actor,
    reason: str,
    until: float | None = None,
) -> list[Pause]:
    """Pause these kinds until then (Unix seconds; None: until they are resumed), on record.

    All workers stop consuming the kinds' queues within some 2 s. A pause that is in force already
    stays: a kind goes on when its last pause has ended, or it is resumed.
    """
    return journal.pause(kinds, actor, reason, until)


def resume(
    journal: Operations, kinds: Sequence[Pausable], actor: Actor, reason: str | None = None
) -> list[Pause]:
    """End all pauses of these kinds, on record; return those that were in force."""
    return journal.resume(kinds, actor, reason)

"""Values that operators enter in forms."""

from datetime import UTC, datetime

from gateway.console.pages import Problem, Visit
from workers.journal import Actor

#: Characters of a reason.
_LONGEST_REASON = 500


def actor_of(visit: Visit) -> Actor:
    """Return the operator as the audit record names it."""
    who = visit.who
    return Actor(who.name, who.real_user, who.address)


def reason_of(visit: Visit, *, required: bool, name: str = "reason") -> str:
    """Return the reason that a form gives. Raises `Problem`."""
    reason = visit.given(name)
    if required and not reason:
        raise Problem(400, "Give a reason: the audit record keeps it.")
    if len(reason) > _LONGEST_REASON or not reason.isprintable():
        raise Problem(400, "The reason must be a line of at most 500 printable characters.")
    return reason


def instant(text: str) -> float | None:
    """Return an instant of a form (UTC) as Unix seconds. Raises `Problem`."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(400, "This is no time; an example is 2026-11-23T10:00.", text) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()

"""Publications that cannot go out for now: some wait for the channel, some for a queue that refuses
them.

A queue that is full must hold up neither the others nor change the order of what goes to it: of the
publications with one exchange and routing key one is tried, later and later, and the rest stays
behind it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic

from handlers.effects.backoff import delay_after
from workers.amqp.envelope import Publication, Published

#: Seconds before publishing again after the broker said no (a queue is full, an exchange is
#: missing).
FIRST_DELAY, LONGEST_DELAY = 0.2, 10.0
#: Lines of which it is known since when they have been refused.
_MOST_REMEMBERED = 1000


@dataclass(slots=True, eq=False)
class Entry:
    """A publication on its way; `number` is its place among all, `sent_at` monotonic time."""

    publication: Publication
    number: int
    future: "asyncio.Future[Published]"
    sent_at: float = 0.0
    returned: bool = field(default=False)


@dataclass(slots=True)
class _BlockedRoute:
    """The publications with one exchange and routing key, while its queue refuses them."""

    entries: list[Entry] = field(default_factory=list)
    #: The one that is tried.
    trial: Entry | None = None
    #: Whether the next trial is on the clock; never two at once, though what waited for it may have
    #: been given up.
    is_timed: bool = False
    failures: int = 0


class SendQueue:
    """Publications that wait. `on_trial` is called when one of a blocked route may be sent."""

    def __init__(self, on_trial: Callable[[], None]) -> None:
        self._on_trial = on_trial
        self._waiting: deque[Entry] = deque()
        self._blocked: dict[tuple[str, str], _BlockedRoute] = {}
        #: Since when a blocked has been refused without anything of it having been taken, in
        #: monotonic time.
        self._since: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        return len(self._waiting) + sum(len(blocked.entries) for blocked in self._blocked.values())

    @property
    def has_waiting(self) -> bool:
        """True where one may be sent."""
        return bool(self._waiting)

    def add(self, entry: Entry) -> None:
        """Append a publication."""
        self._waiting.append(entry)

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Prepend publications in this order: they were sent, and it is not known whether they
        arrived.
        """
        self._waiting.extendleft(reversed(list(entries)))

    def take(self) -> Entry | None:
        """Return the next publication to send; None where there is none."""
        while self._waiting:
            entry = self._waiting.popleft()
            # Nearly always no route is blocked.
            blocked = self._blocked.get(entry.publication.route) if self._blocked else None
            if entry.future.done():  # nobody waits for it any more
                self.ended(entry)
            elif blocked is None or blocked.trial is entry:
                return entry
            else:
                blocked.entries.append(entry)
        return None

    def refused(self, entry: Entry) -> None:
        """Block the route of a publication that its queue did not take; it is tried again later."""
        self._since.setdefault(entry.publication.route, monotonic())
        if len(self._since) > _MOST_REMEMBERED:
            del self._since[next(iter(self._since))]
        blocked = self._blocked.setdefault(entry.publication.route, _BlockedRoute())
        blocked.entries.append(entry)
        if blocked.trial is entry:
            blocked.trial = None
        if blocked.trial is None and not blocked.is_timed:
            blocked.is_timed = True
            asyncio.get_running_loop().call_later(
                delay_after(blocked.failures, FIRST_DELAY, LONGEST_DELAY),
                self._try,
                entry.publication.route,
            )
            blocked.failures += 1

    def ended(self, entry: Entry) -> None:
        """Note that a publication was taken, or given up: if it was the one that is tried, its
        route is free again.
        """
        blocked = self._blocked.get(entry.publication.route)
        if blocked is not None and blocked.trial is entry:
            del self._blocked[entry.publication.route]
            self._release(entry.publication.route, blocked.entries)

    def _release(self, name: tuple[str, str], entries: list[Entry]) -> None:
        """Queue publications in their order, so that none that came later overtakes them: one may
        wait to be sent.
        """
        behind = [one for one in self._waiting if one.publication.route == name]
        if behind:
            self._waiting = deque(one for one in self._waiting if one.publication.route != name)
        self._waiting.extend(sorted([*entries, *behind], key=lambda one: one.number))

    def taken(self, entry: Entry) -> None:
        """Note that the broker has confirmed a publication."""
        self._since.pop(entry.publication.route, None)
        self.ended(entry)

    def give_up(self) -> None:
        """End publications that have waited for their queue for as long as they may.

        Never one that is being tried, or waits for a connection: the broker may have it.
        """
        now = monotonic()
        for name, blocked in self._blocked.items():
            refused_for = now - self._since.get(name, now)
            ended = [one for one in blocked.entries if _is_out_of_patience(one, refused_for)]
            if ended:
                blocked.entries = [
                    one for one in blocked.entries if not _is_out_of_patience(one, refused_for)
                ]
            for entry in ended:
                if not entry.future.done():
                    entry.future.set_result(Published.REFUSED)

    def _try(self, name: tuple[str, str]) -> None:
        blocked = self._blocked[name]
        blocked.is_timed = False
        if not blocked.entries:  # all were given up
            del self._blocked[name]
            return
        blocked.trial = min(blocked.entries, key=lambda one: one.number)
        blocked.entries.remove(blocked.trial)
        self._waiting.append(blocked.trial)
        self._on_trial()


def _is_out_of_patience(entry: Entry, refused_for: float) -> bool:
    return entry.publication.patience is not None and refused_for > entry.publication.patience

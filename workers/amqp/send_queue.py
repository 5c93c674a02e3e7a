"""Publications that cannot go out for now: which wait for the channel, and which for a queue that
refuses them.

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
from workers.amqp.publication import Entry, Published

#: Seconds before publishing again after the broker said no (a queue is full, an exchange is
#: missing).
FIRST_DELAY, LONGEST_DELAY = 0.2, 10.0
#: Lines of which it is known since when they have been refused.
_MOST_REMEMBERED = 1000


@dataclass(slots=True)
class _Line:
    """What goes to one routing key, while it is refused."""

    entries: list[Entry] = field(default_factory=list)
    #: The one that is tried.
    trial: Entry | None = None
    #: Whether the next trial is on the clock; never two at once, though what waited for it may have
    #: been given up.
    is_timed: bool = False
    failures: int = 0


class SendQueue:
    """What waits. `on_trial` is called when one of a line has been put among those that may be
    sent.
    """

    def __init__(self, on_trial: Callable[[], None]) -> None:
        self._on_trial = on_trial
        self._waiting: deque[Entry] = deque()
        self._lines: dict[tuple[str, str], _Line] = {}
        #: Since when a line has been refused without anything of it having been taken, in monotonic
        #: time.
        self._since: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        return len(self._waiting) + sum(len(line.entries) for line in self._lines.values())

    @property
    def has_waiting(self) -> bool:
        """Whether one may be sent."""
        return bool(self._waiting)

    def add(self, entry: Entry) -> None:
        """Behind all others."""
        self._waiting.append(entry)

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Before all others, in this order: they were sent, and it is not known whether they
        arrived.
        """
        self._waiting.extendleft(reversed(list(entries)))

    def take(self) -> Entry | None:
        """The next to send; None where there is none."""
        while self._waiting:
            entry = self._waiting.popleft()
            line = self._lines.get(entry.publication.line)
            if entry.future.done():  # nobody waits for it any more
                self.ended(entry)
            elif line is None or line.trial is entry:
                return entry
            else:
                line.entries.append(entry)
        return None

    def refused(self, entry: Entry) -> None:
        """Its queue did not take it: it is tried again later, and what goes to the same line waits
        for it.
        """
        self._since.setdefault(entry.publication.line, monotonic())
        if len(self._since) > _MOST_REMEMBERED:
            del self._since[next(iter(self._since))]
        line = self._lines.setdefault(entry.publication.line, _Line())
        line.entries.append(entry)
        if line.trial is entry:
            line.trial = None
        if line.trial is None and not line.is_timed:
            line.is_timed = True
            asyncio.get_running_loop().call_later(
                delay_after(line.failures, FIRST_DELAY, LONGEST_DELAY),
                self._try,
                entry.publication.line,
            )
            line.failures += 1

    def ended(self, entry: Entry) -> None:
        """It was taken, or given up: if it was the one that is tried, the rest may follow."""
        line = self._lines.get(entry.publication.line)
        if line is not None and line.trial is entry:
            del self._lines[entry.publication.line]
            self._let_go(entry.publication.line, line.entries)

    def _let_go(self, name: tuple[str, str], entries: list[Entry]) -> None:
        """In their order, and so that none that came later overtakes them: it may wait for its turn
        to be sent.
        """
        behind = [one for one in self._waiting if one.publication.line == name]
        if behind:
            self._waiting = deque(one for one in self._waiting if one.publication.line != name)
        self._waiting.extend(sorted([*entries, *behind], key=lambda one: one.number))

    def taken(self, entry: Entry) -> None:
        """The broker has it."""
        self._since.pop(entry.publication.line, None)
        self.ended(entry)

    def give_up(self) -> None:
        """End what has waited for its queue for as long as it may.

        Never one that is being tried, or waits for a connection: the broker may have it.
        """
        now = monotonic()
        for name, line in self._lines.items():
            refused_for = now - self._since.get(name, now)
            ended = [one for one in line.entries if _is_out_of_patience(one, refused_for)]
            if ended:
                line.entries = [
                    one for one in line.entries if not _is_out_of_patience(one, refused_for)
                ]
            for entry in ended:
                if not entry.future.done():
                    entry.future.set_result(Published.REFUSED)

    def _try(self, name: tuple[str, str]) -> None:
        line = self._lines[name]
        line.is_timed = False
        if not line.entries:  # all were given up
            del self._lines[name]
            return
        line.trial = min(line.entries, key=lambda one: one.number)
        line.entries.remove(line.trial)
        self._waiting.append(line.trial)
        self._on_trial()


def _is_out_of_patience(entry: Entry, refused_for: float) -> bool:
    return entry.publication.patience is not None and refused_for > entry.publication.patience

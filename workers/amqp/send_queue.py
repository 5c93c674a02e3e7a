"""Publications that cannot go out for now: some wait for the channel, some for a queue that refuses
them or does not answer.

A queue that is full, or has no leader, must neither hold up the others nor change the order of what
goes to it: of the publications with one exchange and routing key (a route) one is tried, apart from
all others, later and later, and the rest stays behind it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic

from handlers.effects.backoff import delay_after
from workers.amqp.envelope import Publication, Published

Route = tuple[str, str]

#: Seconds before publishing again after the broker said no (a queue is full, an exchange is
#: missing).
FIRST_DELAY, LONGEST_DELAY = 0.2, 10.0
#: Seconds in which a trial is confirmed that keeps the broker from nothing, with those before it.
_PROMPT = 5.0
#: Routes of which it is known since when they have taken nothing.
_MOST_REMEMBERED = 1000


@dataclass(slots=True, eq=False)
class Entry:
    """A publication on its way; `number` is its place among all. `since` (when it was handed over)
    and `sent_at` (when it was last sent) are monotonic time.
    """

    publication: Publication
    number: int
    future: "asyncio.Future[Published]"
    since: float
    sent_at: float = 0.0
    returned: bool = field(default=False)


@dataclass(slots=True)
class _BlockedRoute:
    """The publications of a route that takes nothing, or may be such a one."""

    #: Since when, in monotonic time.
    since: float
    entries: list[Entry] = field(default_factory=list)
    #: The one that is tried: the broker may have it.
    trial: Entry | None = None
    #: Whether the next trial is on the clock; never two at once, though what waited for it may have
    #: been given up.
    is_timed: bool = False
    failures: int = 0


class SendQueue:
    """Publications that wait. `on_trial` is called with the one of a blocked route that is to be
    sent where it can hold up no other one; `taken` or `refused` follows.
    """

    def __init__(self, on_trial: Callable[[Entry], None]) -> None:
        self._on_trial = on_trial
        self._waiting: deque[Entry] = deque()
        self._blocked: dict[Route, _BlockedRoute] = {}
        #: Since when a route has taken nothing, in monotonic time; kept while nothing goes there.
        self._since: dict[Route, float] = {}
        #: Since when each publication is tried apart, in monotonic time: while one keeps the broker
        #: from answering, the next may do so, too.
        self._careful_since: float | None = None

    @property
    def is_careful(self) -> bool:
        """True while each publication is tried apart."""
        return self._careful_since is not None

    @property
    def is_waited_for(self) -> bool:
        """True where somebody waits for one that waits, or is tried."""
        return bool(self._waiting) or any(not one.future.done() for one in self.entries())

    def __len__(self) -> int:
        """Count those that wait, or are tried, and that somebody waits for."""
        if not self._blocked:
            return len(self._waiting)
        return sum(not one.future.done() for one in self.entries())

    def entries(self) -> Iterator[Entry]:
        """Return all that wait or are tried; what is tried may have been given up."""
        yield from self._waiting
        for blocked in self._blocked.values():
            yield from blocked.entries
            if blocked.trial is not None:
                yield blocked.trial

    def add(self, entry: Entry) -> None:
        """Append a publication."""
        self._waiting.append(entry)

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Prepend publications in this order: they were sent, and it is not known whether they
        arrived.
        """
        for entry in reversed(list(entries)):
            blocked = self._blocked.get(entry.publication.route)
            if blocked is not None and blocked.trial is entry:
                self._on_trial(entry)
            else:
                self._waiting.appendleft(entry)

    def take(self) -> Entry | None:
        """Return the next publication to send with all others; None where there is none."""
        while self._waiting:
            entry = self._waiting.popleft()
            route = entry.publication.route
            if entry.future.done():  # nobody waits for it any more
                continue
            # Nearly always every route takes what it gets. One that took nothing last time may have
            # no leader still, and would keep the broker from answering for all others.
            if self._careful_since is not None or (
                (self._blocked or self._since) and (route in self._blocked or route in self._since)
            ):
                self.suspect(entry)
            else:
                return entry
        return None

    def suspect(self, entry: Entry) -> None:
        """Try a publication apart from all others: because of it, or of one that was sent with it,
        the broker answers nothing or has closed the channel.
        """
        blocked = self._block(entry, monotonic())
        if blocked.trial is entry:  # it was left where it had been sent
            self._on_trial(entry)
            return
        blocked.entries.append(entry)
        if blocked.trial is None and not blocked.is_timed:
            self._begin_trial(entry.publication.route)

    def unanswered(self, entry: Entry) -> None:
        """Block the route of a publication whose confirm is overdue while later ones are confirmed.
        It stays where it is sent and counts as the trial: its queue may be about to take it.
        """
        self._remember(entry, entry.sent_at)
        blocked = self._block(entry, entry.sent_at)
        if blocked.trial is None:
            blocked.trial = entry

    def refused(self, entry: Entry) -> None:
        """Block the route of a publication that its queue did not take; it is tried again later."""
        self._remember(entry, monotonic())
        blocked = self._block(entry, monotonic())
        if not entry.future.done():
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

    def taken(self, entry: Entry) -> None:
        """Note that the broker has confirmed a publication."""
        if self._since or self._blocked:
            self._since.pop(entry.publication.route, None)
            self.ended(entry)

    def ended(self, entry: Entry) -> None:
        """Note that a publication was taken, or cannot be written: if it was the one that is tried,
        its route is free again.
        """
        route = entry.publication.route
        blocked = self._blocked.get(route)
        if blocked is not None and blocked.trial is entry:
            del self._blocked[route]
            self._release(route, blocked.entries)

    def give_up(self, sent: Iterable[Entry] = ()) -> None:
        """End publications that have waited for their queue for as long as they may, among them
        those of `sent` that stay where they were sent.

        The broker may have the one that is tried, and deliver it later: whoever gets the result
        twice knows it by its message id.
        """
        now = monotonic()
        for entry in sent:
            since = self._since.get(entry.publication.route, now)
            self._end_impatient(entry, now - since)
        for blocked in self._blocked.values():
            refused_for = now - blocked.since
            blocked.entries = [
                one for one in blocked.entries if not self._end_impatient(one, refused_for)
            ]
            if blocked.trial is not None and self._end_impatient(blocked.trial, refused_for):
                self._remember(blocked.trial, blocked.since)
        self._relax(now)

    def forget_cancelled(self) -> None:
        """Let go of what nobody waits for any more: a request whose result has no way out comes
        again, with another one each time. What is tried is left until the broker answers.
        """
        if any(one.future.done() for one in self._waiting):
            self._waiting = deque(one for one in self._waiting if not one.future.done())
        for blocked in self._blocked.values():
            blocked.entries = [one for one in blocked.entries if not one.future.done()]

    def be_careful(self) -> None:
        """Try each publication apart, until no trial is without an answer for long."""
        self._careful_since = monotonic()

    def _relax(self, now: float) -> None:
        since = self._careful_since
        if since is None or now - since <= _PROMPT:
            return
        if not any(
            blocked.trial is not None and now - blocked.since > _PROMPT
            for blocked in self._blocked.values()
        ):
            self._careful_since = None

    def _end_impatient(self, entry: Entry, refused_for: float) -> bool:
        """Return True where a publication has waited for as long as it may, and is at its end."""
        patience = entry.publication.patience
        if patience is None or refused_for <= patience:
            return False
        if not entry.future.done():
            entry.future.set_result(Published.REFUSED)
        return True

    def _block(self, entry: Entry, since: float) -> _BlockedRoute:
        route = entry.publication.route
        found = self._blocked.get(route)
        if found is None:
            found = self._blocked[route] = _BlockedRoute(self._since.get(route, since))
        return found

    def _remember(self, entry: Entry, since: float) -> None:
        self._since.setdefault(entry.publication.route, since)
        if len(self._since) > _MOST_REMEMBERED:
            del self._since[next(iter(self._since))]

    def _release(self, route: Route, entries: list[Entry]) -> None:
        """Queue publications in their order, so that none that came later overtakes them: one may
        wait to be sent.
        """
        behind = [one for one in self._waiting if one.publication.route == route]
        if behind:
            self._waiting = deque(one for one in self._waiting if one.publication.route != route)
        self._waiting.extend(sorted([*entries, *behind], key=lambda one: one.number))

    def _try(self, route: Route) -> None:
        blocked = self._blocked.get(route)
        if blocked is None:  # one that had been sent before was taken meanwhile
            return
        blocked.is_timed = False
        if blocked.trial is None:
            self._begin_trial(route)

    def _begin_trial(self, route: Route) -> None:
        """Have the oldest publication of a route sent; where all were given up, forget the route."""
        blocked = self._blocked[route]
        waiting = [one for one in blocked.entries if not one.future.done()]
        if not waiting:
            del self._blocked[route]
            return
        trial = min(waiting, key=lambda one: one.number)
        blocked.entries = [one for one in waiting if one is not trial]
        blocked.trial = trial
        self._on_trial(trial)

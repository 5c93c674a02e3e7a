"""Stage 3: requests are begun in turn by tenant; what waits for its turn is authenticated and light.

So many are begun at once for each queue: reads, changes, and again as many of what was requeued, and
of what comes from retry queues. These may hold the locks of servers, for which others wait: they
must not stand behind what came later. Within a tenant the order is that of arrival, and so is that of
the server locks, whose tickets are drawn afterwards: a change waits until those of its tenant have
been begun that were requeued. What comes from a retry queue has its tickets.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import structlog

from handlers.effects.backoff import Deadline, within
from handlers.effects.concurrency import Tenant, Turns
from workers.amqp.consumer import Delivery
from workers.identity import Requester
from workers.pipeline.exits import Requeue
from workers.pipeline.timeouts import ANSWER_WITHIN, HOLD, Timing
from workers.request import Request

log = structlog.get_logger()


class _Lane(Enum):
    READS = "reads"
    CHANGES = "changes"
    REQUEUED = "requeued"
    RETRIED = "retried"


@dataclass(slots=True)
class Turn:
    """The turn of one request; `timing` counts from it."""

    timing: Timing
    _place: Tenant | None

    def end(self) -> None:
        """Let another request have its turn."""
        if self._place is not None:
            self._place.turns.release(self._place)


class RequestTurns:
    """Says when a request is begun."""

    def __init__(self, most: int) -> None:
        """Set `most`, the requests that are begun at once of each queue and kind."""
        self._most = most
        self._lines: dict[tuple[str, _Lane], Turns] = {}
        self._paused: frozenset[str] = frozenset()
        self._given_back: frozenset[str] = frozenset()
        self._is_closed = False
        #: Requests that wait for their turn.
        self.waiting = 0

    def line_of(self, request: Request) -> Turns:
        """Return the line that a request stands in. Raises `Requeue` where those of its queue are
        given back.
        """
        envelope = request.envelope
        if envelope.queue in self._given_back:
            raise Requeue
        lane = _Lane.CHANGES if request.name is not None else _Lane.READS
        if not envelope.is_first:
            lane = _Lane.RETRIED
        elif envelope.redelivered:
            lane = _Lane.REQUEUED
        return self._line(envelope.queue, lane)

    def _line(self, queue: str, lane: _Lane) -> Turns:
        found = self._lines.get((queue, lane))
        if found is None:
            before = self._line(queue, _Lane.REQUEUED) if lane is _Lane.CHANGES else None
            found = self._lines[queue, lane] = Turns(self._most, before)
            found.pause(is_paused=queue in self._paused)
        return found

    def at_once(self, line: Turns, requester: Requester, timing: Timing) -> Turn | None:
        """Return the turn of a request that need not wait for it; None where it must. Raises
        `Requeue` where nothing is begun any more.
        """
        if self._is_closed:
            raise Requeue
        place = line.take_free(requester.project_id)
        return Turn(timing, place) if place is not None else None

    async def wait(
        self, line: Turns, requester: Requester, timing: Timing, delivery: Delivery
    ) -> Turn:
        """Wait for a request's turn. Raises `Requeue` where it does not come in time, or its queue's
        next delivery is to be begun by another worker.

        One whose own deadline passes meanwhile goes on without a place: it begins nothing any more,
        and is answered. So does an order that has waited for as long as it may be held: it keeps its
        place at the locks of its servers, and goes on by way of a retry queue.
        """
        queue, until, asked = delivery.envelope.queue, _until(timing), time.monotonic()
        place = None
        self.waiting += 1
        limit = within(until if timing.deadline is None else min(until, timing.deadline))
        try:
            with limit:
                place = await line.take(requester.project_id, delivery)
        except TimeoutError:
            if not limit.expired:
                raise
            is_order = timing.limit is None
            if until.passed and (not is_order or queue in self._paused):
                log.warning("request.turn_did_not_come", queue=queue)
                raise Requeue from None
        finally:
            self.waiting -= 1
        if delivery.envelope.is_first:
            timing = timing.waited(time.monotonic() - asked)
        return Turn(timing, place)

    def pause(self, queues: Iterable[str]) -> None:
        """Begin nothing of these queues until they are no longer named: what waits goes on waiting."""
        self._paused = frozenset(queues)
        for (queue, _), turns in self._lines.items():
            turns.pause(is_paused=queue in self._paused)

    def give_back(self, queues: Iterable[str]) -> None:
        """Requeue what waits of these queues, and whatever comes of them, until they are no longer
        named.
        """
        self._given_back = frozenset(queues)
        for (queue, _), turns in reversed(self._lines.items()):
            if queue in self._given_back:
                turns.refuse(Requeue)

    def gives_back(self, queue: str) -> bool:
        """Return whether the requests of a queue are given back."""
        return queue in self._given_back

    def give_up_lost(self) -> None:
        """Let go of what waits and whose connection is gone: its messages come again."""
        for turns in self._lines_from_the_last():
            turns.refuse(Requeue, _is_lost)

    def close(self) -> None:
        """Requeue what waits, and whatever comes from now on."""
        self._is_closed = True
        for turns in self._lines_from_the_last():
            turns.refuse(Requeue)

    def _lines_from_the_last(self) -> list[Turns]:
        """Return the lines, each before the one that it waits for: of what is refused together
        nothing has its turn first.
        """
        return list(reversed(self._lines.values()))


def _until(timing: Timing) -> Deadline:
    """Return until when a turn is waited for: an order for as long as it is held; a command must
    then have its whole time, unless that is longer than half of what it may be held.
    """
    if timing.limit is None:
        return timing.hold
    takes = timing.limit.at - timing.received + ANSWER_WITHIN
    return Deadline(timing.hold.at - min(takes, HOLD / 2))


def _is_lost(delivery: Delivery) -> bool:
    return delivery.lost

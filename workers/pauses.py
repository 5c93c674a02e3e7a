"""Pauses that operators have ordered, as one worker obeys them.

The journal is asked every 2 s. While it cannot be read, what was known last holds, until the end
that each pause has.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog

from workers.amqp.names import Names
from workers.journal import Journal, JournalError, Pausable, Pause
from workers.metrics import Series

log = structlog.get_logger()

#: Seconds between two looks at the journal, and at the clock.
LOOK_EVERY, CLOCK_EVERY = 2.0, 0.5


def queues_of(names: Names) -> Mapping[Pausable, str]:
    """Return the queue of each kind."""
    return {
        Pausable.READS: names.reads_queue,
        Pausable.SERVERS: names.servers_queue,
        Pausable.IMAGES: names.images_queue,
        Pausable.ORDERS: names.orders_queue,
    }


class Pauses:
    """The pauses in force. `on_change` is called when a kind is paused or goes on."""

    def __init__(self, journal: Journal, names: Names, on_change: Callable[[], None]) -> None:
        self._journal = journal
        self._namespace = names.namespace
        self._queues = queues_of(names)
        self._on_change = on_change
        self._known: tuple[Pause, ...] = ()

    @property
    def in_force(self) -> tuple[Pause, ...]:
        """The pauses, oldest first; a kind may have several."""
        return self._known

    @property
    def queues(self) -> frozenset[str]:
        """The queues that are not to be consumed."""
        return frozenset(self._queues[one.kind] for one in self._known)

    def series(self) -> Series:
        """Return a series for each kind and its queue: 1 where it is paused, otherwise 0."""
        paused = {one.kind for one in self._known}
        for kind, queue in self._queues.items():
            yield (kind.value, queue), float(kind in paused)

    def lines(self, queue: str | None = None) -> list[str]:
        """Return a line for each pause in force, of this queue or of all."""
        return [
            f"{one.kind.value} are paused{_until(one)} by {one.operator}: {one.reason}"
            for one in self._known
            if queue is None or self._queues[one.kind] == queue
        ]

    async def read(self) -> None:
        """Read the pauses from the journal; what holds meanwhile ends when it is over."""
        asking = asyncio.ensure_future(self._journal.controls(self._namespace))
        try:
            while not asking.done():
                await asyncio.wait((asking,), timeout=CLOCK_EVERY)
                self._set(self._known)
            self._set((await asking).pauses)
        except JournalError as error:
            log.warning("pauses.not_read", why=str(error))
        finally:
            asking.cancel()

    async def watch(self) -> None:
        """Read them again and again, until cancelled."""
        while True:
            for _ in range(round(LOOK_EVERY / CLOCK_EVERY)):
                await asyncio.sleep(CLOCK_EVERY)
                self._set(self._known)
            await self.read()

    def _set(self, pauses: tuple[Pause, ...]) -> None:
        """Obey these pauses, but those that are over."""
        now, before = time.time(), self._known
        self._known = tuple(one for one in pauses if not one.is_over(now))
        if self._known == before:
            return
        for one in self._known:
            if one not in before:
                log.warning(
                    "queue.paused",
                    kind=one.kind.value,
                    operator=one.operator,
                    reason=one.reason,
                    until=one.until,
                )
        for kind in {one.kind for one in before} - {one.kind for one in self._known}:
            log.warning("queue.resumed", kind=kind.value)
        self._on_change()


def _until(pause: Pause) -> str:
    if pause.until is None:
        return ""
    return time.strftime(" until %Y-%m-%d %H:%M:%SZ", time.gmtime(pause.until))

"""Acks, grouped: one write for many deliveries."""

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Acks:
    """Acks to send: everything up to the tag `multiple` (0: nothing), and these single tags."""

    multiple: int
    single: tuple[int, ...]


class AckWindow:
    """The settled deliveries of a channel: one `multiple` ack below the oldest that is not settled,
    single acks above it.
    """

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._settled: set[int] = set()
        self._acked: set[int] = set()
        self._fresh: list[int] = []

    def delivered(self, tag: int) -> None:
        """Note a delivery; tags only grow."""
        self._open.append(tag)

    def settled(self, tag: int) -> bool:
        """Note that a delivery is settled; True for the first one since the last `take`."""
        self._settled.add(tag)
        self._fresh.append(tag)
        return len(self._fresh) == 1

    def requeued(self, tag: int) -> None:
        """Note that a delivery was requeued: it is no longer ours to ack."""
        self._settled.add(tag)
        self._acked.add(tag)

    def take(self) -> Acks:
        """Return the acks to send now, each tag just once."""
        multiple = 0
        while self._open and self._open[0] in self._settled:
            tag = self._open.popleft()
            self._settled.discard(tag)
            # One that was acked singly before must not be named again: the broker closes the
            # channel for it.
            if tag in self._acked:
                self._acked.discard(tag)
            else:
                multiple = tag
        single = tuple(sorted(tag for tag in self._fresh if tag in self._settled))
        self._acked.update(single)
        self._fresh = []
        return Acks(multiple, single)

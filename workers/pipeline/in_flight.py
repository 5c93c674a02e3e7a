"""The requests under way in this process: whoever asks for one again waits for its answer."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from messages.results import Result


@dataclass(slots=True)
class InFlight:
    """One of them. `answered` is cancelled where it ended without an answer."""

    digest: str
    answered: "asyncio.Future[Result]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self) -> Result | None:
        """The answer, as soon as there is one; None where it ended without."""
        try:
            return await asyncio.shield(self.answered)
        except asyncio.CancelledError:
            if self.answered.cancelled():
                return None
            raise


class InFlightRequests:
    """All of them, by their keys."""

    def __init__(self) -> None:
        self._by_key: dict[str, InFlight] = {}

    def get(self, key: str) -> InFlight | None:
        """The one with this key."""
        return self._by_key.get(key)

    def ended_event(self, key: str) -> asyncio.Event | None:
        """What is set when the request has ended; None where it is not under way here."""
        flight = self._by_key.get(key)
        return flight.ended if flight is not None else None

    @contextmanager
    def begun(self, key: str, digest: str) -> Iterator[InFlight]:
        """Inside it the request is under way."""
        flight = self._by_key[key] = InFlight(digest)
        try:
            yield flight
        finally:
            del self._by_key[key]
            flight.answered.cancel()
            flight.ended.set()

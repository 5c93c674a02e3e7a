"""The requests under way in this process: a duplicate waits for the first one's answer."""

import asyncio
from dataclasses import dataclass, field

from messages.results import Result


@dataclass(slots=True)
class InFlight:
    """A request under way. `answered` is cancelled where it ended without an answer."""

    digest: str
    answered: "asyncio.Future[Result]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self) -> Result | None:
        """Return the answer, as soon as there is one; None where the request ended without."""
        try:
            return await asyncio.shield(self.answered)
        except asyncio.CancelledError:
            if self.answered.cancelled():
                return None
            raise


class InFlightRequests:
    """All requests under way in this process, by their keys."""

    def __init__(self) -> None:
        self._by_key: dict[str, InFlight] = {}

    def get(self, key: str) -> InFlight | None:
        """Return the request with this key; None where it is not under way here."""
        return self._by_key.get(key)

    def begin(self, key: str, digest: str) -> InFlight:
        """Keep a request as under way until `end`."""
        flight = self._by_key[key] = InFlight(digest)
        return flight

    def end(self, key: str, flight: InFlight) -> None:
        """Note that a request is no longer under way here: whoever waits for it goes on."""
        del self._by_key[key]
        flight.answered.cancel()
        flight.ended.set()

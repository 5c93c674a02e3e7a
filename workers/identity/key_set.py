"""The key set, kept fresh: fetched when it is needed, and seldom."""

import asyncio
import time

import structlog
from structlog.contextvars import clear_contextvars

from handlers.effects.concurrency import in_daemon_thread
from messages.errors import Transient
from workers.identity.jwks import VerifyingKey, usable_keys
from workers.identity.jwks_source import TOTAL, KeySetError, KeySource

log = structlog.get_logger()

#: Seconds between two fetches for the sake of a key that is not in the set: whoever makes key ids
#: up is not to have the issuer asked each time.
REFRESH_EVERY = 30.0
#: Seconds between two tries as long as there is no set at all, and nobody can be told.
FIRST_EVERY = 2.0
#: Seconds between two fetches in any case, beside the work.
RENEW = 240.0
#: Seconds after which no key counts before the set has been asked for again. With the time of a
#: fetch it is less than the ten minutes in which a withdrawn key stops counting.
FRESH = 540.0
REASON = "keys"


class Keys:
    """The usable keys of one source. What was fetched once is kept as long as nothing newer can be
    had.
    """

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self._keys: tuple[VerifyingKey, ...] = ()
        self._tried_at = -REFRESH_EVERY
        self._refreshing: asyncio.Task[None] | None = None
        #: Grows with every change of the set.
        self.generation = 0
        #: Why the last fetch failed; None where it went well.
        self.trouble: str | None = "not fetched yet"
        #: When the set was last fetched well, in Unix seconds; 0 for never.
        self.fetched_at = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether the set has never been fetched: then nobody can be told."""
        return not self._keys

    async def find(self, kid: str | None, algorithm: str) -> tuple[VerifyingKey, ...]:
        """The keys that a token with this key id and algorithm may have been signed with; empty
        where there are none.

        `Transient` where the set cannot be reached, and might have it.
        """
        found = self._named(kid, algorithm)
        if found:
            return found
        if self._refreshing is not None or self._is_due(
            FIRST_EVERY if self.is_empty else REFRESH_EVERY
        ):
            await asyncio.shield(self._refreshing or self._refresh())
            found = self._named(kid, algorithm)
        if not found and self.trouble is not None:
            raise Transient(REASON, detail=f"the key set cannot be had: {self.trouble}")
        return found

    async def fetch(self) -> None:
        """Fetch the set now, or wait for whoever does; afterwards `trouble` says how it went."""
        await asyncio.shield(self._refreshing or self._refresh())

    async def renew_when_old(self) -> None:
        """Fetch the set where it has not been asked for within `FRESH`: a key may have been
        withdrawn.

        To be awaited before anything that a key has verified counts, also what was verified before.
        A set that cannot be had is asked for again by `watch`; until then nobody waits, and the
        keys that are known go on counting.
        """
        if time.monotonic() - self._tried_at >= FRESH:
            await asyncio.shield(self._refreshing or self._refresh())

    async def watch(self) -> None:
        """Fetch the set now and every `RENEW` seconds, sooner after a failure; until cancelled."""
        while True:
            await self.fetch()
            await asyncio.sleep(RENEW if self.trouble is None else REFRESH_EVERY)

    def next_look(self) -> float:
        """Seconds until the set may be fetched again for a key that is not in it."""
        return max(0.0, self._tried_at + REFRESH_EVERY - time.monotonic())

    def _is_due(self, every: float) -> bool:
        return self._refreshing is None and time.monotonic() - self._tried_at >= every

    def _named(self, kid: str | None, algorithm: str) -> tuple[VerifyingKey, ...]:
        # Without an id there is no choice to be made: the set must have one key only.
        if kid is None:
            return (
                self._keys if len(self._keys) == 1 and algorithm in self._keys[0].algorithms else ()
            )
        return tuple(key for key in self._keys if key.kid == kid and algorithm in key.algorithms)

    def _refresh(self) -> "asyncio.Task[None]":
        self._tried_at = time.monotonic()
        self._refreshing = asyncio.get_running_loop().create_task(self._fetch())
        return self._refreshing

    async def _fetch(self) -> None:
        clear_contextvars()  # it is nobody's, though a request had it begun
        started = time.time()
        try:
            async with asyncio.timeout(TOTAL + 5):
                keys = usable_keys(await in_daemon_thread(self._source.read, "keys"))
        except (KeySetError, TimeoutError) as error:
            self._note_trouble(str(error) or "no answer in time")
        else:
            self._note(keys, started)
        finally:
            self._refreshing = None

    def _note(self, keys: tuple[VerifyingKey, ...], started: float) -> None:
        if keys != self._keys:
            self._keys = keys
            self.generation += 1
            log.info("keys.fetched", source=self._source.name, kids=[key.kid for key in keys])
        elif self.trouble is not None:
            log.info("keys.well_again", source=self._source.name)
        self.trouble, self.fetched_at = None, started

    def _note_trouble(self, why: str) -> None:
        if why != self.trouble:
            log.warning("keys.not_reached", source=self._source.name, why=why, kept=len(self._keys))
        self.trouble = why

"""The key set that tokens are verified with, fetched again from time to time."""

import asyncio
import time
from contextvars import Context

import structlog

from handlers.effects.concurrency import in_daemon_thread
from messages.errors import Transient
from messages.record import record
from workers.identity.jwks import VerifyingKey, usable_keys
from workers.identity.jwks_source import KeySetError, KeySource

log = structlog.get_logger()

REASON = "keys"


@record
class FetchTimes:
    """Seconds between two fetches of the key set."""

    #: For a key that is not in it, and after a failed fetch: made-up key ids must not send a
    #: request to the issuer each.
    retry: float = 30.0
    #: While no key set has been fetched at all, and nobody can be authenticated.
    first: float = 2.0
    #: In the background, always.
    renew: float = 240.0
    #: After so many no key is accepted before another fetch was tried. With the time of a fetch it
    #: is less than the ten minutes in which a withdrawn key stops being accepted.
    fresh: float = 540.0


class KeySet:
    """The usable keys of one source. The last set is kept as long as no newer one can be fetched."""

    def __init__(self, source: KeySource, times: FetchTimes | None = None) -> None:
        self._source = source
        self._times = times or FetchTimes()
        self._keys: tuple[VerifyingKey, ...] = ()
        self._tried_at = -self._times.retry
        #: When it was last fetched for a key that was not in it. What `watch` fetches does not
        #: count: the issuer may begin to sign with a new key just after that.
        self._looked_at = -self._times.retry
        self._fetching: asyncio.Task[None] | None = None
        #: Grows with every change of the set.
        self.generation = 0
        #: Why the last fetch failed; None where it succeeded.
        self.trouble: str | None = "not fetched yet"
        #: When the last fetch that succeeded began, in Unix seconds; 0 for never.
        self.fetched_at = 0.0

    @property
    def is_empty(self) -> bool:
        """True until the set was fetched once: nobody can be authenticated."""
        return not self._keys

    async def find(self, kid: str | None, algorithm: str) -> tuple[VerifyingKey, ...]:
        """Return the keys that a token with this key id and algorithm may have been signed with.

        Raises `Transient` where the set cannot be fetched, and might have one.
        """
        found = self._select(kid, algorithm)
        if found:
            return found
        if self._fetching is not None:
            # RACE: it may have been read before the key was added.
            await self.fetch()
            found = self._select(kid, algorithm)
        if not found and self._may_look():
            self._looked_at = time.monotonic()
            await self.fetch()
            found = self._select(kid, algorithm)
        if not found and self.trouble is not None:
            raise Transient(REASON, detail=f"the key set cannot be had: {self.trouble}")
        return found

    async def fetch(self) -> None:
        """Fetch the set now, or wait for the fetch that is under way; `trouble` tells its outcome."""
        if self._fetching is None:
            self._tried_at = time.monotonic()
            # In a context of its own: its log lines are not those of the request that began it.
            self._fetching = asyncio.get_running_loop().create_task(
                self._fetch(), context=Context()
            )
        # The fetch goes on for the others when one who waits is cancelled.
        await asyncio.shield(self._fetching)

    async def renew_when_old(self) -> None:
        """Fetch the set where that was not tried for `FetchTimes.fresh`: a key may have been
        withdrawn.

        To be awaited before any token is accepted, also one that was verified before. After a
        failed fetch nobody waits for the next one, which `watch` makes, and the known keys stay
        valid.
        """
        if time.monotonic() - self._tried_at >= self._times.fresh:
            await self.fetch()

    async def watch(self) -> None:
        """Fetch the set now and again and again, until cancelled."""
        while True:
            await self.fetch()
            await asyncio.sleep(self._times.renew if self.trouble is None else self._times.retry)

    def next_look(self) -> float:
        """Return the seconds until the set may be fetched again for a key that is not in it."""
        return max(0.0, self._looked_at + self._times.retry - time.monotonic())

    def _may_look(self) -> bool:
        if self.is_empty:
            return time.monotonic() - self._tried_at >= self._times.first
        return time.monotonic() - self._looked_at >= self._times.retry

    def _select(self, kid: str | None, algorithm: str) -> tuple[VerifyingKey, ...]:
        # A token without a key id is only accepted where the set has one key alone.
        if kid is None:
            only = len(self._keys) == 1 and algorithm in self._keys[0].algorithms
            return self._keys if only else ()
        return tuple(key for key in self._keys if key.kid == kid and algorithm in key.algorithms)

    async def _fetch(self) -> None:
        started = time.time()
        try:
            async with asyncio.timeout(self._source.limit + 5):
                keys = usable_keys(await in_daemon_thread(self._source.read, "keys"))
        except (KeySetError, TimeoutError) as error:
            self._note_trouble(str(error) or "no answer in time")
        else:
            self._note(keys, started)
        finally:
            self._fetching = None

    def _note(self, keys: tuple[VerifyingKey, ...], started: float) -> None:
        if keys != self._keys:
            self._keys = keys
            self.generation += 1
            log.info("keys.fetched", source=self._source.name, kids=[key.kid for key in keys])
        elif self.trouble is not None:
            log.info("keys.recovered", source=self._source.name)
        self.trouble, self.fetched_at = None, started

    def _note_trouble(self, why: str) -> None:
        if why != self.trouble:
            log.warning(
                "keys.fetch_failed", source=self._source.name, why=why, kept=len(self._keys)
            )
        self.trouble = why

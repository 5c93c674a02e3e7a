"""A circuit breaker for what every request needs: while a dependency is down, the queues that need
it are not consumed, instead of being drained into retries.

Failing calls raise a suspicion; a probe of our own, which no tenant's rights or servers can make
fail, decides. The journal needs no probe: its writer knows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic

import structlog

from messages.errors import EcsError, Transient
from workers.amqp.names import Names

log = structlog.get_logger()

#: Calls that must fail in a row, and seconds for which they must have failed, before a service is
#: suspected.
SUSPICIOUS_FAILURES, SUSPICIOUS_SECONDS = 3, 3.0
#: Seconds for which the journal must have been in trouble.
JOURNAL_PATIENCE = 2.0
#: Seconds between two looks, and that a probe may take.
LOOK_EVERY, PROBE_PATIENCE = 0.5, 15.0
#: Seconds between two probes of what is down.
PROBE_EVERY = 2.0
JOURNAL, IDENTITY, COMPUTE, IMAGE = "journal", "identity", "compute", "image"
_PROBED = (IDENTITY, COMPUTE, IMAGE)
#: HTTP statuses of calls that never reached what they were for, besides all of 5xx.
_NO_ANSWER = frozenset(
    {"http_401", "no_connection", "no_answer", "cloud_unavailable", "keystone", "bad_answer"}
)

Probe = Callable[[str], Awaitable[None]]


def needs(names: Names) -> Mapping[str, frozenset[str]]:
    """Return the dependencies that each queue's requests cannot do without."""
    return {
        # Somebody waits for a read, whatever is down: it is answered within its time limit. It needs
        # no journal, and pages of images need no Nova.
        names.reads_queue: frozenset(),
        names.servers_queue: frozenset({JOURNAL, IDENTITY, COMPUTE}),
        names.orders_queue: frozenset({JOURNAL, IDENTITY, COMPUTE}),
        names.images_queue: frozenset({JOURNAL, IDENTITY, IMAGE}),
        # What the broker gave up on may have been begun, which the journal alone tells: without it
        # each would be given back again and again.
        names.undelivered_queue: frozenset({JOURNAL}),
    }


def is_no_answer(outcome: str) -> bool:
    """True for a call's outcome that says that the service did not do its work, whatever was asked."""
    return outcome in _NO_ANSWER or outcome.startswith("http_5")


@dataclass(slots=True)
class Streak:
    """Failures in a row; times on the monotonic clock."""

    since: float = 0.0
    failures: int = 0
    why: str = ""

    def failed(self, why: str, now: float) -> None:
        """Count a failure."""
        self.since = self.since if self.failures else now
        self.failures += 1
        self.why = why

    def ended(self) -> None:
        """Forget the failures: a call succeeded."""
        self.failures = 0

    def is_suspicious(self, now: float) -> bool:
        """True where a probe is due."""
        return self.failures >= SUSPICIOUS_FAILURES and now - self.since >= SUSPICIOUS_SECONDS


class CircuitBreaker:
    """Watches the dependencies. `on_change` is called when one goes down or comes back."""

    def __init__(
        self,
        names: Names,
        probe: Probe,
        journal_trouble: Callable[[], str | None],
        on_change: Callable[[], None],
    ) -> None:
        self._needs = needs(names)
        self._probe = probe
        self._journal_trouble = journal_trouble
        self._on_change = on_change
        self._streaks = {service: Streak() for service in _PROBED}
        self._down: dict[str, str] = {}
        self._journal_since: float | None = None
        self._next_probe: dict[str, float] = {}

    @property
    def down(self) -> Mapping[str, str]:
        """The dependencies that are down, each with the reason."""
        return self._down

    def may_consume(self, queue: str) -> bool:
        """True where everything is up that the queue's requests need."""
        return not self.needed(queue)

    def needed(self, queue: str) -> Mapping[str, str]:
        """Return the dependencies that are down and that the queue's requests need, with reasons."""
        needs = self._needs.get(queue, frozenset())
        return {name: why for name, why in self._down.items() if name in needs}

    def called(self, service: str, outcome: str) -> None:
        """Note the end of a call to OpenStack; on the loop."""
        streak = self._streaks.get(IDENTITY if outcome == "keystone" else service)
        if streak is None or outcome == "cancelled":
            return
        if is_no_answer(outcome):
            streak.failed(outcome, monotonic())
        else:
            streak.ended()

    async def watch(self) -> None:
        """Probe what is suspected or down, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._look_at_journal(monotonic())
            due = [service for service in _PROBED if self._is_due(service, monotonic())]
            await asyncio.gather(*(self._ask(service) for service in due))

    def _look_at_journal(self, now: float) -> None:
        trouble = self._journal_trouble()
        if trouble is None:
            self._journal_since = None
            self._note(JOURNAL, None)
            return
        self._journal_since = now if self._journal_since is None else self._journal_since
        if now - self._journal_since >= JOURNAL_PATIENCE:
            self._note(JOURNAL, trouble)

    def _is_due(self, service: str, now: float) -> bool:
        if service in self._down:
            return now >= self._next_probe.get(service, 0.0)
        return self._streaks[service].is_suspicious(now)

    async def _ask(self, service: str) -> None:
        why: str | None = None
        try:
            async with asyncio.timeout(PROBE_PATIENCE):
                await self._probe(service)
        except TimeoutError:
            why = f"no answer in {PROBE_PATIENCE:.0f} s"
        except Transient as error:
            why = " ".join(str(error).split())[:200] if is_no_answer(error.reason) else None
        except EcsError:
            why = None  # whoever says no works
        if why is None:
            self._streaks[service].ended()
        self._next_probe[service] = monotonic() + PROBE_EVERY
        self._note(service, why)

    def _note(self, service: str, why: str | None) -> None:
        was_down = service in self._down
        if why is not None:
            self._down[service] = why
        else:
            self._down.pop(service, None)
        if was_down != (why is not None):
            log.warning(
                "circuit_breaker.opened" if why is not None else "circuit_breaker.closed",
                dependency=service,
                why=why,
            )
            self._on_change()

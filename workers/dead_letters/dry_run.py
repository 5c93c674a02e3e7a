"""The dry run of a replay: what would happen to a dead letter, found out without changing anything.

It takes the worker's own way: its pipeline with parsing, identity and handlers. The journal and the
cloud are only read, and publications are captured. The first step that would change something ends
it.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence

from handlers.catalogue import HANDLERS
from handlers.context import Policy
from handlers.openstack.cloud import Cloud
from handlers.openstack.errors import Foreseen
from handlers.orders.preview import DRY_RUN_HANDLERS, NextSteps, printed
from workers.amqp.envelope import Envelope
from workers.amqp.topology import queue_of_command
from workers.bootstrap import Surroundings, wire_pipeline
from workers.dead_letters.dead_letter import DeadLetter, replayed_envelope
from workers.dead_letters.doubles import (
    CapturingPublisher,
    Decided,
    ReadOnlyJournal,
    UnsettledDelivery,
)
from workers.dead_letters.dry_run_result import (
    DryRunOutcome,
    DryRunResult,
    result_of_publications,
)
from workers.identity import (
    ReplayAuthority,
    ResumeTokenAuthentication,
    TrustedPublishers,
    new_resume_token,
)
from workers.journal import History, Known, RequestRecord, Resumed
from workers.metrics import Metrics
from workers.pipeline.large_bodies import SWITCH_INTERVAL
from workers.pipeline.process import Pipeline
from workers.pipeline.replies import Replies
from workers.pipeline.timeouts import Timeouts
from workers.settings import Settings

#: Seconds for which a cloud that does not answer, or a server that is busy, is waited for.
PATIENCE = 5.0
#: Seconds for all of one message.
LIMIT = 30.0
#: Messages at once.
AT_ONCE = 32


class DryRun:
    """Previews the replay of dead letters, several at once. `tenant` is the project that the
    operator names for those of which none is proven.
    """

    def __init__(
        self, settings: Settings, cloud: Cloud, history: History, policy: Policy, tenant: str | None
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._cloud = cloud
        self._history = history
        self._tenant = tenant
        self._metrics = Metrics()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._known: Mapping[str, RequestRecord] = {}
        self._begun: dict[str, str] = {}
        #: Issued to none of them: who they act for is said by `_Authorized`.
        self._resume_token = new_resume_token()

    async def preview(
        self, letters: Sequence[DeadLetter], on_preview: Callable[[], None] = lambda: None
    ) -> list[DryRunResult]:
        """Return what the replay of each of these dead letters would do, in their order. Raises
        `JournalError`.
        """
        # Threads that read answers of the cloud would each keep the interpreter for five
        # milliseconds, and the loop would wait for all of them.
        sys.setswitchinterval(SWITCH_INTERVAL)
        names = [one.key for one in letters if one.key is not None]
        self._known = await asyncio.to_thread(self._history.by_key, names)

        async def preview(letter: DeadLetter) -> DryRunResult:
            result = await self._preview(letter)
            on_preview()
            return result

        return await asyncio.gather(*(preview(one) for one in letters))

    async def _preview(self, letter: DeadLetter) -> DryRunResult:
        if (hindrance := letter.hindrance) is not None:
            return DryRunResult(DryRunOutcome.IMPOSSIBLE, hindrance)
        if letter.origin == letter.envelope.names.order_results_queue:
            # No request: the order system reads it again.
            return DryRunResult(DryRunOutcome.ANSWERED, f"it is put back into {letter.origin}")
        async with self._places:
            # Made when its turn has come: its time limits count from its arrival.
            envelope = replayed_envelope(letter.envelope, self._resume_token)
            names, key = envelope.names, envelope.routing_key
            if envelope.queue == names.undelivered_queue and queue_of_command(names, key) is None:
                return DryRunResult(DryRunOutcome.DEAD_LETTERED, f"no queue takes {key}")
            try:
                async with asyncio.timeout(LIMIT):
                    return await self._process(envelope, letter.proven_project or self._tenant)
            except TimeoutError:
                return DryRunResult(DryRunOutcome.UNKNOWN, f"no answer within {LIMIT:.0f} s")

    async def _process(self, envelope: Envelope, tenant: str | None) -> DryRunResult:
        journal = ReadOnlyJournal(self._history, self._known, self._begun)
        publisher = CapturingPublisher()
        pipeline = self._pipeline(journal, publisher, tenant)
        delivery = UnsettledDelivery(envelope)
        try:
            await pipeline.handle(delivery)
        except Foreseen as foreseen:
            return _first_step(foreseen, journal)
        except Decided as decided:
            return decided.result
        finally:
            await pipeline.drain(0)
        if delivery.requeued:
            detail = "the sender cannot be checked now: Keystone or the key set does not answer"
            return DryRunResult(DryRunOutcome.UNKNOWN, detail)
        known = isinstance(journal.outcome, Known)
        return result_of_publications(publisher.publications, self._settings.names, known=known)

    def _pipeline(
        self, journal: ReadOnlyJournal, publisher: CapturingPublisher, tenant: str | None
    ) -> Pipeline:
        settings = self._settings
        trusted = TrustedPublishers(self._cloud, journal)
        return wire_pipeline(
            Surroundings(
                cloud=self._cloud,
                identity=ResumeTokenAuthentication(
                    trusted, self._cloud, journal, _Authorized(tenant)
                ),
                journal=journal,
                replies=Replies(publisher, settings.names, self._metrics, on_returned=lambda: None),
                handlers=HANDLERS | DRY_RUN_HANDLERS,
                policy=self._policy,
                timeouts=Timeouts(
                    PATIENCE, PATIENCE, settings.max_age, tuple(settings.retry_delays)
                ),
                metrics=self._metrics,
            )
        )


class _Authorized:
    """The authority of an operator who replays the message in this project."""

    def __init__(self, tenant: str | None) -> None:
        self._authority = ReplayAuthority("operator", tenant)

    async def replay_of(self, resume_token: str, digest: str) -> ReplayAuthority | None:
        return self._authority


def _first_step(foreseen: Foreseen, journal: ReadOnlyJournal) -> DryRunResult:
    plan = {
        name: value for name, value in journal.remembered.items() if not name.startswith("told:")
    }
    steps = foreseen.steps if isinstance(foreseen, NextSteps) else ()
    at_once = [one for one in steps if one.name == steps[0].name] or journal.intents
    more = f" and {len(at_once) - 1} more" if len(at_once) > 1 else ""
    outcome, detail = DryRunOutcome.RUN, f"first step: {foreseen.what}{more}"
    if isinstance(journal.outcome, Resumed):
        outcome = DryRunOutcome.RESUME
        detail = f"begun and interrupted; next step: {foreseen.what}{more}"
    printable = [one.model_dump(mode="json") for one in printed(steps)]
    return DryRunResult(outcome, detail, plan or None, printable)

"""What would become of a parked message if it were put in again: the worker's own way, gone without
touching anything.

The dispatcher is the worker's, and so are its intake, identity and handlers. The journal is only
read, the cloud only asked, and what would be published is caught. The first step that would change
something ends it.
"""

import asyncio

from handlers.catalogue import HANDLERS
from handlers.context import Policy
from handlers.openstack.cloud import Cloud
from handlers.openstack.errors import Foreseen
from workers.amqp.envelope import Envelope
from workers.amqp.topology import queue_of_command
from workers.dead_letters.dead_letter import DeadLetter, envelope_again
from workers.dead_letters.doubles import Caught, Held, ReadJournal, Told
from workers.dead_letters.forecast import Fate, Forecast, judged
from workers.identity import OperatorReplays, Readmission, TrustedPublishers, new_resume_token
from workers.journal import History, Known, Resumed
from workers.pipeline.process import Pipeline
from workers.pipeline.replies import Replies
from workers.pipeline.timeouts import Timeouts
from workers.settings import Settings
from workers.telemetry import Metrics

#: Seconds for which a cloud that does not answer, or a server that is busy, is waited for.
PATIENCE = 5.0
#: Seconds for all of one message.
LIMIT = 30.0
#: Messages that are looked at at once.
AT_ONCE = 32


class DryRun:
    """Forecasts one message after another. `tenant` is the project that the operator names for
    them.
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
        #: Contents by key of what would be begun: of several that are alike the first would be
        #: carried out.
        self._begun: dict[str, str] = {}

    async def forecast(self, parked: DeadLetter) -> Forecast:
        """What would become of it."""
        if (hindrance := parked.hindrance) is not None:
            return Forecast(Fate.IMPOSSIBLE, hindrance)
        envelope, names = envelope_again(parked.envelope, new_resume_token()), parked.envelope.names
        if (
            envelope.queue == names.undelivered_queue
            and queue_of_command(names, envelope.routing_key) is None
        ):
            return Forecast(Fate.PARKED, f"no queue takes {envelope.routing_key}")
        async with self._places:
            try:
                async with asyncio.timeout(LIMIT):
                    return await self._gone_through(envelope, parked.proven_project or self._tenant)
            except TimeoutError:
                return Forecast(Fate.UNSURE, f"it could not be told in {LIMIT:.0f} s")

    async def _gone_through(self, envelope: Envelope, tenant: str | None) -> Forecast:
        journal = ReadJournal(self._history, self._begun, tenant)
        caught = Caught()
        dispatcher = self._dispatcher(journal, caught)
        delivery = Held(envelope)
        try:
            await dispatcher.handle(delivery)
        except Foreseen as foreseen:
            return _foreseen(foreseen, journal)
        except Told as told:
            return Forecast(told.fate, told.detail)
        finally:
            await dispatcher.drain(0)
        if delivery.given_back:
            return Forecast(
                Fate.UNSURE, "who asks cannot be told now: Keystone or the key set does not answer"
            )
        return judged(
            caught.publications, self._settings.names, known=isinstance(journal.outcome, Known)
        )

    def _dispatcher(self, journal: ReadJournal, caught: Caught) -> Pipeline:
        settings = self._settings
        trusted = TrustedPublishers(self._cloud, journal)
        return Pipeline(
            cloud=self._cloud,
            identity=Readmission(trusted, self._cloud, journal, OperatorReplays(journal)),
            journal=journal,
            outbox=Replies(caught, settings.names, on_returned=lambda: None),  # type: ignore[arg-type]  # all that is used of a publisher
            handlers=HANDLERS,
            policy=self._policy,
            limits=Timeouts(PATIENCE, PATIENCE, settings.max_age, tuple(settings.retry_delays)),
            metrics=self._metrics,
        )


def _foreseen(foreseen: Foreseen, journal: ReadJournal) -> Forecast:
    plan = {
        name: value for name, value in journal.remembered.items() if not name.startswith("told:")
    } or None
    more = f" and {len(journal.intents) - 1} more" if len(journal.intents) > 1 else ""
    if isinstance(journal.outcome, Resumed):
        return Forecast(Fate.GO_ON, f"it was begun and cut off; next: {foreseen.what}{more}", plan)
    return Forecast(Fate.RUN, f"first step: {foreseen.what}{more}", plan)

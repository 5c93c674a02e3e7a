"""Who asks: told at once, or held until it can be told, or given back to the queue.

Before a request is in the journal nothing of it may go to a retry queue: its token would be masked,
and nobody could say any more who asked.
"""

from collections import OrderedDict
from dataclasses import replace

from handlers.effects.backoff import Deadline, retrying
from messages.errors import Refused, Transient, wrong
from workers.amqp.envelope import Envelope
from workers.identity import Identity, Requester
from workers.journal import Journal, JournalError, Kind
from workers.pipeline.large_bodies import LARGE
from workers.pipeline.progress import request_log
from workers.pipeline.retry import GIVE_UP_AFTER, GiveBack, decide_unbegun
from workers.pipeline.timeouts import HOLD
from workers.request import Request

#: Seconds after which a large message comes again that waits for the key set, where it does not say
#: itself.
_LARGE_AGAIN = 60.0
#: Large messages of which is remembered when they first came.
_MOST_MET = 10_000


class Requeue(Exception):
    """Not begun, and not to be answered: the message goes back to its queue as it came.

    `after`: seconds for which it is held before, without its body.
    """

    def __init__(self, after: float = 0.0) -> None:
        self.after = after
        super().__init__()


class Authentication:
    """Finds out who asks."""

    def __init__(self, identity: Identity, journal: Journal, max_age: float) -> None:
        self._identity = identity
        self._journal = journal
        self._max_age = max_age
        #: When large messages that were given back first came, by their fingerprints.
        self._met: OrderedDict[str, float] = OrderedDict()

    async def admit(self, request: Request, patience: Deadline) -> Requester:
        """The requester. `Requeue` where it could not be told until then; any other error is the
        request's end.
        """
        is_large = request.kind is Kind.ORDER and len(request.envelope.body) > LARGE
        if is_large:
            # It is not held while it waits, lest such messages fill the memory: it comes again for
            # the answer.
            request, patience = self._as_first_met(request), Deadline.after(0.0)
        try:
            expiry = None if request.kind is Kind.ORDER else patience
            return await retrying(lambda: self._ask(request), patience, expiry)
        except Exception as error:
            if not isinstance(decide_unbegun(error, request.kind), GiveBack):
                if not isinstance(error, Transient) or not await self._is_known(request):
                    raise
                # It was begun, and has its one result and its final updates by the way of every
                # request.
                return await self._admit_begun(request)
            # What is too old when it first comes does not get younger by waiting for the key set.
            if (refused := self.stale(request.envelope)) and not await self._is_known(request):
                raise refused from None
            request_log(request, None).warning("request.given_back", why=str(error)[:300])
            if is_large:
                raise Requeue(
                    min(getattr(error, "retry_after", None) or _LARGE_AGAIN, HOLD)
                ) from None
            raise Requeue from None

    async def _admit_begun(self, request: Request) -> Requester:
        """Ask who asks for a command that was begun, as long as an order waits; then `Requeue`."""
        try:
            return await retrying(lambda: self._ask(request), Deadline.after(HOLD))
        except Transient as error:
            request_log(request, None).warning("request.given_back", why=str(error)[:300])
            raise Requeue from None

    def _as_first_met(self, request: Request) -> Request:
        """The request as if it had come when it first did: what has changed since then counts."""
        known_by = request.envelope.fingerprint
        arrived = self._met.setdefault(known_by, request.envelope.arrived)
        if len(self._met) > _MOST_MET:
            self._met.popitem(last=False)
        return replace(request, envelope=replace(request.envelope, arrived=arrived))

    def stale(self, envelope: Envelope) -> Refused | None:
        """The refusal of what came too late.

        When a message that comes again first came is not known: it may have been given back by us.
        It counts for as long as an order would have waited.
        """
        limit = self._max_age + (GIVE_UP_AFTER if envelope.redelivered else 0.0)
        if envelope.age > limit:
            return wrong("timestamp", "the message is too old", reason="too_old")
        return None

    async def _ask(self, request: Request) -> Requester:
        try:
            return await self._identity.identify(request)
        except JournalError as error:
            raise Transient("journal", detail=str(error)) from None

    async def _is_known(self, request: Request) -> bool:
        """Whether somebody's request of this name and content was begun: then it came before."""
        try:
            found = await self._journal.find(request.name or "")
        except JournalError:
            return True
        return any(one.kind is request.kind and one.digest == request.digest for one in found)

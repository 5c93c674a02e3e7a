"""Stage 2: the requester of a message, known at once or waited for.

Before a request is in the journal nothing of it may go to a retry queue: its token would be masked,
and nobody could authenticate it any more. So it is held, or goes back to its queue.
"""

from collections import OrderedDict
from dataclasses import replace

import structlog

from handlers.effects.backoff import Deadline, retrying
from messages.errors import EcsError, Transient
from workers.identity import Identity, Requester
from workers.journal import Journal, JournalError, Kind
from workers.pipeline.exits import Rejected, Requeue
from workers.pipeline.large_bodies import LARGE
from workers.pipeline.retry import refusal
from workers.pipeline.timeouts import HOLD, Timeouts, Timing
from workers.request import Request

log = structlog.get_logger()

#: Seconds after which a large message comes again that waits for the key set, where the key set
#: does not say itself.
_LARGE_AGAIN = 60.0
#: Large messages of which is remembered when they first came.
_MOST_MET = 10_000


class Authentication:
    """Authenticates requests."""

    def __init__(self, identity: Identity, journal: Journal, timeouts: Timeouts) -> None:
        self._identity = identity
        self._journal = journal
        self._timeouts = timeouts
        #: When large messages that were requeued first came, by their fingerprints.
        self._met: OrderedDict[str, float] = OrderedDict()

    async def authenticate(self, request: Request, timing: Timing) -> Requester:
        """Return the requester. Raises `Rejected`, or `Requeue` where it is not known in time.

        An order waits for as long as it may be held; a command no longer than that, until its time
        is up, and then is answered, unless it was begun already.
        """
        is_order = request.kind is Kind.ORDER
        is_large = is_order and len(request.envelope.body) > LARGE
        until = timing.hold if is_order else min(timing.patience(), timing.hold)
        if is_large:
            # It is not held while it waits, lest such messages fill the memory: it comes again for
            # the answer.
            request, until = self._as_first_met(request), Deadline.after(0.0)
        expiry, is_begun = None if is_order else until, False
        try:
            try:
                return await retrying(lambda: self._identify(request), until, expiry)
            except Transient:
                # Of a read nothing is ever begun: it is answered, also where the journal is down.
                is_named = not is_order and request.name is not None
                is_begun = is_named and await self._is_begun(request)
                if not is_begun:
                    raise
                # It was begun, and has its one result and its final updates by the way of every
                # request: it waits as an order does.
                return await retrying(lambda: self._identify(request), timing.hold)
        except Transient as error:
            if not is_order and not is_begun:
                raise Rejected.of(request, refusal(error)) from error
            # What is too old when it first comes does not get younger by waiting for the key set.
            too_old = self._timeouts.too_old(request.envelope)
            if is_order and too_old is not None and not await self._is_begun(request):
                raise Rejected.of(request, too_old) from error
            log.warning("request.requeued", why=str(error)[:300])
            wait = min(error.retry_after or _LARGE_AGAIN, HOLD)
            raise Requeue(wait if is_large else 0.0) from error
        except EcsError as error:
            raise Rejected.of(request, refusal(error)) from error

    def _as_first_met(self, request: Request) -> Request:
        """Return the request as if it had come when it first did: its token's age counts from then."""
        envelope = request.envelope
        arrived = self._met.setdefault(envelope.fingerprint, envelope.arrived)
        if len(self._met) > _MOST_MET:
            self._met.popitem(last=False)
        return replace(request, envelope=replace(envelope, arrived=arrived))

    async def _identify(self, request: Request) -> Requester:
        try:
            return await self._identity.identify(request)
        except JournalError as error:
            raise Transient("journal", detail=str(error)) from None

    async def _is_begun(self, request: Request) -> bool:
        """Return whether a request of this name and content was begun; True where the journal
        cannot tell.
        """
        try:
            found = await self._journal.find(request.name or "")
        except JournalError:
            return True
        return any(map(request.is_same_as, found))

"""Time limits of a delivery, from the configured times."""

import time
from dataclasses import replace

from handlers.effects.backoff import Deadline
from messages.errors import Refused, wrong
from messages.record import record
from workers.amqp.envelope import Envelope
from workers.journal import Kind
from workers.pipeline.retry import GIVE_UP_AFTER
from workers.request import Request

#: Seconds for which a delivery is held before it goes on by way of a retry queue; five minutes are
#: promised.
HOLD = 270.0
#: Seconds after its time limit within which a command is answered, whatever it waits for; five are
#: promised.
ANSWER_WITHIN = 2.5
#: Seconds within which an order's calls are tried again before it goes to a retry queue.
ORDER_PATIENCE = 10.0


@record
class Timing:
    """The instants of one delivery, on the monotonic clock: a jump of the wall clock moves none.

    `started`: when this delivery began; `received`: when the request first came to a worker, and
    had its turn.
    """

    started: float
    received: float
    #: Until when the delivery is held; what still waits then goes on by way of a retry queue.
    hold: Deadline
    #: The end of a command's time; None for an order.
    limit: Deadline | None
    #: The requester's own deadline, until which the first effect must have been begun.
    deadline: Deadline | None

    def patience(self, *, any_begun: bool = False) -> Deadline:
        """Return until when calls are tried again in this delivery.

        The requester's own deadline counts until anything is begun.
        """
        if self.limit is None:
            return Deadline(time.monotonic() + ORDER_PATIENCE)
        return self.limit if self.deadline is None or any_begun else min(self.limit, self.deadline)

    def waited(self, seconds: float) -> "Timing":
        """Return the timing of a request that has waited so long for its turn: a command's time
        counts from there. It has been held all the time.
        """
        limit = self.limit
        if limit is not None:
            limit = Deadline(limit.at + seconds)
        # `replace` takes five times as long, and a flood waits message by message.
        return Timing(self.started, self.received + seconds, self.hold, limit, self.deadline)

    def resumed(self, received_at: float) -> "Timing":
        """Return the timing of a request that was begun earlier (Unix seconds)."""
        received = min(self.started, time.monotonic() + received_at - time.time())
        limit = self.limit
        if limit is not None:
            limit = Deadline(limit.at - self.received + received)
        return replace(self, received=received, limit=limit)


@record
class Timeouts:
    """The configured times, in seconds."""

    command_timeout: float
    order_timeout: float
    max_age: float
    retry_delays: tuple[int, ...]

    def timing(self, request: Request, started: float) -> Timing:
        """Return the instants of a delivery that began at `started` (monotonic clock).

        The requester has waited since the message came, also while it was read and authenticated.
        """
        deadline = request.envelope.deadline
        ahead = time.monotonic() - time.time()  # of the monotonic clock
        received = min(started, request.envelope.first_seen + ahead)
        is_order = request.kind is Kind.ORDER
        return Timing(
            started=started,
            received=received,
            hold=Deadline(started + HOLD),
            limit=None if is_order else Deadline(received + self.command_timeout),
            deadline=Deadline(deadline + ahead) if deadline is not None else None,
        )

    def too_old(self, envelope: Envelope) -> Refused | None:
        """Return the refusal of a message that was published too long ago; None where it was not.

        When a redelivered message first came is not known: it may have been requeued by a worker.
        It counts for as long as an order would have waited.
        """
        limit = self.max_age + (GIVE_UP_AFTER if envelope.redelivered else 0.0)
        # Nothing is known of the age where the timestamp is missing.
        if envelope.arrived - (envelope.timestamp or envelope.arrived) > limit:
            return wrong("timestamp", "the message is too old", reason="too_old")
        return None

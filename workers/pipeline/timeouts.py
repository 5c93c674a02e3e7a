"""Time limits of a delivery, from the configured times."""

import time
from dataclasses import dataclass, replace

from handlers.effects.backoff import Deadline
from messages.errors import Refused, wrong
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


@dataclass(frozen=True, slots=True)
class Timing:
    """The instants of one delivery, on the monotonic clock: a jump of the wall clock moves none.

    `started`: when this delivery began; `received`: when the request first came to a worker.
    """

    started: float
    received: float
    #: Until when the delivery is held; what still waits then goes on by way of a retry queue.
    hold: Deadline
    #: Seconds that a command may take in all; None for an order.
    timeout: float | None
    #: The requester's own deadline, until which the first effect must have been begun.
    deadline: Deadline | None

    @property
    def age(self) -> float:
        """Seconds since the request first came."""
        return time.monotonic() - self.received

    @property
    def limit(self) -> Deadline | None:
        """The end of a command's time; None for an order."""
        return Deadline(self.received + self.timeout) if self.timeout is not None else None

    def patience(self, *, any_begun: bool = False) -> Deadline:
        """Return until when calls are tried again in this delivery.

        The requester's own deadline counts until anything is begun.
        """
        limit = self.limit
        if limit is None:
            return Deadline.after(ORDER_PATIENCE)
        return limit if self.deadline is None or any_begun else min(limit, self.deadline)

    @property
    def answer_by(self) -> Deadline:
        """The instant at which a command is answered, whatever it waits for."""
        return Deadline(self.patience().at + ANSWER_WITHIN)

    def resumed(self, received_at: float) -> "Timing":
        """Return the timing of a request that was begun earlier (Unix seconds)."""
        return replace(self, received=min(self.started, _monotonic(received_at)))


@dataclass(frozen=True, slots=True)
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
        envelope = request.envelope
        deadline = envelope.deadline
        return Timing(
            started=started,
            received=min(started, _monotonic(envelope.first_seen)),
            hold=Deadline(started + HOLD),
            timeout=None if request.kind is Kind.ORDER else self.command_timeout,
            deadline=Deadline(_monotonic(deadline)) if deadline is not None else None,
        )

    def too_old(self, envelope: Envelope) -> Refused | None:
        """Return the refusal of a message that was published too long ago; None where it was not.

        When a redelivered message first came is not known: it may have been requeued by a worker.
        It counts for as long as an order would have waited.
        """
        limit = self.max_age + (GIVE_UP_AFTER if envelope.redelivered else 0.0)
        if envelope.age > limit:
            return wrong("timestamp", "the message is too old", reason="too_old")
        return None


def _monotonic(unix: float) -> float:
    """Return an instant in Unix seconds by the monotonic clock."""
    return time.monotonic() + unix - time.time()

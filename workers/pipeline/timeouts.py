"""How long a request may take, is held, and is tried again."""

import time
from dataclasses import dataclass

from handlers.effects.backoff import Deadline
from workers.amqp.envelope import Envelope
from workers.journal import Kind
from workers.request import Request

#: Seconds for which a delivery is held before it goes on by way of a retry queue; five minutes are
#: promised.
HOLD = 270.0
#: Seconds after which it is given back to its queue, whatever it waits for: a journal or a broker
#: that takes nothing.
HOLD_LIMIT = 290.0
#: Seconds after its time limit within which a command is answered, whatever it waits for; five are
#: promised.
ANSWER_WITHIN = 2.5
#: Seconds within which an order's calls are tried again before it goes to a retry queue.
ORDER_PATIENCE = 10.0


def soonest(one: Deadline, other: Deadline | None) -> Deadline:
    """Return the earlier of the two."""
    return one if other is None else min(one, other)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The configured times, in seconds."""

    command_timeout: float
    order_timeout: float
    max_age: float
    retry_delays: tuple[int, ...]

    def admission(self, request: Request) -> Deadline:
        """Until when it is asked who asks: before that is known nothing can be put off."""
        if request.kind is Kind.ORDER:
            return Deadline.after(HOLD)
        first_seen = request.envelope.first_seen
        return soonest(
            self.patience(request, time.time() - first_seen), own_deadline(request.envelope)
        )

    def patience(self, request: Request, age: float) -> Deadline:
        """Until when a request that came so many seconds ago is tried again in this delivery."""
        if request.kind is Kind.ORDER:
            return Deadline.after(ORDER_PATIENCE)
        return Deadline.after(self.command_timeout - age)


def own_deadline(envelope: Envelope) -> Deadline | None:
    """Until when the requester wants the first effect to have been begun; None where he does not
    say.
    """
    limit = envelope.deadline
    return Deadline.after(limit - time.time()) if limit is not None else None

"""How long a request may take, is held, and is tried again."""

import time
from dataclasses import dataclass

from handlers.deadlines import Deadline
from workers import intake
from workers.journal import Kind
from workers.request import Request

#: Seconds for which a delivery is held before it goes on by way of a retry queue; five minutes are promised.
HOLD = 270.0
#: Seconds after which it is given back to its queue, whatever it waits for: a journal or a broker that takes nothing.
HOLD_LIMIT = 290.0
#: Seconds within which an order's calls are tried again before it goes to a retry queue.
ORDER_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The configured times, in seconds."""

    command_timeout: float
    order_timeout: float
    max_age: float
    retry_delays: tuple[int, ...]

    def admission(self, request: Request) -> Deadline:
        """Until when it is asked who asks: before that is known nothing can be put off."""
        if request.kind is Kind.ORDER:
            return Deadline.after(HOLD)
        return self.patience(request, time.time() - intake.first_seen(request.envelope, time.time()))

    def patience(self, request: Request, age: float) -> Deadline:
        """Until when a request that came so many seconds ago is tried again in this delivery."""
        if request.kind is Kind.ORDER:
            return Deadline.after(ORDER_PATIENCE)
        own = intake.deadline(request.envelope)
        left = self.command_timeout - age
        return Deadline.after(min(left, own - time.time()) if own is not None else left)

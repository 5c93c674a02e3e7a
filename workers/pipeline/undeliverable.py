"""What the broker could not route or gave up on: answered where it says where to, then moved to the
dead letters.

A command that we take was not routed because a binding of ours is gone: that is made anew, and the
command sent again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import structlog

from messages.codes import Code
from messages.errors import Refused, Transient, wrong
from messages.wire import body_too_large
from workers.amqp.envelope import Envelope
from workers.amqp.topology import queue_of_command
from workers.journal import ClaimLost, JournalError
from workers.pipeline import parsing
from workers.pipeline.authentication import Requeue
from workers.pipeline.idempotency import GoesOn
from workers.pipeline.large_bodies import aside
from workers.pipeline.rejections import Rejections
from workers.pipeline.replies import Replies

log = structlog.get_logger()

#: `data.reason` by why the broker took a message out of its queue; the publisher's own `expiration`
#: is a deadline.
_REASONS = {"expired": "deadline", "maxlen": "queue_full"}


#: Seconds before what another worker is at, or the journal cannot tell of, is looked at again.
_AGAIN = 2.0
#: Seconds in which what is gone is declared again.
_BINDING = 0.5
#: Ends what was begun of a request (`Pipeline.give_up`); False where nothing was.
GiveUp = Callable[[Envelope, Refused], Awaitable[bool]]


class Undelivered:
    """Takes what the broker gave up on. `declare_again` is called where a binding of ours is gone."""

    def __init__(
        self,
        outbox: Replies,
        refusals: Rejections,
        give_up: GiveUp,
        declare_again: Callable[[], None],
    ) -> None:
        self._outbox = outbox
        self._refusals = refusals
        self._give_up = give_up
        self._declare_again = declare_again

    async def take(self, envelope: Envelope) -> None:
        """Send it again where it is ours, else move it to the dead letters.

        `Requeue` where it is to be looked at again later.
        """
        names = envelope.names
        is_ours = queue_of_command(names, envelope.routing_key) is not None
        if envelope.exchange == names.commands_exchange and is_ours and envelope.left_out is None:
            self._declare_again()
            await asyncio.sleep(_BINDING)
            await self._outbox.send_again(envelope)
            log.warning("message.unbound", routing_key=envelope.routing_key)
            return
        try:
            await self._move_to_dead(envelope)
        except GoesOn:
            log.info("message.sent_again", routing_key=envelope.routing_key)
        except (ClaimLost, Requeue, JournalError, Transient):
            await asyncio.sleep(_AGAIN)
            raise Requeue from None

    async def _move_to_dead(self, envelope: Envelope) -> None:
        """Answer it as what it is, and park it without its secrets; unless its request goes on by
        another message.
        """
        death = _last_death(envelope)
        # Never in a queue of ours: no binding wants its routing key.
        refused = wrong("operation", "there is no such operation")
        if envelope.left_out is not None:
            refused = body_too_large()
        if death is not None:
            refused = Refused(
                Code.FAILED,
                reason=death.reason,
                detail=f"the broker gave up on it in {death.queue}",
            )
        if death is None or not await self._give_up(death.as_it_came(envelope), refused):
            was_order = death is not None and death.was_order
            message = await aside(len(envelope.body), lambda: parsing.decoded(envelope))
            operation = parsing.operation_of(envelope, message, was_order)
            await self._refusals.undelivered(
                envelope, operation, refused, message if was_order else None
            )
        origin = death.queue if death is not None else envelope.names.undelivered_queue
        route = death.route if death is not None else None
        await self._outbox.park(envelope, refused, envelope.attempts, origin, route)
        log.warning(
            "message.undelivered",
            routing_key=envelope.routing_key,
            origin=origin,
            reason=refused.reason,
            why=refused.detail,
        )


@dataclass(frozen=True, slots=True)
class _Death:
    """What the broker says of it: which queue of ours gave it up, and why."""

    queue: str
    reason: str
    was_order: bool
    #: Exchange and routing key by which it had come; None where that was a retry queue, which has
    #: kept them.
    route: tuple[str, str] | None

    def as_it_came(self, envelope: Envelope) -> Envelope:
        """The message as a worker had it."""
        exchange, routing_key = self.route or ("", self.queue)
        return replace(envelope, queue=self.queue, exchange=exchange, routing_key=routing_key)


def _last_death(envelope: Envelope) -> _Death | None:
    """None for what is only unroutable: it keeps its publisher's exchange, and whatever history he
    has forged.
    """
    deaths = envelope.headers.get("x-death")
    last: Any = deaths[0] if isinstance(deaths, list) and deaths else None
    if envelope.exchange != envelope.names.undelivered_exchange or not isinstance(last, dict):
        return None
    queue = last.get("queue")
    if queue not in envelope.names.input_queues:
        return None
    reason = _REASONS.get(str(last.get("reason")), "delivery_limit")
    names, keys = envelope.names, last.get("routing-keys")
    exchange = str(last.get("exchange"))
    # RabbitMQ 3 keeps what a publisher has written into an entry of this queue and reason: nothing
    # of ours is to be sent to an exchange that he chooses.
    if exchange not in ("", names.commands_exchange, names.orders_exchange):
        exchange = names.orders_exchange if queue == names.orders_queue else names.commands_exchange
    key = str(keys[0]) if isinstance(keys, list) and keys else ""
    was_order = (
        queue == envelope.names.orders_queue and exchange != envelope.names.commands_exchange
    )
    return _Death(queue, reason, was_order, (exchange, key) if exchange else None)

"""Messages that the broker could not route or gave up on: answered where they say where to, then
dead-lettered.

A command of a known operation was not routed because a binding of the worker's is gone: that is
declared anew, and the command published again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import structlog

from messages.codes import Code
from messages.errors import Refused, Transient, wrong
from messages.wire import body_too_large
from workers.amqp.envelope import Envelope
from workers.amqp.topology import queue_of_command
from workers.identity import Identity, Requester
from workers.journal import ClaimLost, Journal, JournalError
from workers.pipeline.exits import Answered, Ignored, Rejected, Requeue, Rescheduled
from workers.pipeline.parsing import parse
from workers.pipeline.rejections import Rejections
from workers.pipeline.replies import Replies
from workers.request import Request

log = structlog.get_logger()

#: `data.reason` by why the broker took a message out of its queue; the publisher's own `expiration`
#: is a deadline.
_REASONS = {"expired": "deadline", "maxlen": "queue_full"}
#: Seconds before a message is looked at again whose request another worker carries out, or the
#: journal cannot tell of.
_AGAIN = 2.0
#: Seconds in which what is gone is declared again.
_BINDING = 0.5
#: Carries a request out that has been authenticated (`Pipeline.execute`).
Execute = Callable[[Request, Requester], Awaitable[None]]


class Undeliverable:
    """Handles the queue of undelivered messages. `declare_again` is called where a binding is gone."""

    def __init__(
        self,
        replies: Replies,
        rejections: Rejections,
        identity: Identity,
        journal: Journal,
        declare_again: Callable[[], None],
    ) -> None:
        self._replies = replies
        self._rejections = rejections
        self._identity = identity
        self._journal = journal
        self._declare_again = declare_again

    async def handle(self, envelope: Envelope, execute: Execute) -> None:
        """Publish the message again where it is the worker's to route, else dead-letter it.

        Raises `Requeue` where it is to be looked at again later, `Rescheduled` where its request
        goes on with another message.
        """
        names = envelope.names
        is_known = queue_of_command(names, envelope.routing_key) is not None
        if envelope.exchange == names.commands_exchange and is_known and envelope.left_out is None:
            self._declare_again()
            await asyncio.sleep(_BINDING)
            await self._replies.publish_again(envelope)
            log.warning("message.unbound", routing_key=envelope.routing_key)
            return
        try:
            await self._dead_letter(envelope, execute)
        except (ClaimLost, Requeue, JournalError, Transient):
            raise Requeue(_AGAIN) from None

    async def _dead_letter(self, envelope: Envelope, execute: Execute) -> None:
        """Answer the message as what it is, and dead-letter it."""
        death = last_death(envelope)
        came, refused = envelope, wrong("operation", "there is no such operation")
        if death is not None:
            came, reason = death
            refused = Refused(
                Code.FAILED, reason=reason, detail=f"the broker gave up on it in {came.queue}"
            )
        elif envelope.left_out is not None:
            refused = body_too_large()
        if death is None or not await self._end_begun(came, refused, execute):
            is_order = death is not None and came.is_order
            await self._rejections.undelivered(came, refused, is_order=is_order)
        await self._replies.dead_letter(came, refused)
        log.warning(
            "message.undelivered",
            routing_key=envelope.routing_key,
            origin=came.queue,
            reason=refused.reason,
            why=refused.detail,
        )

    async def _end_begun(self, came: Envelope, refused: Refused, execute: Execute) -> bool:
        """End what was begun of the message's request; False where nothing was.

        It has its one result and its final updates by the way of every request: what was answered
        stays the answer. Nothing is ended for a sender who is not proven.
        """
        try:
            # Whatever its region: what was begun is ended, or its result would deny what was done.
            request = replace(parse(came, None), given_up=refused)
        except (Ignored, Rejected):
            return False
        for known in await self._journal.find(request.name) if request.name is not None else ():
            if known.key == request.key(known.tenant) and known.digest == request.digest:
                if not await self._identity.proves(request):
                    return False
                try:
                    await execute(request, Requester(known.tenant, resume_token=came.resume_token))
                except Answered:
                    return True
                except Rescheduled:
                    log.info("message.published_again", routing_key=came.routing_key)
                    raise
                return True
        return False


def last_death(envelope: Envelope) -> tuple[Envelope, str] | None:
    """Return the message as a worker had it before the broker gave up on it, and the reason.

    None for what is only unroutable: it keeps its publisher's exchange, and whatever history he
    has forged.
    """
    deaths = envelope.headers.get("x-death")
    last: Any = deaths[0] if isinstance(deaths, list) and deaths else None
    names = envelope.names
    if envelope.exchange != names.undelivered_exchange or not isinstance(last, dict):
        return None
    queue = last.get("queue")
    if queue not in names.input_queues:
        return None
    reason = _REASONS.get(str(last.get("reason")), "delivery_limit")
    keys, exchange = last.get("routing-keys"), str(last.get("exchange"))
    # RabbitMQ 3 keeps what a publisher has written into an entry of this queue and reason: nothing
    # of ours is to be sent to an exchange that he chooses.
    if exchange not in ("", names.commands_exchange, names.orders_exchange):
        exchange = names.orders_exchange if queue == names.orders_queue else names.commands_exchange
    key = str(keys[0]) if isinstance(keys, list) and keys else ""
    # By the default exchange it came from a retry queue, and a header has its first route.
    to = key if exchange else queue
    came = replace(envelope, queue=queue, exchange=exchange, routing_key=to)
    return came, reason

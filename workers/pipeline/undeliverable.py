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
from workers.amqp.renewal import restored
from workers.amqp.topology import queue_of_command
from workers.identity import Identity, Requester
from workers.identity.requester import SOFT_DOWN
from workers.journal import ClaimLost, Journal, JournalError
from workers.pipeline.exits import Answered, Ignored, Rejected, Requeue, Rescheduled
from workers.pipeline.parsing import parse
from workers.pipeline.rejections import Rejections
from workers.pipeline.replies import Replies
from workers.pipeline.retry import GIVE_UP_AFTER
from workers.request import Request

log = structlog.get_logger()

#: `data.reason` by why the broker took a message out of its queue; the publisher's own `expiration`
#: is a deadline.
_REASONS = {"expired": "deadline", "maxlen": "queue_full"}
_GIVEN_BACK = "delivery_limit"
#: Renewals after which a message is given up: a read, of which no journal knows that it killed its
#: workers, and any other. That one also has a day: what waits in its own queue, as an order with a
#: password does between two attempts, is renewed once a minute where the delays are short.
_READ_RENEWALS, _RENEWALS = 1, 100
#: Seconds before a message is looked at again whose request another worker carries out, or the
#: journal cannot tell of.
_AGAIN = 2.0
#: Seconds in which what is gone is declared again.
_BINDING = 0.5
#: Carries a request out that has been authenticated (`Pipeline.execute`).
Execute = Callable[[Request, Requester], Awaitable[None]]
#: The message as a worker had it before it was given up on, and the reason.
Death = tuple[Envelope, str]


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
        await self._given_up(envelope, last_death(envelope), execute)

    async def renew(self, envelope: Envelope, execute: Execute) -> bool:
        """Renew a message that was given back so often that the broker is about to give up on it;
        False where it is to be handled now. One that was renewed too often is given up.

        A soft deletion without a token is known by its publisher's AMQP user, whom a renewed message
        has no more: it goes on by way of a retry queue, once it is authenticated.
        """
        if _is_renewed_too_often(envelope):
            await self._given_up(envelope, (envelope, _GIVEN_BACK), execute)
            return True
        if envelope.user_id is not None and _needs_its_user(envelope):
            return False
        try:
            await self._replies.renew(envelope)
        except Refused:  # its own deadline cannot be read: it is refused at once
            return False
        return True

    async def _given_up(self, envelope: Envelope, death: Death | None, execute: Execute) -> None:
        try:
            await self._dead_letter(envelope, death, execute)
        except (ClaimLost, Requeue, JournalError, Transient):
            raise Requeue(_AGAIN) from None

    async def _dead_letter(self, envelope: Envelope, death: Death | None, execute: Execute) -> None:
        """Answer the message as what it is, and dead-letter it."""
        came, refused = envelope, wrong("operation", "there is no such operation")
        if death is not None:
            came, reason = death
            who = "it was given back too often" if came is envelope else "the broker gave up on it"
            refused = Refused(Code.FAILED, reason=reason, detail=f"{who} in {came.queue}")
        elif envelope.left_out is not None:
            refused = body_too_large()
        # An order's result is an answer itself; replayed, it lies where it was.
        is_request = came.queue != came.names.order_results_queue
        if is_request and (death is None or not await self._end_begun(came, refused, execute)):
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


def _is_renewed_too_often(envelope: Envelope) -> bool:
    if envelope.queue == envelope.names.undelivered_queue:
        return False
    if envelope.queue == envelope.names.reads_queue:
        return envelope.renewals >= _READ_RENEWALS
    since = envelope.arrived if envelope.renewed_since is None else envelope.renewed_since
    return envelope.renewals >= _RENEWALS and envelope.arrived - since > GIVE_UP_AFTER


def _needs_its_user(envelope: Envelope) -> bool:
    """Tell whether only the AMQP user who published it can authenticate a message."""
    if not envelope.is_order:
        return False
    try:
        request = parse(envelope, None)
    except (Ignored, Rejected):
        return False
    return request.operation == SOFT_DOWN and request.token is None


def last_death(envelope: Envelope) -> Death | None:
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
    if queue not in (*names.input_queues, names.order_results_queue):
        return None
    reason = _REASONS.get(str(last.get("reason")), _GIVEN_BACK)
    keys, exchange = last.get("routing-keys"), str(last.get("exchange"))
    allowed = "", names.commands_exchange, names.orders_exchange
    default = names.orders_exchange if queue == names.orders_queue else names.commands_exchange
    # RabbitMQ 3 keeps what a publisher has written into an entry of this queue and reason: nothing
    # of ours is to be sent to an exchange that he chooses.
    if queue == names.order_results_queue:
        exchange = names.results_exchange
    elif exchange not in allowed:
        exchange = default
    key = str(keys[0]) if isinstance(keys, list) and keys else ""
    # By the default exchange it came from a retry queue, and a header has its first route.
    to = key if exchange else queue
    came = replace(envelope, queue=queue, exchange=exchange, routing_key=to)
    came = restored(came)
    if came.exchange not in (*allowed, exchange):  # by the default exchange, a forged history says
        came = replace(came, exchange=default)
    return came, reason

"""Messages for which nothing is begun: answered, and dead-lettered where nobody hears the answer.

Nobody can answer another's order. What is published for a rejected order hangs on its id:

| its id | its sender | published |
|---|---|---|
| not known | proven | result and final update |
| not known | not proven | result alone |
| known | proven | result alone: the known order has updates, and a final one, of its own |
| known | not proven | nothing; the message is dead-lettered |
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import structlog

from handlers.context import Policy
from handlers.effects.ledger import Effect, EffectId, any_begun
from handlers.orders.progress import refused_order_update
from handlers.servers.targets import Checked, failure
from messages.codes import Code
from messages.commands import Operation
from messages.errors import Refused, Transient
from messages.fields import OTHER_REGION, word_or_none
from messages.orders import OrderType, name_of
from messages.results import Result, unread_order_result
from workers.amqp.envelope import Envelope
from workers.amqp.headers import REPLAY_ID_HEADER
from workers.identity import NO_PROJECT, Identity
from workers.journal import Journal, Kind
from workers.metrics import Metrics
from workers.pipeline.exits import Rejected
from workers.pipeline.large_bodies import in_thread_if_large
from workers.pipeline.parsing import operation_of, read_body, token_in
from workers.pipeline.progress import update_body
from workers.pipeline.replies import Replies, error_text
from workers.request import Request

log = structlog.get_logger()

#: Operations that are a label of the metrics: a publisher's own words must not become labels.
_COUNTED = frozenset((*Operation, *(f"order.{one}" for one in OrderType)))
#: Reasons for which a message is dead-lettered although its sender hears the answer: it was sent to
#: the wrong place, or an operator may replay it.
CONFLICT = "conflicting_duplicate"
_DEAD_LETTERED = frozenset({OTHER_REGION, CONFLICT, "too_old"})
#: Seconds in which the project of a refused order must be told.
_PROJECT_PATIENCE = 3.0
#: Codes of failures that a person must pass on to a sender who hears nothing.
_FAULTS = (Code.PARAMETER, Code.IDENTITY)
#: Characters of a replay's id, and of a reason in the journal.
_LONGEST_ID, LONGEST_REASON = 36, 40


class Rejections:
    """Answers and dead-letters messages without a trace in the journal."""

    def __init__(
        self,
        replies: Replies,
        identity: Identity,
        journal: Journal,
        policy: Policy,
        metrics: Metrics,
    ) -> None:
        self._replies = replies
        self._identity = identity
        self._journal = journal
        self._policy = policy
        self._metrics = metrics

    async def reject(self, envelope: Envelope, rejected: Rejected) -> None:
        """Answer a rejected message as far as its sender may be answered, and dead-letter it."""
        refused, request = rejected.refused, rejected.request
        if await self._was_begun_elsewhere(rejected):
            # It has a result, or gets one when the region is set right and it is replayed.
            await self._replies.dead_letter(envelope, refused)
            return
        # These words are part of the result's id: they must not change, or a repeat has another
        # one.
        await self._answer(envelope, rejected, "unfit" if request is None else "refused")
        is_unheard = rejected.is_order or envelope.reply_queue is None
        if refused.reason in _DEAD_LETTERED or (is_unheard and refused.code in _FAULTS):
            await self._replies.dead_letter(envelope, refused, proven=rejected.tenant)
        else:
            note_refused_replay(self._journal, envelope, refused)
        named = {"operation": rejected.operation}
        if rejected.is_order:
            named["request"] = name_of(rejected.message or {})
        log.warning(
            "message.malformed" if request is None else "request.rejected",
            **named,
            queue=envelope.queue,
            code=refused.code.wire,
            subject=refused.subject,
            why=refused.detail,
        )
        if refused.reason == CONFLICT:
            self._metrics.event("conflict")
        label = rejected.operation or ""
        if label not in _COUNTED:
            label = "order.unknown" if rejected.is_order else "unknown"
        self._metrics.answered(label, refused.code.wire, None)

    async def undelivered(self, envelope: Envelope, refused: Refused, *, is_order: bool) -> None:
        """Answer a message that the broker gave up on before anything was begun for it."""
        await self._answer_unread(envelope, refused, "undelivered", is_order=is_order)

    async def unforeseen(self, envelope: Envelope, refused: Refused) -> None:
        """Answer and dead-letter a message at which the worker itself failed.

        A command that was begun is not answered here: it has its one result by the way of every
        request.
        """
        known = await self._journal.find(envelope.message_id) if envelope.message_id else ()
        if envelope.is_order or not any(one.kind is Kind.COMMAND for one in known):
            await self._answer_unread(envelope, refused, "unforeseen", is_order=envelope.is_order)
        await self._replies.dead_letter(envelope, refused)

    async def _was_begun_elsewhere(self, rejected: Rejected) -> bool:
        """True for another region's order that was begun when this worker's region was that one."""
        if rejected.refused.reason != OTHER_REGION or not rejected.is_order:
            return False
        name = name_of(rejected.message or {})
        return name is not None and await self._is_known_order(name)

    async def _is_known_order(self, name: str) -> bool:
        """Tell whether the journal knows an order of this name, of whichever tenant."""
        return any(one.kind is Kind.ORDER for one in await self._journal.find(name))

    async def _answer_unread(
        self, envelope: Envelope, refused: Refused, why: str, *, is_order: bool
    ) -> None:
        message = await in_thread_if_large(len(envelope.body), lambda: read_body(envelope))
        operation = operation_of(envelope, message, is_order=is_order)
        rejected = Rejected(refused, operation, is_order=is_order, message=message)
        await self._answer(envelope, rejected, why)

    async def _answer(self, envelope: Envelope, rejected: Rejected, why: str) -> None:
        """Publish the result and, for an order, its one update; `why` is part of the result's id."""
        refused, request = rejected.refused, rejected.request
        order = (rejected.message or {}) if rejected.is_order else None
        if rejected.operation is None and envelope.reply_queue is None:
            return
        operation = rejected.operation or "unknown"
        with_result, with_update = True, False
        if order is not None:
            with_result, with_update = await self._audience(envelope, rejected, operation)
        if not with_result:
            log.warning("order.not_answered", why="its id is another's")
            return
        # Nothing remembers this result: it is made of the message alone, so that it is the same,
        # byte for byte, when the message comes again.
        result = await in_thread_if_large(
            len(envelope.body),
            lambda: (
                order_failure(envelope, refused, order, self._policy)
                if order is not None
                else failure(request.work if request is not None else None, refused)
            ),
        )
        key = f"{why}:{envelope.fingerprint}"
        published = self._replies.result(envelope, operation, key, result)
        update = refused_order_update(order) if order is not None and with_update else None
        if update is not None:
            body = update_body(
                update,
                operation,
                message_id=envelope.message_id,
                tenant_id=await self._project_of(envelope, rejected, operation),
                user_id=word_or_none((order or {}).get("userId")),
            )
            published.append(self._replies.update(envelope, body, key))
        for one in published:
            await one

    async def _audience(
        self, envelope: Envelope, rejected: Rejected, operation: str
    ) -> tuple[bool, bool]:
        """Return for an order whether its result is published, and whether its final update is.

        Raises `JournalError` where it cannot be told whether its id is known.
        """
        if rejected.tenant is not None:
            # The order of a conflicting id has updates of its own, which this one must not seem to
            # end.
            return True, rejected.refused.reason != CONFLICT
        message = rejected.message or {}
        # An error of identity has just been found out, and is not looked for again.
        proven = False
        if rejected.request is None or rejected.refused.code is not Code.IDENTITY:
            request = rejected.request or _unread_order(envelope, operation, message)
            try:
                proven = await self._identity.proves(request)
            except Transient:
                # The key set is away: the order is refused whoever sent it, and is not held for
                # that.
                proven = False
        is_known = False
        for field in ("orderId", "flowId"):  # a number is an id to some readers
            value = message.get(field)
            if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip():
                is_known = is_known or await self._is_known_order(str(value).strip())
        return proven or not is_known, proven and not is_known

    async def _project_of(
        self, envelope: Envelope, rejected: Rejected, operation: str
    ) -> str | None:
        """Return the project of an order whose sender is proven, for its update; None where it has
        none, or it cannot be told soon: nothing is held for that.
        """
        found = rejected.tenant
        if found is None:
            request = rejected.request or _unread_order(envelope, operation, rejected.message or {})
            with suppress(Refused, Transient, TimeoutError):
                async with asyncio.timeout(_PROJECT_PATIENCE):
                    found = (await self._identity.identify(request)).project_id
        return found if found != NO_PROJECT else None


def note_dead_letter(journal: Journal, envelope: Envelope, refused: Refused) -> None:
    """Count a dead letter by its cause, and tell the record of the replay by which it came."""
    code, reason = str(refused.code.wire), (refused.reason or "")[:LONGEST_REASON]
    _note(journal, envelope, refused, cause=(code, reason))


def note_refused_replay(journal: Journal, envelope: Envelope, refused: Refused) -> None:
    """Tell the record of the replay by which a message came that it was refused."""
    if replay_id(envelope) is not None:
        _note(journal, envelope, refused, cause=(None, ""))


def replay_id(envelope: Envelope) -> str | None:
    """Return the id of the replay by which a message came; None for one that came by none."""
    found = envelope.headers.get(REPLAY_ID_HEADER)
    if envelope.resume_token is None or not isinstance(found, str) or len(found) > _LONGEST_ID:
        return None
    return found


def _note(
    journal: Journal, envelope: Envelope, refused: Refused, cause: tuple[str | None, str]
) -> None:
    """Write a note without waiting: the message is safe, whatever becomes of the note."""
    replay = replay_id(envelope)
    text = error_text(refused) if replay is not None else None
    noted = journal.note_dead_letter(envelope.names.namespace, *cause, replay=replay, text=text)
    noted.add_done_callback(lambda one: one.cancelled() or one.exception())


def failed_result(
    request: Request,
    refused: Refused,
    policy: Policy,
    *,
    effects: Mapping[EffectId, Effect],
    checked: Checked,
) -> Result:
    """Return the failing result of a request in the shape of what was asked.

    `effects` and `checked` say what is known of the targets of a batch.
    """
    if request.kind is Kind.COMMAND:
        return failure(request.work, refused, effects, checked)
    return order_failure(
        request.envelope, refused, request.message, policy, changed=any_begun(effects)
    )


def order_failure(
    envelope: Envelope,
    refused: Refused,
    order: Mapping[str, Any],
    policy: Policy,
    *,
    changed: bool = False,
) -> Result:
    """Return the failing result of an order, as its message has it; `changed`: something may have
    been done.
    """
    time = policy.billing_time(envelope.published_at)
    return unread_order_result(order, refused, time, changed=changed)


def _unread_order(envelope: Envelope, operation: str, message: Mapping[str, Any]) -> Request:
    """Return an order that is wrong in form, as far as it says who sent it."""
    return Request(
        envelope=envelope,
        kind=Kind.ORDER,
        operation=operation,
        name=name_of(message),
        digest="",
        tenant=word_or_none(message.get("tenant_id")),
        user_id=word_or_none(message.get("userId")),
        instance_id=None,
        work=None,
        message=message,
        token=token_in(message),
    )

"""Progress of one request: what its handler says is written to the journal, then published."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Any, NoReturn, Protocol

import structlog

from handlers.context import ANSWER
from handlers.effects.ledger import Effect, EffectId, EffectKind, any_begun
from handlers.effects.waits import ResourceState, Wait
from handlers.orders.new.handler import needs_secrets
from handlers.orders.progress import order_update
from messages.errors import Refused
from messages.operations import Finals, spec_of
from messages.orders import Order
from messages.record import record
from messages.results import Result
from messages.updates import OrderStatus, Update
from messages.wire import encode
from workers.identity import NO_PROJECT, Requester, hash_of, new_resume_token
from workers.journal import Begun, Claim, EffectRecord, Kind
from workers.pipeline.exits import Requeue, Rescheduled
from workers.pipeline.in_flight import InFlight
from workers.pipeline.replies import Replies
from workers.pipeline.retry import Retry
from workers.pipeline.timeouts import HOLD, Timing
from workers.request import Request

log = structlog.get_logger()

#: Seconds after which the claim is checked again before an update is published.
_CLAIM_FRESH = 2.0
#: Seconds at least before a message goes back to its queue that must not go to a retry queue.
_LEAST_PAUSE = 1.0


class Ledger(Protocol):
    """The journal's part of a request that was claimed. Each raises `ClaimLost` where another
    worker has taken the request over.
    """

    def intend(self, claim: Claim, name: str, marker: Any) -> Awaitable[None]: ...
    def record(
        self, claim: Claim, name: str, outcome: dict[str, Any], request_id: str | None
    ) -> "asyncio.Future[None]": ...
    def remember(self, claim: Claim, name: str, value: Any) -> Awaitable[None]: ...
    def check_claim(self, claim: Claim) -> Awaitable[None]: ...
    def finish(
        self, claim: Claim, result: dict[str, Any], updates: list[dict[str, Any]]
    ) -> Awaitable[None]: ...
    def release(
        self,
        claim: Claim,
        attempts: int = 0,
        resume_token_hash: str | None = None,
        *,
        keeps_locks: bool = True,
        wait: Wait | None = None,
    ) -> Awaitable[None]: ...
    def note_wait(self, claim: Claim, wait: Wait | None) -> object: ...
    def settle(self, key: str) -> object: ...


class MemoryLedger:
    """The ledger of a read: nothing is written, for a repeat is looked up afresh."""

    async def intend(self, claim: Claim, name: str, marker: Any) -> None:
        raise RuntimeError(f"{name}: a read must change nothing")

    def record(
        self, claim: Claim, name: str, outcome: dict[str, Any], request_id: str | None
    ) -> "asyncio.Future[None]":
        raise RuntimeError(f"{name}: a read must change nothing")

    async def remember(self, claim: Claim, name: str, value: Any) -> None: ...
    async def check_claim(self, claim: Claim) -> None: ...
    async def finish(
        self, claim: Claim, result: dict[str, Any], updates: list[dict[str, Any]]
    ) -> None: ...
    async def release(
        self,
        claim: Claim,
        attempts: int = 0,
        resume_token_hash: str | None = None,
        *,
        keeps_locks: bool = True,
        wait: Wait | None = None,
    ) -> None: ...
    def note_wait(self, claim: Claim, wait: Wait | None) -> None: ...
    def settle(self, key: str) -> None: ...


@record
class Claimed:
    """The right to act for a request, with what earlier attempts have written."""

    ledger: Ledger
    claim: Claim
    effects: Mapping[str, EffectRecord]
    attempts: int
    #: None for a read, which nobody waits for.
    flight: InFlight | None
    #: Where the request is new.
    begun: Begun | None = None
    #: An operator has cancelled it.
    cancelled: bool = False
    #: Workers that died while they had it, and whether the last one that had it did.
    lost_workers: int = 0
    was_lost: bool = False


@record
class Ended:
    """The end of a request. `dead_letter`: why a person must look at its message, too."""

    result: Result
    dead_letter: Refused | None = None


class Progress:
    """The handler's way to the journal and to the requester; implements `Ledger` of the effects."""

    def __init__(
        self,
        request: Request,
        requester: Requester,
        timing: Timing,
        claimed: Claimed,
        replies: Replies,
    ) -> None:
        self.request = request
        self.requester = requester
        in_project = requester.project_id != NO_PROJECT
        #: The project that the request acts in; None where that is no single one.
        self.project_id = requester.project_id if in_project else None
        self.timing = timing
        self.claim = claimed.claim
        #: The journal's key, also part of the ids of what is published.
        self.key = claimed.claim.key
        self.attempts = claimed.attempts
        self.flight = claimed.flight
        self.begun = claimed.begun
        self.cancelled = claimed.cancelled
        self.lost_workers, self.was_lost = claimed.lost_workers, claimed.was_lost
        self._ledger = claimed.ledger
        self._replies = replies
        #: When the claim was last known to hold, by the monotonic clock.
        self._claimed_at = time.monotonic()
        self._effects: dict[EffectId, Effect] = {}
        #: Final updates: those of earlier attempts, those published already, and those that are
        #: held until the result is safe.
        self.finals: list[dict[str, Any]] = []
        #: Those of them that this attempt has published, by kind and id.
        self._published_finals: set[tuple[str, str]] = set()
        #: What became of the targets of a batch so far, by id.
        self.checked: dict[str, Refused | None] = {}
        #: Progress that an earlier attempt published of an order, by status.
        self._percent_by_status: dict[str, int] = {}
        #: Progress last published of an order, in percent, by whichever attempt.
        self.percent = 0
        #: The result that this attempt has published; None where it has not.
        self.published_result: Result | None = None
        #: The result that was published before the end, by whichever attempt: it stays the result.
        self.early_answer: Result | None = None
        if claimed.effects:
            self._restore(claimed.effects)
        #: The early answer, from the moment at which it is decided; one at a time is decided.
        self._decided: Result | None = self.early_answer
        self._deciding = asyncio.Lock()
        self._published: list[Awaitable[Any]] = []
        #: Outcomes that are being written.
        self._recording: dict[EffectId, asyncio.Future[None]] = {}
        #: The resource whose wait has ended last in this attempt.
        self.waited_for: ResourceState | None = None
        #: OpenStack calls of this attempt by HTTP method.
        self.calls: Counter[str] = Counter()

    def _restore(self, effects: Mapping[str, EffectRecord]) -> None:
        """Take over what earlier attempts have written."""
        for text, found in effects.items():
            name = EffectId.parse(text)
            effect = Effect(found.marker, found.intended_at, found.outcome, found.request_id)
            self._effects[name] = effect
            if effect.outcome is None:
                continue
            if name.kind is EffectKind.FINAL:
                self.finals.append(effect.value)
            elif name.kind is EffectKind.TOLD:
                self._percent_by_status[name.target] = int(effect.value)
            elif name == ANSWER:
                self.early_answer = Result.restored(effect.value)
        self.percent = max(self._percent_by_status.values(), default=0)

    # Effects: ORDER, the intent is in the journal before the call to OpenStack is made.

    def effect(self, name: EffectId) -> Effect | None:
        """Return what is known of an effect."""
        return self._effects.get(name)

    def effects(self) -> Mapping[EffectId, Effect]:
        """Return all that is known, in the order in which it was intended."""
        return self._effects

    @property
    def any_begun(self) -> bool:
        """True where anything may have been done to the cloud."""
        return any_begun(self._effects)

    async def intend(self, name: EffectId, marker: Any) -> None:
        """Write that an effect is about to be done. Raises `ClaimLost`."""
        if (recording := self._recording.pop(name, None)) is not None:
            # ORDER: two writes of one effect must not be in one group, whose kinds are not in order.
            await recording
        known, began = self._effects.get(name), time.monotonic()
        await self._ledger.intend(self.claim, str(name), marker)
        self._claimed_at = began
        self._effects[name] = Effect(marker, time.time(), sent=known is not None and known.unknown)

    def sending(self, name: EffectId) -> None:
        """Note that the call of an effect is sent now."""
        self._effects[name] = replace(self._effects[name], sent=True)

    @property
    def closed(self) -> bool:
        """True once the request has its answer: nothing more is begun."""
        return self._decided is not None

    async def record(self, name: EffectId, outcome: dict[str, Any], request_id: str | None) -> None:
        """Write what became of an effect; what is written later is not written without it.

        It is not waited for: an outcome that is lost is looked for, as after a death just before.
        Where another worker has the request, the next write raises `ClaimLost`.
        """
        known = self._effects[name]
        recording = self._ledger.record(self.claim, str(name), outcome, request_id)
        recording.add_done_callback(_note_failure)
        self._recording[name] = recording
        self._effects[name] = Effect(known.marker, known.intended_at, outcome, request_id)
        log.info(
            "effect.recorded", effect=str(name), outcome=outcome, openstack_request_id=request_id
        )

    async def remember(self, name: EffectId, value: Any) -> None:
        """Write a value that a later attempt must find. Raises `ClaimLost`."""
        began = time.monotonic()
        await self._ledger.remember(self.claim, str(name), value)
        self._claimed_at = began
        self._effects[name] = Effect(None, time.time(), {"value": value})

    # Status updates.

    async def publish(self, update: Update) -> None:
        """Publish a status update; a final one is written first, so that no other attempt publishes
        another one.

        A final update that ends the request is written with the result, and published after it.
        """
        body = self.body_of(update)
        if self.final_published(update.resource, update.id):
            return
        if update.order is not None:
            last = self._percent_by_status.get(update.status, self.percent)
            if last < self.percent:
                return  # an earlier attempt had come further than this
            await self._note_percent(update.status, body)
        if update.final:
            ends_early = spec_of(self.request.work).finals is Finals.EACH and update.order is None
            if ends_early:
                name = EffectId(EffectKind.FINAL, f"{update.resource}:{update.id}")
                await self.remember(name, body)
                self._publish_final(body)
            self.finals.append(body)
            return
        now = time.monotonic()
        if now - self._claimed_at > _CLAIM_FRESH:
            # A worker that stood still must not publish after another has published the end.
            await self._ledger.check_claim(self.claim)
            self._claimed_at = now
        self._published.append(self._replies.update(self.request.envelope, body, self.key))

    def body_of(self, update: Update) -> dict[str, Any]:
        """Return the update as it goes over the wire."""
        request = self.request
        return update_body(
            update,
            request.operation,
            message_id=request.message_id,
            tenant_id=self.project_id,
            user_id=request.user_id,
        )

    async def _note_percent(self, status: str, body: dict[str, Any]) -> None:
        """Raise the progress, which never falls. It is written before it is published, so that a
        later attempt begins where this one was.
        """
        risen = body["progress"] > self.percent or status not in self._percent_by_status
        self.percent = body["progress"] = max(self.percent, body["progress"])
        if risen and not body["final"] and status != OrderStatus.WAITING_RETRY:
            self._percent_by_status[status] = self.percent
            await self.remember(EffectId(EffectKind.TOLD, status), self.percent)

    def final_published(self, kind: str, resource_id: str) -> bool:
        """Tell whether this resource has its final update."""
        return any((one["resource"], one["id"]) == (kind, resource_id) for one in self.finals)

    # The result.

    async def answer(self, result: Result) -> None:
        """Publish the result before the end; without effect where the request has its answer.

        It is written first: whatever happens, no attempt may publish another one. Raises what
        `encode` raises for a result that is no JSON.
        """
        encode(result.stored())  # raises where it could not be published: nothing is written then
        if self._decided is None:
            # At once: from now on nothing is begun, and whoever comes next waits until this one is
            # written.
            self._decided = result
        async with self._deciding:
            if self.early_answer is None:
                await self.remember(ANSWER, self._decided.stored())
                self.early_answer = self._decided
        self._publish_result(self._decided)

    def publish_known(self) -> None:
        """Publish what an earlier attempt has written: the answer and final updates, of which
        copies do no harm.
        """
        if (answer := self.early_answer) is not None:
            self._publish_result(answer)
        self._publish_finals()

    async def finish(self, ended: Ended) -> None:
        """End the request: afterwards its message may leave its queue.

        ORDER: the result is in the journal before it is published, and the broker has confirmed
        everything before the message is acked.
        """
        result = ended.result
        await self._ledger.finish(self.claim, result.stored(), self.finals)
        await self.publish_end(result)
        if ended.dead_letter is not None:
            await self._replies.dead_letter(
                self.request.envelope, ended.dead_letter, proven=self.requester.project_id
            )
        # Not awaited: should it be lost, the next delivery finds the result and publishes it again.
        self._ledger.settle(self.key)
        ids = [one.request_id for one in self._effects.values() if one.request_id]
        log.info(
            "request.done",
            code=result.code,
            seconds=round(time.monotonic() - self.timing.started, 3),
            openstack_calls=self.calls,
            openstack_request_ids=ids,
        )

    async def publish_end(self, result: Result) -> None:
        """Publish what has not been: the result and the final updates; returns when the broker has
        confirmed everything.
        """
        self._publish_result(result)
        self._publish_finals()
        await self._confirmed()

    async def reschedule(self, retry: Retry, wait: Wait) -> NoReturn:
        """Release the request and have its message come back: the next attempt goes on where this
        one was; `wait` says why. Always raises: `Rescheduled`, or `Requeue` where a retry queue
        would mask secrets that are still needed.

        One that only waits keeps its place at the locks of its servers; so does an order that
        failed with something begun: whoever came later would find the server in the middle of a
        change.
        """
        request, counted = self.request, int(retry.counts)
        keeps_locks = not counted or (request.kind is Kind.ORDER and self.any_begun)
        if counted and isinstance(request.work, Order):
            await self.publish(order_update(request.work, OrderStatus.WAITING_RETRY, self.percent))
        await self._confirmed()
        token = self.requester.resume_token or new_resume_token()
        delay: float = retry.delay
        if needs_secrets(request.work, self):
            held = time.monotonic() - self.timing.started
            delay = max(_LEAST_PAUSE, min(delay, HOLD - held))
        wait = replace(wait, until=wait.since + delay)
        await self._ledger.release(
            self.claim, counted, hash_of(token), keeps_locks=keeps_locks, wait=wait
        )
        attempts, why = self.attempts + counted, wait.cause or wait.reason.value
        if needs_secrets(request.work, self):
            self._replies.retried(why)
            log.info("request.requeued", attempt=attempts, reason=why, seconds=delay)
            raise Requeue(delay)
        await self._replies.retry(request, retry.delay, attempts, token, reason=why)
        raise Rescheduled

    def note_wait(self, wait: Wait | None) -> None:
        """Note what the request waits for while this process has it; it is not waited for."""
        self._ledger.note_wait(self.claim, wait)

    def _publish_finals(self) -> None:
        for body in self.finals:
            if (body["resource"], body["id"]) not in self._published_finals:
                self._publish_final(body)

    def _publish_final(self, body: dict[str, Any]) -> None:
        self._published_finals.add((body["resource"], body["id"]))
        self._published.append(self._replies.update(self.request.envelope, body, self.key))

    def _publish_result(self, result: Result) -> None:
        if self.published_result is not None:
            return
        request = self.request
        self._published += self._replies.result(
            request.envelope, request.operation, self.key, result
        )
        self.published_result = result
        if self.flight is not None:
            self.flight.answered.set_result(result)

    async def _confirmed(self) -> None:
        """Wait until the broker has confirmed everything that was published."""
        published, self._published = self._published, []
        for one in published:
            await one


def _note_failure(recording: "asyncio.Future[None]") -> None:
    """Take note of the error of a write that nobody waits for, or asyncio reports it as an error."""
    if not recording.cancelled() and (error := recording.exception()) is not None:
        log.warning("effect.not_recorded", why=str(error))


def update_body(
    update: Update,
    operation: str,
    *,
    message_id: str | None,
    tenant_id: str | None,
    user_id: str | None,
) -> dict[str, Any]:
    """Return the update as it goes over the wire; message id and user are the request's.

    `tenant_id` is the request's project, which an update's own takes precedence over; None: not
    known, or several.
    """
    told = update.on_wire(operation, message_id=message_id, tenant_id=tenant_id, user_id=user_id)
    return told.model_dump(mode="json", exclude_unset=True)

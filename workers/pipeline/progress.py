"""One request while it is carried out: what its handler says is written down and published."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from handlers.context import ANSWER
from handlers.effects.ledger import Effect, EffectId, EffectKind
from messages.commands import PowerBatch
from messages.errors import Refused
from messages.images import CreateImage, ImageBatchDelete
from messages.orders import Order
from messages.results import Result
from messages.updates import OrderStatus, Update, wire_time
from messages.wire import encode
from workers.journal import Claim, EffectRecord, Journal
from workers.pipeline.replies import Replies
from workers.request import Request

#: Requests of which one resource may end long before another.
_SEVERAL = (PowerBatch, ImageBatchDelete, CreateImage, Order)
#: Seconds for which it is sure that a request is ours.
_SURE = 2.0


class Progress:
    """The handler's way to the journal and to whoever asked; a `Ledger`."""

    def __init__(  # noqa: PLR0917 - all that a request is known by
        self,
        request: Request,
        key: str,
        outbox: Replies,
        journal: Journal | None,
        claim: Claim | None,
        effects: Mapping[str, EffectRecord],
        log: Any,
    ) -> None:
        self.request = request
        self.key = key
        self.log = log
        self._outbox = outbox
        self._journal = journal
        self._claim = claim
        #: When the request was last known to be ours, by the monotonic clock.
        self._sure_at = time.monotonic()
        self._effects = {
            EffectId.parse(name): Effect(
                found.marker, found.intended_at, found.outcome, found.request_id
            )
            for name, found in effects.items()
        }
        #: Final updates: those of earlier runs, those told already, and those that are held until
        #: the result is safe.
        self.finals: list[dict[str, Any]] = [
            found.outcome["value"]
            for name, found in self._effects.items()
            if name.kind is EffectKind.FINAL and found.outcome is not None
        ]
        #: Those of them that this run has published, by kind and id.
        self._published_finals: set[tuple[str, str]] = set()
        #: What became of the targets of a batch so far, by id.
        self.checked: dict[str, Refused | None] = {}
        #: What an earlier run told of an order: progress by status.
        self._told = {
            name.target: int(found.outcome["value"])
            for name, found in self._effects.items()
            if name.kind is EffectKind.TOLD and found.outcome is not None
        }
        #: Progress last told of an order, by whichever run.
        self.progress = max(self._told.values(), default=0)
        #: What it is answered with before the end, and whether that is written down: one answer at
        #: a time is decided.
        self._decided: Result | None = self.told
        self._deciding = asyncio.Lock()
        #: What was answered before the end.
        self.answered: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._published: list[Awaitable[Any]] = []
        #: What the message was known by when it came without its token.
        self.resume_token: str | None = None
        #: Who has put it in again, where somebody has.
        self.operator: str | None = None
        #: OpenStack calls of this run by HTTP method.
        self.calls: Counter[str] = Counter()
        #: The project that it acts in; None where that is no single one.
        self.project_id: str | None = None

    # What the effects are written down with.

    def effect(self, name: EffectId) -> Effect | None:
        """What is known of an effect."""
        return self._effects.get(name)

    def effects(self) -> Mapping[EffectId, Effect]:
        """All that is known, in the order in which it was meant."""
        return self._effects

    @property
    def any_begun(self) -> bool:
        """Whether anything may have been done to the cloud."""
        return any(not (one.refused or one.is_memory) for one in self._effects.values())

    async def intend(self, name: EffectId, marker: Any) -> None:
        """Write that it is about to be done."""
        known = self._effects.get(name)
        await self._write(lambda journal, claim: journal.intend(claim, str(name), marker))
        self._effects[name] = Effect(marker, time.time(), sent=known is not None and known.unknown)

    def sending(self, name: EffectId) -> None:
        """Note that its call is sent now."""
        self._effects[name] = replace(self._effects[name], sent=True)

    @property
    def closed(self) -> bool:
        """Whether it has its answer: nothing more is begun."""
        return self._decided is not None

    async def record(self, name: EffectId, outcome: dict[str, Any], request_id: str | None) -> None:
        """Write what became of it."""
        await self._write(
            lambda journal, claim: journal.record(claim, str(name), outcome, request_id)
        )
        known = self._effects[name]
        self._effects[name] = Effect(known.marker, known.intended_at, outcome, request_id)
        self.log.info(
            "effect.recorded", effect=str(name), outcome=outcome, openstack_request_id=request_id
        )

    async def remember(self, name: EffectId, value: Any) -> None:
        """Write a value that a later run must find."""
        await self._write(lambda journal, claim: journal.remember(claim, str(name), value))
        self._effects[name] = Effect(None, time.time(), {"value": value})

    async def _write(self, write: Callable[[Journal, Claim], Awaitable[None]]) -> None:
        """`ClaimLost` where another worker has taken the request over."""
        began = time.monotonic()
        if self._journal is not None and self._claim is not None:
            await write(self._journal, self._claim)
        self._sure_at = began

    # What is told.

    async def publish(self, update: Update) -> None:
        """Publish an update. A final one is written down first, so that no other run tells another
        one.

        Where the request ends with it, it is written down with the result.
        """
        body = self.body_of(update)
        if self.final_published(update.resource, update.id):
            return
        if update.order is not None:
            if self._told.get(update.status, self.progress) < self.progress:
                return  # an earlier run had come further than this
            await self._note_progress(update.status, body)
        if update.final:
            if isinstance(self.request.work, _SEVERAL) and update.order is None:
                await self.remember(
                    EffectId(EffectKind.FINAL, f"{update.resource}:{update.id}"), body
                )
                self._publish_final(body)
            self.finals.append(body)
            return
        if time.monotonic() - self._sure_at > _SURE:
            # A worker that stood still must not tell on what another has told to its end.
            await self._write(lambda journal, claim: journal.still(claim))
        self._published.append(self._outbox.update(self.request.envelope, body, self.key))

    def body_of(self, update: Update) -> dict[str, Any]:
        """The update as it goes over the wire."""
        request = self.request
        return update_body(
            update,
            request.operation,
            message_id=request.message_id,
            tenant_id=self.project_id,
            user_id=request.user_id,
        )

    async def _note_progress(self, status: str, body: dict[str, Any]) -> None:
        """It never falls; written down before it is told, so that a later run begins where this one
        was.
        """
        risen = body["progress"] > self.progress or status not in self._told
        self.progress = body["progress"] = max(self.progress, body["progress"])
        if risen and not body["final"] and status != OrderStatus.WAITING_RETRY:
            self._told[status] = self.progress
            await self.remember(EffectId(EffectKind.TOLD, status), self.progress)

    @property
    def told(self) -> Result | None:
        """What was answered before the end, by whichever run: it stays the answer."""
        known = self._effects.get(ANSWER)
        return (
            Result.restored(known.outcome["value"])
            if known is not None and known.outcome is not None
            else None
        )

    @property
    def given(self) -> Result | None:
        """What this run has published as the result; None where it has not."""
        return (
            self.answered.result()
            if self.answered.done() and not self.answered.cancelled()
            else None
        )

    async def answer(self, result: Result) -> None:
        """Publish the result before the end. Written down first: whatever happens, no run may tell
        another one.

        It has no effect where the request has its answer.
        """
        encode(result.stored())  # raises where it could not be told: nothing is remembered then
        if self._decided is None:
            # At once: from now on nothing is begun, and whoever comes next waits until this one is
            # written down.
            self._decided = result
        async with self._deciding:
            if self.told is None:
                await self.remember(ANSWER, self._decided.stored())
        self._publish_result(self._decided)

    def final_published(self, kind: str, resource_id: str) -> bool:
        """Whether the final update of this resource was told."""
        return any((one["resource"], one["id"]) == (kind, resource_id) for one in self.finals)

    def publish_known(self) -> None:
        """Publish what an earlier run has written down: the answer and final updates, of which
        copies do no harm.
        """
        if self.told is not None:
            self._publish_result(self.told)
        self._publish_finals()

    async def publish_end(self, result: Result) -> None:
        """Publish what has not been: the result and the final updates; ends when the broker has
        everything.
        """
        self._publish_result(result)
        self._publish_finals()
        await self.flush()

    def _publish_finals(self) -> None:
        for body in self.finals:
            if (body["resource"], body["id"]) not in self._published_finals:
                self._publish_final(body)

    def _publish_final(self, body: dict[str, Any]) -> None:
        self._published_finals.add((body["resource"], body["id"]))
        self._published.append(self._outbox.update(self.request.envelope, body, self.key))

    def _publish_result(self, result: Result) -> None:
        if not self.answered.done():
            self._published += self._outbox.result(
                self.request.envelope, self.request.operation, self.key, result
            )
            self.answered.set_result(result)

    async def flush(self) -> None:
        """Wait until the broker has everything that was published."""
        published, self._published = self._published, []
        for one in published:
            await one

    def openstack_request_ids(self) -> list[str]:
        """OpenStack's ids of the calls that changed something."""
        return [effect.request_id for effect in self._effects.values() if effect.request_id]


def update_body(
    update: Update,
    operation: str,
    *,
    message_id: str | None,
    tenant_id: str | None,
    user_id: str | None,
) -> dict[str, Any]:
    """The update as it goes over the wire; message id and user are the request's.

    `tenant_id` is the request's project, which an update's own takes precedence over; None: not
    known, or several.
    """
    return {
        "resource": update.resource,
        "id": update.id,
        "operation": operation,
        "action": update.action,
        "status": update.status,
        "translation": update.translation,
        "final": update.final,
        "message_id": message_id,
        "tenant_id": update.tenant_id or tenant_id,
        "user_id": user_id,
        "time": wire_time(),
        **(update.order or {}),
    }


def request_log(request: Request, project_id: str | None, attempt: int | None = None) -> Any:
    """A logger whose lines carry what the request is known by; None: not known yet, or as its
    message says.
    """
    return structlog.get_logger().bind(
        message_id=request.envelope.message_id,
        request=request.name,
        operation=request.operation,
        tenant=project_id,
        attempt=request.envelope.attempts if attempt is None else attempt,
    )

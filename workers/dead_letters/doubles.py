"""Doubles for a dry run: a journal, a publisher and a delivery that change nothing."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from handlers.openstack.errors import Foreseen
from workers.amqp.consumer import Delivery
from workers.amqp.envelope import Envelope, Publication, Published
from workers.amqp.publisher import Publisher
from workers.dead_letters.dry_run_result import DryRunOutcome, DryRunResult
from workers.journal import (
    Begun,
    Claim,
    ContentConflict,
    History,
    Journal,
    Kind,
    Known,
    NewRequest,
    Outcome,
    RequestRecord,
    Resumed,
    State,
)


class Decided(BaseException):
    """The result is known before the handler runs. No error: nothing may catch it on its way."""

    def __init__(self, outcome: DryRunOutcome, detail: str) -> None:
        self.result = DryRunResult(outcome, detail)
        super().__init__(detail)


class UnsettledDelivery(Delivery):
    """A delivery that no broker made."""

    __slots__ = ("requeued",)

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self.tenant = None
        self.is_begun = False
        self.requeued = False

    def settle(self) -> None:
        return

    def requeue(self) -> None:
        self.requeued = True


class CapturingPublisher(Publisher):
    """Keeps what would be published."""

    def __init__(self) -> None:
        self.publications: list[Publication] = []

    def publish(self, publication: Publication) -> "asyncio.Future[Published]":
        self.publications.append(publication)
        return _done(Published.CONFIRMED)


class ReadOnlyJournal(Journal):
    """The journal as it is for one message; writes are only remembered.

    `known` are the requests of the dry run's messages that are in the journal, by key. `begun` has
    the digest by key of the requests that other messages of the dry run would begin: of several
    equal ones the first would be carried out.
    """

    def __init__(
        self, history: History, known: Mapping[str, RequestRecord], begun: dict[str, str]
    ) -> None:
        self._history = history
        self._known = known
        self._begun = begun
        self.outcome: Outcome | None = None
        self.intents: list[str] = []
        self.remembered: dict[str, Any] = {}

    @property
    def trouble(self) -> str | None:
        return None

    def begin(self, request: NewRequest, _locks: tuple[str, ...] = ()) -> "asyncio.Future[Outcome]":
        return asyncio.ensure_future(self._begin(request))

    async def _begin(self, new: NewRequest) -> Outcome:
        request = self._known.get(new.key)
        if request is not None:
            self.outcome = await self._outcome_of(request, new)
        elif new.key not in self._begun:
            self._begun[new.key] = new.digest
            self.outcome = Begun(Claim(new.key, ""))
        elif self._begun[new.key] == new.digest:
            detail = "equal to another message of this dry run, whose result it would get"
            raise Decided(DryRunOutcome.KNOWN, detail)
        else:
            self.outcome = ContentConflict()
        return self.outcome

    async def _outcome_of(self, request: RequestRecord, new: NewRequest) -> Outcome:
        if request.digest != new.digest:
            return ContentConflict()
        if request.state is not State.RUNNING:
            is_settled = request.state is State.SETTLED
            return Known(request.result or {}, list(request.updates), is_settled)
        owner = request.owner
        if owner is not None and await asyncio.to_thread(self._history.is_alive, owner):
            detail = "a worker is carrying it out: it would get that result"
            raise Decided(DryRunOutcome.IN_PROGRESS, detail)
        effects = {one.name: one for one in request.effects}
        return Resumed(Claim(request.key, ""), effects, request.attempts, request.received_at)

    def intend(self, claim: Claim, name: str, marker: Any) -> "asyncio.Future[None]":
        """End the dry run: the handler is about to change something."""
        self.intents.append(name)
        raise Foreseen(name)

    def remember(self, claim: Claim, name: str, value: Any) -> "asyncio.Future[None]":
        self.remembered[name] = value
        return _done(None)

    async def find(self, word: str) -> list[RequestRecord]:
        return await asyncio.to_thread(self._history.find, word)

    async def with_keys(self, keys: Sequence[str]) -> dict[str, RequestRecord]:
        return await asyncio.to_thread(self._history.with_keys, keys)

    async def authenticated_tenant(
        self, kind: Kind, name: str, digest: str, resume_token_hash: str
    ) -> str | None:
        return None

    def _write_nothing(self, *_args: Any, **_options: Any) -> "asyncio.Future[Any]":
        return _done(None)

    record = check_claim = finish = settle = release = add_resume_token = _write_nothing
    acquire_locks = expire_lock = note_wait = note_dead_letter = _write_nothing


def _done(value: Any) -> "asyncio.Future[Any]":
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future

"""Journal, publisher and delivery of a rehearsal: nothing is written, published or settled."""

import asyncio
from typing import Any

from handlers.openstack.errors import Foreseen
from workers.amqp.consumer import Delivery
from workers.amqp.envelope import Envelope
from workers.amqp.publication import Publication, Published
from workers.dead_letters.forecast import Fate
from workers.journal import (
    Begun,
    Claim,
    Conflict,
    History,
    Journal,
    Kind,
    Known,
    NewRequest,
    Outcome,
    Replay,
    ReplayState,
    Request,
    Resumed,
    State,
)


class Told(BaseException):
    """It is known what would become of it. Nothing may catch it on its way."""

    def __init__(self, fate: Fate, detail: str) -> None:
        self.fate = fate
        self.detail = detail
        super().__init__(detail)


class Held(Delivery):
    """A message that nobody delivered."""

    __slots__ = ("given_back",)

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self.given_back = False

    def settle(self) -> None:
        return

    def requeue(self) -> None:
        self.given_back = True


class Caught:
    """A publisher that publishes nothing."""

    def __init__(self) -> None:
        self.publications: list[Publication] = []

    def publish(self, publication: Publication) -> "asyncio.Future[Published]":
        self.publications.append(publication)
        return _done(Published.CONFIRMED)


class ReadJournal(Journal):
    """The journal as it is for one message; what would be written is only remembered."""

    def __init__(self, history: History, begun: dict[str, str], tenant: str | None) -> None:
        self._history = history
        self._begun = begun
        self._tenant = tenant
        self.outcome: Outcome | None = None
        self.intents: list[str] = []
        self.remembered: dict[str, Any] = {}

    @property
    def trouble(self) -> str | None:
        return None

    def begin(self, request: NewRequest) -> "asyncio.Future[Outcome]":
        return asyncio.ensure_future(self._look(request))

    async def _look(self, new: NewRequest) -> Outcome:
        found = await asyncio.to_thread(self._history.find, new.key)
        request = next((one for one in found if one.key == new.key), None)
        self.outcome = (
            await self._known(request, new) if request is not None else self._unknown(new)
        )
        return self.outcome

    def _unknown(self, new: NewRequest) -> Outcome:
        if new.key not in self._begun:
            self._begun[new.key] = new.digest
            return Begun(Claim(new.key, ""))
        if self._begun[new.key] == new.digest:
            raise Told(
                Fate.KNOWN, "the same as another message of this set, whose result it would get"
            )
        return Conflict()

    async def _known(self, request: Request, new: NewRequest) -> Outcome:
        if request.digest != new.digest:
            return Conflict()
        if request.state is not State.RUNNING:
            return Known(
                request.result or {}, list(request.updates), request.state is State.SETTLED
            )
        if request.owner is not None and await asyncio.to_thread(
            self._history.lives, request.owner
        ):
            raise Told(Fate.UNDER_WAY, "a worker is at it: it would get that one's result")
        effects = {one.name: one for one in request.effects}
        return Resumed(Claim(request.key, ""), effects, request.attempts, request.received_at)

    def intend(self, claim: Claim, name: str, marker: Any) -> "asyncio.Future[None]":
        self.intents.append(name)
        raise Foreseen(name)

    def record(
        self, claim: Claim, name: str, outcome: dict[str, Any], request_id: str | None
    ) -> "asyncio.Future[None]":
        return _done(None)

    def remember(self, claim: Claim, name: str, value: Any) -> "asyncio.Future[None]":
        self.remembered[name] = value
        return _done(None)

    def still(self, claim: Claim) -> "asyncio.Future[None]":
        return _done(None)

    def finish(
        self, claim: Claim, result: dict[str, Any], updates: list[dict[str, Any]]
    ) -> "asyncio.Future[None]":
        return _done(None)

    def settle(self, key: str) -> "asyncio.Future[None]":
        return _done(None)

    def release(
        self, claim: Claim, attempts: int = 0, pass_hash: str | None = None
    ) -> "asyncio.Future[None]":
        return _done(None)

    def acquire_locks(self, claim: Claim, servers: tuple[str, ...] = ()) -> "asyncio.Future[Any]":
        return _done(None)

    def leave(self, key: str) -> "asyncio.Future[None]":
        return _done(None)

    def redeem(self, pass_hash: str, digest: str) -> "asyncio.Future[Replay | None]":
        """As if the operator had put it in."""
        return _done(
            Replay(
                id="",
                batch="",
                position=0,
                action="",
                operator="operator",
                selection="",
                name=None,
                message_id=None,
                operation=None,
                origin="",
                code="",
                failed_at="",
                identity="",
                digest=digest,
                tenant=self._tenant,
                state=ReplayState.ISSUED,
                pinned_at=0.0,
            )
        )

    async def find(self, word: str) -> list[Request]:
        return await asyncio.to_thread(self._history.find, word)

    async def admitted(self, kind: Kind, name: str, digest: str, pass_hash: str) -> str | None:
        return None


def _done(value: Any) -> "asyncio.Future[Any]":
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future

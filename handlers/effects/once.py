"""Effects: what is done to the cloud at most once for a request, whatever dies in between.

The intent is written before the call and the outcome after it. What is found with an intent and no
outcome was cut off in between, and the cloud is asked whether it was done before it is done again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeVar

from handlers.effects.backoff import DEFAULT_TIMING, Deadline, EffectTiming, delays, pause, retrying
from handlers.effects.ledger import Effect, EffectId, Ledger
from handlers.openstack.errors import CloudRefusal
from handlers.openstack.project import fence
from handlers.openstack.sessions import Reply
from messages.codes import Code
from messages.errors import Ambiguous, OutcomeUnknown, Refused, Transient

T = TypeVar("T")


#: Until every caller passes an id: a text is parsed.
EffectName = EffectId | str


def effect_id(name: EffectName) -> EffectId:
    """Return the id that a name stands for."""
    return name if isinstance(name, EffectId) else EffectId.parse(name)


class _NotSent(Refused):
    """The time was up before the call was sent: it will not be."""


#: Looks at the cloud since the marker: OpenStack's request id of the call that was found (empty
#: where it has none).
Landed = Callable[[Any], Awaitable[str | None]]
#: Looks for the mark that the request leaves on what it changes; answers as `Landed` does.
Marked = Callable[[], Awaitable[str | None]]


class Effects:
    """The effects of one request.

    `patience` says until when a call that failed in passing is tried again; past `expiry`, where
    there is one, nothing is begun any more: whoever asked has given up. Past `deadline`, the
    requester's own, the first effect is not begun; those that follow one are.
    """

    def __init__(
        self,
        ledger: Ledger,
        patience: Deadline,
        expiry: Deadline | None = None,
        deadline: Deadline | None = None,
        timing: EffectTiming = DEFAULT_TIMING,
    ) -> None:
        self._ledger = ledger
        self._expiry = expiry
        self._deadline = deadline
        self._timing = timing
        self.patience = patience
        #: When this run began, by both clocks, and when it meant each effect, by the monotonic one.
        self._began, self._began_at = time.monotonic(), time.time()
        self._meant: dict[EffectId, float] = {}

    def begun(self, name: EffectName) -> bool:
        """Whether this was meant to be done before, by whomever; its preconditions no longer say
        anything.
        """
        effect = self._ledger.effect(effect_id(name))
        return effect is not None and not effect.refused

    def done(self, name: EffectName) -> bool:
        """Whether this is known to have been done."""
        effect = self._ledger.effect(effect_id(name))
        return effect is not None and effect.done

    @property
    def known(self) -> Mapping[EffectId, Effect]:
        """All that is known of them, by their names."""
        return self._ledger.effects()

    def unknown(self, name: EffectName) -> bool:
        """Whether this may have been done, and it is not known."""
        effect = self._ledger.effect(effect_id(name))
        return effect is not None and effect.unknown

    def request_id(self, name: EffectName) -> str | None:
        """OpenStack's id of the call that did it."""
        effect = self._ledger.effect(effect_id(name))
        return effect.request_id if effect is not None else None

    def request_ids(self, subjects: Collection[str]) -> list[str]:
        """OpenStack's ids of the calls that changed one of these things: an effect is named
        `what:whose`.
        """
        return [
            effect.request_id
            for name, effect in self._ledger.effects().items()
            if effect.request_id is not None and name.target in subjects
        ]

    @property
    def any_begun(self) -> bool:
        """Whether anything at all may have been done to the cloud for this request."""
        return any(not (one.refused or one.is_memory) for one in self._ledger.effects().values())

    @property
    def any_done(self) -> bool:
        """Whether anything is known to have been done to the cloud for this request."""
        return any(one.done and not one.is_memory for one in self._ledger.effects().values())

    def age(self, name: EffectName) -> float:
        """Seconds since it was meant to be done; 0 where it was not. A clock that jumps meanwhile
        does not count.
        """
        name = effect_id(name)
        if name in self._meant:
            return time.monotonic() - self._meant[name]
        effect = self._ledger.effect(effect_id(name))
        if effect is None:
            return 0.0
        return max(0.0, self._began_at - effect.intended_at) + time.monotonic() - self._began

    def remembered(self, name: EffectName) -> Any:
        """What was remembered under this name; None if nothing was."""
        effect = self._ledger.effect(effect_id(name))
        return (
            effect.outcome["value"] if effect is not None and effect.outcome is not None else None
        )

    async def remember(self, name: EffectName, make: Callable[[], Awaitable[Any]]) -> Any:
        """A value that is made once, and found again by whoever goes on with the request. JSON, not
        None.
        """
        known = self.remembered(name)
        if known is None:
            known = await make()
            await self._ledger.remember(effect_id(name), known)
        return known

    async def revise(self, name: EffectName, value: Any) -> None:
        """Remember another value in its place; a later run finds this one."""
        await self._ledger.remember(effect_id(name), value)

    async def once(
        self,
        name: EffectName,
        do: Callable[[], Awaitable[Reply]],
        landed: Landed,
        marker: Any,
        *,
        marked: Marked | None = None,
    ) -> None:
        """Do it, unless it has been done.

        `marker` is what was known of the cloud just before (its clock); `landed` gets that of the
        first intent. `marked` is asked before the first intent is written: a ledger that was lost,
        or restored from a backup, does not know what the cloud shows to be done. Raises what `do`
        raises when the cloud refuses, `Transient` when patience ends, and `OutcomeUnknown`.
        """
        name = effect_id(name)
        effect = self._ledger.effect(name)
        if effect is not None and effect.done:
            return
        unsure = effect is not None and not effect.refused
        if effect is not None and unsure:
            marker = effect.marker
            if await self._found(name, landed, marker, Deadline.after(self._timing.flight)):
                return
            if self._is_over:
                await self.find_out(name, landed)
                if self.done(name):
                    return
                raise OutcomeUnknown(str(name))
        else:
            if marked is not None and (request_id := await self.retrying(marked)) is not None:
                await self.adopt(name, marker, request_id)
                return
            self._check_expiry()
            await self._intend(name, marker)
        fenced = fence.set(lambda: self._right_to_send(name, marker))
        try:
            await self._do(name, do, landed, marker, unsure=unsure)
        finally:
            fence.reset(fenced)

    async def adopt(self, name: EffectName, marker: Any = None, request_id: str = "") -> None:
        """Record as done what the cloud shows to be done by its mark, though no intent is known."""
        name = effect_id(name)
        await self._intend(name, marker)
        await self._ledger.record(name, {"found": True}, request_id or None)

    async def find_out(self, name: EffectName, landed: Landed) -> None:
        """Look for what may have been done, and do nothing; what is found is recorded.

        `Transient` where the cloud does not tell.
        """
        name = effect_id(name)
        effect = self._ledger.effect(name)
        if effect is not None and effect.unknown:
            until = Deadline.after(
                max(self._timing.flight, self._timing.late_command - self.age(name))
            )
            await self._found(name, landed, effect.marker, until)

    async def _intend(self, name: EffectId, marker: Any) -> None:
        # Before it is written, which may take long.
        self._meant[name] = time.monotonic()
        await self._ledger.intend(name, marker)

    async def _right_to_send(self, name: EffectId, marker: Any) -> Deadline:
        """Until when the call may be sent; what the ledger raises where the request is another's by
        now.
        """
        self._check_expiry()
        if time.monotonic() - self._meant.get(name, 0.0) > self._timing.fresh:
            await self._intend(name, marker)
            self._check_expiry()
        # Nothing may come in between: who answers in our place asks whether it was sent.
        self._ledger.sending(name)
        return Deadline(self._meant[name] + self._timing.send_within)

    @property
    def _is_over(self) -> bool:
        """Whether nothing is to be begun any more."""
        return self._ledger.closed or (self._expiry is not None and self._expiry.passed)

    @property
    def _any_sent(self) -> bool:
        """Whether anything may have been done to the cloud: what is only meant to be does not
        count.
        """
        return any(
            one.unknown or (one.done and not one.is_memory)
            for one in self._ledger.effects().values()
        )

    def _check_expiry(self) -> None:
        if self._deadline is not None and self._deadline.passed and not self._any_sent:
            raise _NotSent(Code.FAILED, reason="deadline")
        if self._is_over:
            raise _NotSent(
                Code.FAILED, reason="timeout", detail="the time was up before it could be begun"
            )

    async def _do(
        self,
        name: EffectId,
        do: Callable[[], Awaitable[Reply]],
        landed: Landed,
        marker: Any,
        *,
        unsure: bool,
    ) -> None:
        for delay in delays(0.2, 5.0):
            try:
                reply = await do()
            except Ambiguous as error:
                unsure = True
                if await self._landed_after_all(name, landed, marker, error):
                    return
                await self._pause(error, delay)
            except _NotSent as error:
                raise await self._given_up(name, error, unsure=unsure) from None
            except Transient as error:
                if self._ledger.closed:
                    raise await self._given_up(name, error, unsure=unsure) from error
                await self._pause_unsent(name, error, delay, unsure=unsure)
            except CloudRefusal as error:
                if unsure and await self._left_traces(name, landed, marker):
                    return
                await self._ledger.record(name, {"refused": error.status}, error.request_id)
                raise
            else:
                await self._ledger.record(name, {"status": reply.status}, reply.request_id)
                return

    async def _landed_after_all(
        self, name: EffectId, landed: Landed, marker: Any, error: Ambiguous
    ) -> bool:
        """Whether a call was carried out whose answer was lost; `OutcomeUnknown` where it must not
        be made again.
        """
        if await self._found(name, landed, marker, self._until(error)):
            return True
        if error.may_land_late or self._ledger.closed:
            raise OutcomeUnknown(str(name)) from error
        return False

    async def _given_up(self, name: EffectId, error: Exception, *, unsure: bool) -> Exception:
        """The error that ends an effect whose time was up before its call could be sent, or sent
        again.
        """
        if unsure:
            return OutcomeUnknown(str(name))
        await self._ledger.record(name, {"refused": None}, None)
        if isinstance(error, _NotSent):
            return error
        return _NotSent(
            Code.FAILED, reason="timeout", detail="the time was up before it could be begun"
        )

    def _until(self, error: Ambiguous) -> Deadline:
        """Until when a call is looked for whose answer was lost."""
        if not error.may_land_late:
            return Deadline.after(self._timing.settle)
        return Deadline.after(
            self._timing.late if self._expiry is None else self._timing.late_command
        )

    async def _left_traces(self, name: EffectId, landed: Landed, marker: Any) -> bool:
        """A repeat of what landed after all is refused for its own traces: in conflict, gone
        already, large enough.
        """
        try:
            return await self._found(name, landed, marker, Deadline(0.0))
        except CloudRefusal:
            return False  # there is nothing left to look at

    async def _found(self, name: EffectId, landed: Landed, marker: Any, until: Deadline) -> bool:
        while True:
            request_id = await self._look(name, landed, marker, until)
            if request_id is not None:
                await self._ledger.record(name, {"found": True}, request_id or None)
                return True
            if until.passed:
                return False
            await asyncio.sleep(self._timing.look_every)

    async def retrying(self, call: Callable[[], Awaitable[T]]) -> T:
        """The answer of a call that changes nothing, tried again for as long as there is time."""
        return await retrying(call, self.patience, self._expiry)

    async def _look(
        self, name: EffectId, landed: Landed, marker: Any, until: Deadline
    ) -> str | None:
        try:
            return await self.retrying(lambda: landed(marker))
        except Transient as error:
            if self._expiry is None:
                raise  # an order comes back, and looks again
            if not until.passed:
                return None
            if self._ledger.closed:
                raise  # so does a command that has its answer
            raise OutcomeUnknown(str(name)) from error

    async def _pause(self, error: Transient, delay: float) -> None:
        await pause(error, delay, self.patience)

    async def _pause_unsent(
        self, name: EffectId, error: Transient, delay: float, *, unsure: bool
    ) -> None:
        """Pause after a call that was surely not carried out; where there is no later try, record
        that.
        """
        try:
            await self._pause(error, delay)
        except Transient:
            if not unsure:  # else a call before it may have been
                await self._ledger.record(name, {"refused": None}, None)
            raise

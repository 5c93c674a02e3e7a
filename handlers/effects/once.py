"""Effects: changes of the cloud that are made at most once for a request, whatever dies in between.

The intent is written before the call and the outcome after it. An effect that has an intent and no
outcome was cut off in between: the cloud is asked whether it was done before it is done again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any, TypeVar

from handlers.effects.backoff import DEFAULT_TIMING, Deadline, EffectTiming, delays, pause, retrying
from handlers.effects.ledger import Effect, EffectId, Ledger, any_begun
from handlers.openstack.errors import CloudRefusal
from handlers.openstack.project import fence
from handlers.openstack.sessions import Reply
from messages.codes import Code
from messages.errors import Ambiguous, OutcomeUnknown, Refused, Transient

T = TypeVar("T")

#: Makes the call of an effect.
Do = Callable[[], Awaitable[Reply]]
#: Looks at the cloud since the marker: returns OpenStack's request id of the call that it finds
#: (empty where it has none), None where it finds none.
Landed = Callable[[Any], Awaitable[str | None]]
#: Looks for the mark that the request leaves on what it changes; returns the same as `Landed`.
Marked = Callable[[], Awaitable[str | None]]
#: Looks for an effect's call until a deadline, and records it; True where it was found.
_Look = Callable[[Deadline], Awaitable[bool]]


class _NotSent(Refused):
    """The time was up before the call was sent: it will not be."""


def _too_late() -> _NotSent:
    return _NotSent(
        Code.FAILED, reason="timeout", detail="the time was up before it could be begun"
    )


class Effects:
    """The effects of one request.

    Until `retry_until` a call that failed in passing is retried. Past `expiry`, which only a
    command has, nothing is begun any more: the requester has given up. Past `deadline`, the
    requester's own, the first effect is not begun; those that follow one are.
    """

    def __init__(
        self,
        ledger: Ledger,
        retry_until: Deadline,
        expiry: Deadline | None = None,
        deadline: Deadline | None = None,
        timing: EffectTiming = DEFAULT_TIMING,
    ) -> None:
        self._ledger = ledger
        self.expiry = expiry
        self._deadline = deadline
        self._timing = timing
        self.retry_until = retry_until
        #: The start of this run, by both clocks, and of each of its intents, by the monotonic one.
        self._began, self._began_at = time.monotonic(), time.time()
        self._intended: dict[EffectId, float] = {}

    @property
    def known(self) -> Mapping[EffectId, Effect]:
        """All that is known of the request's effects."""
        return self._ledger.effects()

    def begun(self, name: EffectId) -> bool:
        """True where it was intended before, by whichever run: its preconditions no longer hold."""
        effect = self._ledger.effect(name)
        return effect is not None and not effect.refused

    def done(self, name: EffectId) -> bool:
        """True where it is known to have been done."""
        effect = self._ledger.effect(name)
        return effect is not None and effect.done

    def unknown(self, name: EffectId) -> bool:
        """True where it may have been done, and it is not known."""
        effect = self._ledger.effect(name)
        return effect is not None and effect.unknown

    def request_id(self, name: EffectId) -> str | None:
        """Return OpenStack's id of the call that did it."""
        effect = self._ledger.effect(name)
        return effect.request_id if effect is not None else None

    def request_ids(self, targets: Collection[str]) -> list[str]:
        """Return OpenStack's ids of the calls that changed one of these targets."""
        return [
            effect.request_id
            for name, effect in self.known.items()
            if effect.request_id is not None and name.target in targets
        ]

    @property
    def any_begun(self) -> bool:
        """True where anything at all may have been done to the cloud for this request."""
        return any_begun(self.known)

    @property
    def any_done(self) -> bool:
        """True where anything is known to have been done to the cloud for this request."""
        return any(one.done and not one.is_memory for one in self.known.values())

    def age(self, name: EffectId) -> float:
        """Return the seconds since it was intended, else 0; a jump of the clock does not count."""
        intended = self._intended.get(name)
        if intended is not None:
            return time.monotonic() - intended
        effect = self._ledger.effect(name)
        if effect is None:
            return 0.0
        return max(0.0, self._began_at - effect.intended_at) + time.monotonic() - self._began

    def remembered(self, name: EffectId) -> Any:
        """Return the value that was remembered under this id; None where none was."""
        effect = self._ledger.effect(name)
        return effect.value if effect is not None else None

    async def remember(self, name: EffectId, make: Callable[[], Awaitable[Any]]) -> Any:
        """Return a value that is made once, and found again by every later run. JSON, not None."""
        known = self.remembered(name)
        if known is None:
            known = await make()
            await self.revise(name, known)
        return known

    async def revise(self, name: EffectId, value: Any) -> None:
        """Remember another value in its place; a later run finds this one."""
        await self._ledger.remember(name, value)

    async def once(
        self,
        name: EffectId,
        do: Do,
        landed: Landed,
        marker: Any,
        *,
        marked: Marked | None = None,
    ) -> None:
        """Do it, unless it has been done.

        `marker` is what was known of the cloud just before (its clock); `landed` gets that of the
        first intent. `marked` is asked before the first intent is written: a journal that was lost,
        or restored from a backup, does not know what the cloud shows to be done. Raises the error
        of `do` where the cloud refuses, `Transient` when the time for retries is over, and
        `OutcomeUnknown`.
        """
        effect = self._ledger.effect(name)
        if effect is not None and effect.done:
            return
        unsure = effect is not None and not effect.refused
        if effect is not None and unsure:
            marker = effect.marker
        look = partial(self._found, name, landed, marker)
        if unsure:
            if await look(Deadline.after(self._timing.flight)):
                return
            if self._is_over:
                await self.find_out(name, landed)
                if self.done(name):
                    return
                raise OutcomeUnknown(str(name))
        else:
            if (
                marked is not None
                and (request_id := await retrying(marked, self.retry_until, self.expiry))
                is not None
            ):
                await self.adopt(name, marker, request_id)
                return
            self._check_time()
            await self._intend(name, marker)
        fenced = fence.set(lambda: self._right_to_send(name, marker))
        try:
            await self._do(name, do, look, unsure=unsure)
        finally:
            fence.reset(fenced)

    async def adopt(self, name: EffectId, marker: Any = None, request_id: str = "") -> None:
        """Record as done an effect that the cloud shows by its mark, though no intent is known."""
        await self._intend(name, marker)
        await self._ledger.record(name, {"found": True}, request_id or None)

    async def find_out(self, name: EffectId, landed: Landed) -> None:
        """Look for an effect that may have been done, and do nothing; a call that is found is
        recorded. `Transient` where the cloud does not tell.
        """
        effect = self._ledger.effect(name)
        if effect is not None and effect.unknown:
            left = max(self._timing.flight, self._timing.late_command - self.age(name))
            await self._found(name, landed, effect.marker, Deadline.after(left))

    # The right to begin, and to send.

    @property
    def _is_over(self) -> bool:
        """True where nothing is to be begun any more."""
        return self._ledger.closed or (self.expiry is not None and self.expiry.passed)

    def _check_time(self) -> None:
        is_past = self._deadline is not None and self._deadline.passed
        if is_past and not any(one.was_sent for one in self.known.values()):
            raise _NotSent(Code.FAILED, reason="deadline")
        if self._is_over:
            raise _too_late()

    async def _intend(self, name: EffectId, marker: Any) -> None:
        # Before it is written, which may take long.
        self._intended[name] = time.monotonic()
        await self._ledger.intend(name, marker)

    async def _right_to_send(self, name: EffectId, marker: Any) -> Deadline:
        """Return until when the call may be sent; raises the ledger's error where another worker
        has the request by now.
        """
        self._check_time()
        if time.monotonic() - self._intended.get(name, 0.0) > self._timing.fresh:
            await self._intend(name, marker)
            self._check_time()
        # Nothing may come in between: whoever answers in our place asks whether it was sent.
        self._ledger.sending(name)
        return Deadline(self._intended[name] + self._timing.send_within)

    # The call.

    async def _do(self, name: EffectId, do: Do, look: _Look, *, unsure: bool) -> None:
        """Make the call until its outcome is known. `unsure`: an earlier call may have landed."""
        for delay in delays(0.2, 5.0):
            try:
                reply = await do()
            except Ambiguous as error:
                unsure = True
                if await look(self._latest(error)):
                    return
                if error.may_land_late or self._ledger.closed:
                    raise OutcomeUnknown(str(name)) from error
                await pause(error, delay, self.retry_until)
            except _NotSent as error:
                raise await self._given_up(name, error, unsure=unsure) from None
            except Transient as error:
                await self._pause_unsent(name, error, delay, unsure=unsure)
            except CloudRefusal as error:
                if unsure and await self._left_traces(look):
                    return
                await self._ledger.record(name, {"refused": error.status}, error.request_id)
                raise
            else:
                await self._ledger.record(name, {"status": reply.status}, reply.request_id)
                return

    async def _given_up(self, name: EffectId, error: _NotSent, *, unsure: bool) -> Exception:
        """Return the error that ends an effect whose call could not be sent in time, or not again."""
        if unsure:
            return OutcomeUnknown(str(name))
        await self._ledger.record(name, {"refused": None}, None)
        return error

    async def _pause_unsent(
        self, name: EffectId, error: Transient, delay: float, *, unsure: bool
    ) -> None:
        """Pause after a call that was surely not carried out, or record that if it was the last."""
        if self._ledger.closed:
            raise await self._given_up(name, _too_late(), unsure=unsure) from error
        try:
            await pause(error, delay, self.retry_until)
        except Transient:
            if not unsure:  # else a call before it may have been
                await self._ledger.record(name, {"refused": None}, None)
            raise

    async def _left_traces(self, look: _Look) -> bool:
        """A repeat of a call that landed after all is refused for its own traces: in conflict, gone
        already, large enough.
        """
        try:
            return await look(Deadline(0.0))
        except CloudRefusal:
            return False  # there is nothing left to look at

    # The look.

    def _latest(self, error: Ambiguous) -> Deadline:
        """Return until when a call is looked for whose answer was lost."""
        timing = self._timing
        if not error.may_land_late:
            return Deadline.after(timing.settle)
        return Deadline.after(timing.late if self.expiry is None else timing.late_command)

    async def _found(self, name: EffectId, landed: Landed, marker: Any, until: Deadline) -> bool:
        while True:
            request_id = await self._look(name, landed, marker, until)
            if request_id is not None:
                await self._ledger.record(name, {"found": True}, request_id or None)
                return True
            if until.passed:
                return False
            await asyncio.sleep(self._timing.look_every)

    async def _look(
        self, name: EffectId, landed: Landed, marker: Any, until: Deadline
    ) -> str | None:
        try:
            return await retrying(lambda: landed(marker), self.retry_until, self.expiry)
        except Transient as error:
            if self.expiry is None:
                raise  # an order is retried, and looks again
            if not until.passed:
                return None
            if self._ledger.closed:
                raise  # so is a command that has its answer
            raise OutcomeUnknown(str(name)) from error

"""softDown: servers that are no longer paid for are stopped, started again or deleted, each for itself.

The message has no tenant: each server is acted on in the project that owns it. What became of one is remembered: a
later run, for the sake of the others, does not look at it again.
"""

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

from handlers.compute import ERROR, Server
from handlers.context import Context, Errand
from handlers.errors import CloudRefusal
from handlers.orders.course import Course
from handlers.orders.instances import idle_server
from handlers.orders.pictures import Picture, take_picture
from handlers.orders.soft_down_mark import is_marked, mark, unmark
from handlers.orders.switching import switch
from handlers.orders.undertaking import failed, final_failure
from handlers.power import effect_name
from handlers.servers import find_server, judge_state, unknown_server
from messages.codes import Code
from messages.commands import Power
from messages.errors import OutcomeUnknown, Refused, Transient
from messages.order_results import InstanceOutcome, soft_down_result
from messages.orders import Operate, SoftDown, SoftDownInstance
from messages.results import Result
from messages.status import OrderStatus

#: What a server is then, and what it may be before: Nova stops one in ERROR, too.
_STATES = {
    Power.STOP: ("SHUTOFF", frozenset({"ACTIVE", ERROR})),
    Power.START: ("ACTIVE", frozenset({"SHUTOFF"})),
}
_TOLD = {Power.STOP: OrderStatus.STOPPING, Power.START: OrderStatus.STARTING}
#: The server's status in the outcome of one that is gone.
_GONE = "DELETED"


async def take_down(order: SoftDown, errand: Errand) -> Result:
    """Carry it out on each server; `Transient` where a later try may do it on those that are left."""
    down = _TakingDown(order, errand)
    await down.course.tell(OrderStatus.ACCEPTED)
    await down.course.tell(OrderStatus.VALIDATING)
    ended = await asyncio.gather(*(down.outcome(one) for one in order.instances), return_exceptions=True)
    for error in ended:
        if isinstance(error, BaseException):
            raise error
    outcomes = [one for one in ended if isinstance(one, InstanceOutcome)]
    await down.tell_ends(outcomes)
    return soft_down_result(order, outcomes, errand.policy.billing_now())


class _TakingDown:
    """One softDown message, being carried out."""

    def __init__(self, order: SoftDown, errand: Errand) -> None:
        self.order = order
        self.course = Course(order, errand)
        self._errand = errand
        self._effects = errand.effects

    async def outcome(self, instance: SoftDownInstance) -> InstanceOutcome:
        """What became of one server; `Transient` where that is not the end of it."""
        known = await self._effects.remember(f"ended:{instance.instance_id}", lambda: self._ended(instance))
        return _restored(known)

    async def tell_ends(self, outcomes: list[InstanceOutcome]) -> None:
        """The final updates: of the servers that were touched, and of the whole."""
        for instance, outcome in zip(self.order.instances, outcomes, strict=True):
            effects = (effect_name(power, instance.instance_id) for power in _STATES)
            if any(self._effects.begun(effect) for effect in effects):
                await self.course.end_server(instance.instance_id, outcome.status)
        failures = any(outcome.failure for outcome in outcomes)
        await self.course.tell(OrderStatus.FAILED if failures else OrderStatus.SUCCEEDED)

    async def _ended(self, instance: SoftDownInstance) -> dict[str, Any]:
        context, failure = None, None
        try:
            context = await self._place_of(instance.instance_id)
            if context is not None:
                await self._act(instance, context)
        except (Refused, CloudRefusal, OutcomeUnknown, Transient) as error:
            failure = final_failure(error, self._errand)
        return await self._record(instance.instance_id, context, failure)

    async def _place_of(self, server_id: str) -> Context | None:
        """The project of the server; None where the server is gone. `Refused` where it is not the tenant's."""
        cloud, tenant = self._errand.cloud, self.order.heading.tenant
        named = (await cloud.find_project(tenant)).id if tenant is not None else None
        owner = await self._errand.patiently(lambda: cloud.owner_of(server_id)) if cloud.has_admin else named
        if owner is None:
            return None
        if named not in (None, owner):
            raise unknown_server(server_id, None)
        try:
            await cloud.find_project(owner)
        except Refused:
            raise failed("forbidden", f"the service account has no role in project {owner}") from None
        return await self._errand.inside(owner)

    async def _act(self, instance: SoftDownInstance, context: Context) -> None:
        server_id = instance.instance_id
        try:
            server = await idle_server(server_id, context)
        except Refused as refused:
            if refused.code is Code.SERVER_UNKNOWN:
                return  # what is gone need not be taken down
            raise
        await self._remember_before(server, context)
        match instance.operate:
            case Operate.STOP:
                await self._stop(server, context)
            case Operate.RESUME:
                await self._resume(server, context)
            case Operate.DELETE:
                raise Refused(Code.PARAMETER, "operateType")

    async def _stop(self, server: Server, context: Context) -> None:
        await self._switch(server, Power.STOP, context)
        # One that its owner had switched off is not started for him by whoever pays.
        if self._effects.begun(effect_name(Power.STOP, server.id)):
            await mark(server.id, context)

    async def _resume(self, server: Server, context: Context) -> None:
        await self._switch(server, Power.START, context)
        if is_marked(server):
            await unmark(server.id, context)

    async def _switch(self, server: Server, power: Power, context: Context) -> None:
        end, states = _STATES[power]
        if not self._effects.begun(effect_name(power, server.id)):
            if server.status == end:
                return
            if refused := judge_state(server, states):
                raise refused
        await self.course.tell(_TOLD[power])
        await switch(server.id, power, context, self.course)

    async def _remember_before(self, server: Server, context: Context) -> None:
        """The server as it was before anything was done to it."""
        name = f"before:{server.id}"
        begun = any(self._effects.begun(effect_name(power, server.id)) for power in _STATES)
        if not begun or self._effects.recalled(name) is None:
            await self._effects.revise(name, await take_picture(server, context))

    async def _record(self, server_id: str, context: Context | None, failure: Refused | None) -> dict[str, Any]:
        server = await find_server(context, server_id) if context is not None else None
        gone = None if failure else _GONE
        return asdict(
            _Ended(
                server.status if server is not None else gone,
                [failure.code.name, failure.subject, failure.reason, failure.detail] if failure else None,
                self._effects.recalled(f"before:{server_id}"),
                await take_picture(server, context) if server is not None and context is not None else None,
                self._effects.request_ids([server_id]),
            )
        )


@dataclass(frozen=True, slots=True)
class _Ended:
    """What the journal keeps of an outcome."""

    status: str | None
    failure: list[str | None] | None
    before: Picture | None
    after: Picture | None
    request_ids: list[str]


def _restored(record: dict[str, Any]) -> InstanceOutcome:
    ended = _Ended(**record)
    failure = None
    if ended.failure is not None:
        code, subject, reason, detail = ended.failure
        failure = Refused(Code[str(code)], subject, reason=reason, detail=detail)
    return InstanceOutcome(ended.status, failure, ended.before, ended.after, ended.request_ids)

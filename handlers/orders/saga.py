"""The saga of an order: planned, done step by step, undone where a step failed, answered.

A kind of order is a subclass of `Saga`: its plan, the list of `Step` that follows from the plan,
and the outcomes. The plan is remembered in the journal: a later run finds the servers half changed
and must not plan anew. So is the failure: a later run must go on undoing, not try again. A plan of
which nothing was begun is made anew: in the meantime the servers may have been changed by another
order.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from handlers.context import ProjectContext, RequestContext
from handlers.effects.concurrency import wait_for_all
from handlers.effects.ledger import EffectId, EffectKind
from handlers.openstack.errors import CloudRefusal, failure_of
from handlers.orders.progress import OrderProgress
from handlers.orders.step import Ready, Step, failed
from messages.errors import OutcomeUnknown, Refused, Transient
from messages.orders import Order
from messages.results import ProductOutcome, Result, order_result
from messages.updates import OrderStatus

#: For each product set of the order, the outcome of each of its servers.
Outcomes = Sequence[Sequence[ProductOutcome]]
OrderT = TypeVar("OrderT", bound=Order)
PlanT = TypeVar("PlanT")

PLAN, FAILURE = EffectId(EffectKind.PLAN), EffectId(EffectKind.FAILURE)


class Saga(ABC, Generic[OrderT, PlanT]):
    """One order of some kind, being carried out. `PlanT` is a dataclass, or a list of such."""

    #: The plan that `steps` goes by: just made, or an earlier run's.
    plan: PlanT
    #: True where this run has made the plan; otherwise an earlier one may have begun some of it.
    is_planned_now = False

    def __init__(self, order: OrderT, context: ProjectContext, stored: TypeAdapter[PlanT]) -> None:
        """`stored` reads and writes the plan as the journal keeps it."""
        self.order = order
        self.context = context
        self.progress = OrderProgress(order, context)
        self._stored = stored

    @abstractmethod
    async def make_plan(self) -> PlanT:
        """Check the order wholly before anything is touched; `Refused` where it cannot be done."""

    @abstractmethod
    async def outcomes(self) -> Outcomes:
        """Look up what became of each server of each set; publishes the servers' final updates."""

    @abstractmethod
    def steps(self) -> list[Step]:
        """List the steps of the plan, those that are done already, too."""

    async def do(self) -> None:
        """Do all steps, each once. Raises where a step fails."""
        for name in list(dict.fromkeys(step.name for step in self.steps())):
            # Listed anew for each name: while thousands of orders wait for a step, the other steps
            # take no memory.
            same = [step for step in self.steps() if step.name == name]
            await do_steps(same, self.context, self.progress)

    async def undo(self) -> None:
        """Undo what was begun, as far as it can be; `outcomes` reports what could not."""
        await self.progress.publish(OrderStatus.REVERTING)
        await undo_steps(self.steps(), self.context)

    @abstractmethod
    async def untouched(self) -> Outcomes:
        """Look up the servers of an order of which nothing was begun."""

    async def load_plan(self) -> None:
        """Set `plan`: the one that an earlier run has begun to carry out, or a new one."""
        effects = self.context.effects
        known = effects.remembered(PLAN)
        if known is not None and (effects.any_begun or effects.remembered(FAILURE) is not None):
            self.plan = self._stored.validate_python(known)
            return
        await self.progress.publish(OrderStatus.VALIDATING)
        await self.plan_now()
        await self.store_plan()

    async def plan_now(self) -> None:
        """Set `plan` to a new one; nothing is written."""
        self.plan = await self.make_plan()
        self.is_planned_now = True

    async def store_plan(self) -> None:
        """Write the plan to the journal, in the place of an earlier one."""
        await self.context.effects.revise(PLAN, self._stored.dump_python(self.plan, mode="json"))


async def carry_out(
    saga: Saga[Any, Any], do: Callable[[], Awaitable[None]] | None = None
) -> Result:
    """Carry an order out wholly, or not at all; `Transient` where a later try may do it.

    `do` is called instead of `saga.do` in a dry run.
    """
    context = saga.context
    await saga.progress.publish(OrderStatus.ACCEPTED)
    failure: Refused | None
    try:
        await saga.load_plan()
    except (Refused, CloudRefusal, Transient) as error:
        outcomes, failure = await saga.untouched(), final_failure(error, context)
    else:
        failure = await _carried_out(saga, do or saga.do)
        outcomes = await saga.outcomes()
    await saga.progress.publish(OrderStatus.FAILED if failure else OrderStatus.SUCCEEDED)
    return order_result(saga.order, outcomes, failure, context.policy.billing_now())


async def _carried_out(saga: Saga[Any, Any], do: Callable[[], Awaitable[None]]) -> Refused | None:
    """Return None, or why not; then everything that could be undone has been."""
    effects = saga.context.effects
    failure = effects.remembered(FAILURE)
    if failure is None:
        try:
            await do()
        except (Refused, CloudRefusal, OutcomeUnknown, Transient) as error:
            found = final_failure(error, saga.context)
        else:
            return None
        # Before the first step is undone: from here on a later run only undoes.
        failure = [found.reason, found.detail]
        await effects.revise(FAILURE, failure)
    await saga.undo()
    return failed(*failure)


def final_failure(error: Exception, context: RequestContext) -> Refused:
    """Return the failure that the order is answered with; raises `error` where a later try may
    succeed.
    """
    passes = isinstance(error, Transient) and not context.times.last_try
    failure = None if passes else failure_of(error)
    if failure is None:
        raise error
    return failure


# The readings of a list of steps; `Step.to_json` is the fourth.


async def do_steps(steps: Iterable[Step], context: RequestContext, progress: OrderProgress) -> None:
    """Do the steps: those of one name at once, name after name. Raises where one fails."""
    for same in _by_name(steps):
        if same[0].status is not None:
            await progress.publish(same[0].status)
        # An error that passes comes first: the next run finds the others' outcome again.
        await wait_for_all((do_step(step, context) for step in same), passing_first=True)


async def undo_steps(steps: Iterable[Step], context: RequestContext) -> None:
    """Undo the steps that were begun: all servers at once, the last step of each first.

    A compensation that has to wait for a later run keeps none of the others from being done now:
    the cloud may confirm a resize by itself meanwhile.
    """
    begun: dict[str | None, list[Step]] = {}
    for step in steps:
        if context.effects.begun(step.effect):
            begun.setdefault(step.instance_id, []).insert(0, step)

    async def undo(of_server: list[Step]) -> None:
        passing: Transient | None = None
        for step in of_server:
            try:
                for one in step.undo:
                    await do_step(one, context)
            except (Refused, OutcomeUnknown, CloudRefusal):
                continue  # the order's outcomes report it
            except Transient as error:
                passing = passing or error
        if passing is not None:
            raise passing

    await all_undone([undo(one) for one in begun.values()], context)


def request_ids(steps: Sequence[Step], context: RequestContext) -> list[str]:
    """List OpenStack's ids of the calls that the steps, and their undoing, have made."""
    undone = [undo for one in reversed(steps) for undo in one.undo]
    found = (context.effects.request_id(one.effect) for one in (*steps, *undone))
    return [one for one in found if one is not None]


def _by_name(steps: Iterable[Step]) -> list[list[Step]]:
    groups: dict[str, list[Step]] = {}
    for step in steps:
        groups.setdefault(step.name, []).append(step)
    return list(groups.values())


async def do_step(step: Step, context: RequestContext) -> None:
    """Do one step, or go on with it where an earlier run was."""
    effects = context.effects
    ready: Ready | None = Ready()
    # Once it may have been done, its preconditions no longer say anything.
    if step.prepare is not None and not effects.begun(step.effect):
        ready = await step.prepare()
    if ready is None:
        return
    try:
        await effects.once(step.effect, step.act, step.landed, ready.marker, marked=step.marked)
    except CloudRefusal as error:
        if step.refused is None:
            raise error.as_failure() from error
        await step.refused(error)
    if step.follow is not None:
        await step.follow()


async def all_undone(running: Iterable[Awaitable[Any]], context: RequestContext) -> None:
    """Run all compensations at once to their ends.

    Raises `Transient`, which is tried again later, but not on the last try. What fails for good is
    reported by the order's outcomes.
    """
    for error in await asyncio.gather(*running, return_exceptions=True):
        if error is None or not isinstance(error, BaseException):
            continue
        if isinstance(error, (Refused, OutcomeUnknown, CloudRefusal)):
            continue
        if not (isinstance(error, Transient) and context.times.last_try):
            raise error

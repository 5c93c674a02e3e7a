"""What carrying out an order has in common, whatever its kind: told, planned, tried, undone where
it failed, ended.

A kind of order is its plan, its steps and its undoing (`Saga`). Its plan is remembered: a later run
finds the servers half changed and must not plan anew. So is its failure: a later run must go on
undoing, not try again. A plan of which nothing was begun is made anew: in the meantime the servers
may have been changed by another order.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from handlers.context import ProjectContext, RequestContext
from handlers.openstack.errors import CloudRefusal
from handlers.orders.progress import Course
from handlers.orders.step import Deed
from messages.codes import Code
from messages.errors import OutcomeUnknown, Refused, Transient
from messages.order_results import ProductOutcome, order_result
from messages.orders import Order
from messages.results import Result
from messages.updates import OrderStatus

T = TypeVar("T")

Outcomes = Sequence[Sequence[ProductOutcome]]


class Saga(Protocol):
    """One order of some kind, being carried out."""

    @property
    def order(self) -> Order: ...
    @property
    def context(self) -> ProjectContext: ...
    @property
    def course(self) -> Course: ...

    async def plan(self) -> Any:
        """What is to be done, checked wholly before anything is touched; JSON. `Refused` where it
        cannot be.
        """

    def recall(self, plan: Any) -> None:
        """Go by this plan from now on: the one just made, or an earlier run's."""

    def deeds(self) -> list[Deed]:
        """What `do` does by this plan, in its order."""

    async def do(self) -> None:
        """Carry out the plan, each step once. Raises where a step fails."""

    async def undo(self) -> None:
        """Undo what has been done of it, as far as it can be; `outcomes` tells what could not."""

    async def outcomes(self) -> Outcomes:
        """What became of each server of each set, as the cloud shows it; tells the servers' ends."""

    async def untouched(self) -> Outcomes:
        """The same for an order of which nothing was begun."""


async def carry_out(undertaking: Saga) -> Result:
    """Carry an order out wholly, or not at all; `Transient` where a later try may do it."""
    context, course = undertaking.context, undertaking.course
    await course.tell(OrderStatus.ACCEPTED)
    try:
        undertaking.recall(await _plan_of(undertaking))
    except (Refused, CloudRefusal, Transient) as error:
        return await _ended(
            undertaking, await undertaking.untouched(), final_failure(error, context)
        )
    failure = await _carried_out(undertaking)
    return await _ended(undertaking, await undertaking.outcomes(), failure)


def failed(reason: str, detail: str | None = None) -> Refused:
    """The failure of a step."""
    return Refused(Code.FAILED, reason=reason, detail=detail)


async def settled(questions: Iterable[Awaitable[T]]) -> list[T]:
    """All answers; where one is an error, the others are awaited, and the first error is raised."""
    answers = await asyncio.gather(*questions, return_exceptions=True)
    for one in answers:
        if isinstance(one, BaseException):
            raise one
    return [one for one in answers if not isinstance(one, BaseException)]


async def all_of(steps: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """All at once; when one fails the others are still awaited, for what they have begun must be
    known.
    """
    ended = await asyncio.gather(*steps, return_exceptions=True)
    errors = [error for error in ended if isinstance(error, BaseException)]
    # What may pass comes first: the others' outcome will be found again.
    errors.sort(key=lambda error: isinstance(error, (Refused, OutcomeUnknown)))
    if errors:
        raise errors[0]


async def all_undone(steps: Iterable[Awaitable[Any]], context: ProjectContext) -> None:
    """All at once. What may pass is tried again later; what will not, the outcome tells, and so on
    the last try.
    """
    for error in await asyncio.gather(*steps, return_exceptions=True):
        if error is None or not isinstance(error, BaseException):
            continue
        if isinstance(error, (Refused, OutcomeUnknown, CloudRefusal)):
            continue
        if not (isinstance(error, Transient) and context.last_try):
            raise error


async def _plan_of(undertaking: Saga) -> Any:
    effects = undertaking.context.effects
    known = effects.remembered("plan")
    if known is not None and (effects.any_begun or effects.remembered("failure") is not None):
        return known
    await undertaking.course.tell(OrderStatus.VALIDATING)
    plan = await undertaking.plan()
    await effects.revise("plan", plan)
    return plan


async def _carried_out(undertaking: Saga) -> Refused | None:
    """None, or why not; then everything that could be undone has been."""
    effects = undertaking.context.effects
    failure = effects.remembered("failure")
    if failure is None:
        found = await _tried(undertaking)
        if found is None:
            return None
        failure = await effects.remember("failure", lambda: _constant([found.reason, found.detail]))
    await undertaking.undo()
    return failed(*failure)


async def _tried(undertaking: Saga) -> Refused | None:
    try:
        await undertaking.do()
    except (Refused, CloudRefusal, OutcomeUnknown, Transient) as error:
        return final_failure(error, undertaking.context)
    return None


def final_failure(error: Exception, context: RequestContext) -> Refused:
    """What the order is answered with, or the error again where a later try may do it."""
    match error:
        case Refused():
            return error
        case CloudRefusal():
            return error.as_failure()
        case OutcomeUnknown():
            return failed("outcome_unknown", str(error))
        case Transient() if context.last_try:
            return failed(error.reason, str(error))
        case _:
            raise error


async def _ended(undertaking: Saga, outcomes: Outcomes, failure: Refused | None) -> Result:
    await undertaking.course.tell(OrderStatus.FAILED if failure else OrderStatus.SUCCEEDED)
    return order_result(
        undertaking.order, outcomes, failure, undertaking.context.policy.billing_now()
    )


async def _constant(value: Any) -> Any:
    return value

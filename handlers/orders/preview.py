"""Preview of an order: its checks and its steps, by the same planning that carries the order out.

Serves `order.plan`, `ecs-worker plan` and the dry run of a replay. Nothing is touched.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from handlers.context import Checks, ProjectContext, RequestContext
from handlers.effects.backoff import Deadline
from handlers.effects.ledger import NoLedger
from handlers.effects.once import Effects
from handlers.openstack.cloud import NEEDS_ADMIN
from handlers.openstack.errors import CloudRefusal, Foreseen
from handlers.orders.change_configure.handler import ChangeConfigureSaga
from handlers.orders.new.handler import NewSaga
from handlers.orders.renew.handler import RenewSaga
from handlers.orders.saga import Saga, carry_out
from handlers.orders.soft_down.handler import preview_soft_down
from handlers.orders.step import Step
from handlers.orders.unsubscribe.handler import UnsubscribeSaga
from messages.codes import Code
from messages.commands import OrderPlan
from messages.errors import Refused, Transient, wrong
from messages.fields import check_order_region
from messages.operations import parse_order
from messages.orders import (
    Order,
    OrderChangeConfigure,
    OrderNew,
    OrderRenew,
    OrderSoftDown,
    OrderUnsubscribe,
    is_paid,
    name_of,
    order_type_of,
)
from messages.record import record
from messages.results import OrderPreview, PreviewCheck, PreviewStep, Result, Verdict
from messages.secrets import mask

_SAGAS: Mapping[type, Callable[[Any, ProjectContext], Saga[Any, Any]]] = {
    OrderChangeConfigure: ChangeConfigureSaga,
    OrderNew: NewSaga,
    OrderRenew: RenewSaga,
    OrderUnsubscribe: UnsubscribeSaga,
}
#: The part of the time for an answer for which a busy server may be waited for.
_WAIT_SHARE = 0.5


@record
class Preview:
    """Checks and steps of an order. Where a check failed the only steps are those of a softDown on
    its other servers.
    """

    message: Mapping[str, Any]
    checks: Checks
    steps: list[Step]

    @property
    def verdict(self) -> Verdict:
        """The outcome that is expected."""
        failed = self.checks.failed
        if failed is None:
            return Verdict.CARRIED_OUT
        return Verdict.RETRIED if failed.may_pass else Verdict.REFUSED

    def answer(self) -> OrderPreview:
        """Return the preview as it goes over the wire, without secrets."""
        failed = self.checks.failed
        failure = failed.failure if failed is not None else None
        answer = OrderPreview(
            order_id=name_of(self.message),
            order_type=order_type_of(self.message),
            verdict=self.verdict,
            **_outcome(failure),
            checks=[
                PreviewCheck(
                    name=one.name,
                    instance_id=one.instance_id,
                    passed=one.failure is None,
                    **_outcome(one.failure),
                )
                for one in self.checks.listed
            ],
            steps=printed(self.steps),
            cannot_be_undone=[
                number for number, step in enumerate(self.steps, start=1) if not step.can_be_undone
            ],
        )
        return OrderPreview.model_validate(mask(answer.model_dump(mode="json")))


def _outcome(failure: Refused | None) -> dict[str, Any]:
    result = Result.refusal(failure) if failure is not None else Result.of(Code.OK)
    return {
        "code": result.code,
        "message": result.message,
        "reason": failure.reason if failure is not None else None,
        "detail": failure.detail if failure is not None else None,
    }


async def plan_order(task: OrderPlan, context: ProjectContext) -> Result:
    """Answer `order.plan`: the preview as the result's data, with code 200 whatever the verdict."""
    patience = context.effects.retry_until
    asking = replace(
        context,
        effects=Effects(NoLedger(), patience),
        times=replace(
            context.times,
            hold=min(context.times.hold, Deadline.after(patience.left * _WAIT_SHARE)),
        ),
    )
    preview = await preview_order(task.message, asking, context.project.id)
    return Result.of(Code.OK, preview.answer())


async def preview_order(
    message: Mapping[str, Any], context: RequestContext, project_id: str | None = None
) -> Preview:
    """Preview an order message.

    The order's project is `project_id`, else the one that the message names, else its instance's.
    Raises `Transient` where the cloud cannot be asked.
    """
    checks = context.checks
    steps: list[Step] = []
    try:
        with checks.of("form"):
            if not is_paid(message):
                raise wrong("orderStatus", "such an order asks for nothing: only paySuccess does")
            check_order_region(message, context.policy.region)
            order = parse_order(message)
        steps = await _steps_of(order, context, project_id)
    except (Refused, CloudRefusal):
        pass  # the check that failed says why
    except Transient:
        if checks.failed is None:
            raise
    return Preview(message, checks, steps)


async def _steps_of(order: Order, context: RequestContext, project_id: str | None) -> list[Step]:
    if isinstance(order, OrderSoftDown):
        return remaining_steps(await preview_soft_down(order, context, project_id), context.effects)
    with context.checks.of("tenant"):
        inside = await context.in_project(await _project_of(order, context, project_id))
    saga = _SAGAS[type(order)](order, inside)
    await saga.plan_now()
    return remaining_steps(saga.steps(), context.effects)


def remaining_steps(steps: Iterable[Step], effects: Effects) -> list[Step]:
    """The steps that a preview prints: without those that are known to be done."""
    return [one for one in steps if one.printed and not effects.done(one.effect)]


def printed(steps: Iterable[Step]) -> list[PreviewStep]:
    """The steps as they go over the wire."""
    return [
        PreviewStep.model_validate({"number": number, **step.to_json()})
        for number, step in enumerate(steps, start=1)
    ]


class NextSteps(Foreseen):
    """Ends the dry run of an order before its next step; `steps` are those still to be done."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        super().__init__(str(steps[0].effect))


async def dry_run_order(order: Order, context: ProjectContext) -> Result:
    """Handle an order in the dry run of a replay, with a ledger and a cloud that are only read.

    Raises `NextSteps` where steps are still to be done; otherwise goes on as the order's handler.
    """
    saga = _SAGAS[type(order)](order, context)

    async def do() -> None:
        if steps := remaining_steps(saga.steps(), context.effects):
            raise NextSteps(steps)
        await saga.do()

    return await carry_out(saga, do)


#: Handlers of a dry run that stand in for those of the catalogue.
DRY_RUN_HANDLERS: dict[type, Callable[[Any, Any], Awaitable[Result]]] = dict.fromkeys(
    _SAGAS, dry_run_order
)


async def _project_of(order: Order, context: RequestContext, project_id: str | None) -> str:
    cloud, tenant = context.cloud, order.tenant
    if tenant is not None:
        found = (await cloud.find_project(tenant)).id
        if project_id not in (None, found):
            raise Refused(Code.IDENTITY, detail="the order's tenant_id is another")
        return found
    if project_id is not None:
        return project_id
    instance = next(iter(order.instance_ids), None)
    if instance is None:
        raise wrong("tenant_id", NEEDS_ADMIN)
    return await context.retrying(lambda: cloud.require_owner(instance))

"""changeConfigure: another flavor, larger disks. What can be undone comes before what cannot."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from handlers import compute, volumes
from handlers.context import Context
from handlers.errors import CloudRefusal, NotFound
from handlers.orders import steps
from handlers.orders.course import Course
from handlers.orders.plan import Change, plan_changes
from handlers.servers import find_server
from messages.errors import OutcomeUnknown, Refused, Transient
from messages.order_results import ProductOutcome, order_result
from messages.orders import Order
from messages.results import Result
from messages.status import OrderStatus


async def change_configuration(order: Order, context: Context) -> Result:
    """Carry the order out on all its servers, or leave all as they were; `Transient` where a later try may do it."""
    course = Course(order, context)
    await course.tell(OrderStatus.ACCEPTED)
    try:
        changes = await _planned(order, context, course)
    except Refused as refused:
        return await _refused(order, refused, context, course)
    except CloudRefusal as error:
        return await _refused(order, error.as_failure(), context, course)
    except Transient as error:
        if not context.last_try:
            raise
        return await _refused(order, steps.failed(error.reason, str(error)), context, course)
    failure = await _carried_out(order, changes, context, course)
    return await _ended(order, changes, failure, context, course)


async def _planned(order: Order, context: Context, course: Course) -> list[Change]:
    """The plan of the first run: a later one finds the servers half changed and must not plan anew."""

    async def plan() -> list[dict[str, Any]]:
        await course.tell(OrderStatus.VALIDATING)
        return [change.to_json() for change in await plan_changes(order, context)]

    return [Change.from_json(record) for record in await context.effects.remember("plan", plan)]


async def _carried_out(order: Order, changes: list[Change], context: Context, course: Course) -> Refused | None:
    """None, or why not; then everything that could be undone has been."""
    failure = context.effects.recalled("failure")
    if failure is None:
        found = await _tried(order, changes, context, course)
        if found is None:
            return None
        # Written down before undoing: a later run must go on undoing, not try again.
        failure = await context.effects.remember("failure", lambda: _constant([found.reason, found.detail]))
    refused = steps.failed(*failure)
    await course.tell(OrderStatus.REVERTING)
    await _undo(changes, context, course)
    return refused


async def _tried(order: Order, changes: list[Change], context: Context, course: Course) -> Refused | None:
    try:
        await _do(order, changes, context, course)
    except Refused as refused:
        return refused
    except CloudRefusal as error:
        return error.as_failure()
    except OutcomeUnknown as error:
        return steps.failed("outcome_unknown", str(error))
    except Transient as error:
        if not context.last_try:
            raise
        return steps.failed(error.reason, str(error))
    return None


async def _do(order: Order, changes: list[Change], context: Context, course: Course) -> None:
    if any(change.resizes for change in changes):
        await course.tell(OrderStatus.RESIZING)
        await _all(steps.resize(change, context, course) for change in changes)
    growths = [growth for change in changes for growth in change.growths]
    if growths:
        await course.tell(OrderStatus.EXTENDING)
        await _all(steps.extend(growth, context) for growth in growths)
    if any(change.resizes for change in changes):
        await course.tell(OrderStatus.CONFIRMING)
        await _all(steps.confirm(change, context, course) for change in changes)
    await _all(_note_payment(order, change, context) for change in changes)


async def _note_payment(order: Order, change: Change, context: Context) -> None:
    metadata = {"order_id": order.order_id} | ({"charge_type": order.bill_type} if order.bill_type else {})
    await steps.write_fee_data(change, metadata, context)


async def _undo(changes: list[Change], context: Context, course: Course) -> None:
    """Undo what can be; what cannot shows in the outcome."""
    resizing = [change for change in changes if context.effects.begun(f"resize:{change.server_id}")]
    undone = await asyncio.gather(
        *(_undo_one(change, context, course) for change in resizing),
        *(steps.rescue_volume(growth, context) for change in changes for growth in change.growths),
        return_exceptions=True,
    )
    for error in undone:
        _raise_unless_final(error, context)


def _raise_unless_final(error: BaseException | None, context: Context) -> None:
    """What may pass is tried again later; on the last try, and for what will not pass, the outcome tells it."""
    if error is None or isinstance(error, (Refused, OutcomeUnknown, CloudRefusal)):
        return
    if isinstance(error, Transient) and context.last_try:
        return
    raise error


async def _undo_one(change: Change, context: Context, course: Course) -> None:
    if not context.effects.begun(f"confirm:{change.server_id}"):
        await steps.revert(change, context, course)
    server = await context.patiently(lambda: compute.get_server(context.project, change.server_id))
    await steps.rescue(server, context)


async def _ended(
    order: Order, changes: list[Change], failure: Refused | None, context: Context, course: Course
) -> Result:
    outcomes = await asyncio.gather(*(_outcome(change, context) for change in changes))
    for change, outcome in zip(changes, outcomes, strict=True):
        if _touched(change, context):
            await course.end_server(change.server_id, outcome.status)
    await course.tell(OrderStatus.FAILED if failure else OrderStatus.SUCCEEDED)
    return order_result(order, outcomes, failure, context.policy.billing_now())


async def _outcome(change: Change, context: Context) -> ProductOutcome:
    """Whether anything was left changed is looked up, not reckoned."""
    server = await find_server(context, change.server_id)
    if server is None:
        return ProductOutcome(None, changed=not change.is_nothing)
    resized = server.flavor_name != change.flavor_before or (change.resizes and server.status != change.status)
    grown = [await _has_grown(growth.volume_id, growth.before, context) for growth in change.growths]
    return ProductOutcome(server.status, changed=resized or any(grown))


async def _has_grown(volume_id: str, before: int, context: Context) -> bool:
    try:
        volume = await context.patiently(lambda: volumes.get_volume(context.project, volume_id))
    except NotFound:
        return True
    return volume.size != before


def _touched(change: Change, context: Context) -> bool:
    names = [f"resize:{change.server_id}", *(f"extend:{growth.volume_id}" for growth in change.growths)]
    return any(context.effects.begun(name) for name in names)


async def _refused(order: Order, refused: Refused, context: Context, course: Course) -> Result:
    """The result of an order of which nothing was begun."""
    servers = await asyncio.gather(*(_status_of(product.instance_id, context) for product in order.products))
    await course.tell(OrderStatus.FAILED)
    outcomes = [ProductOutcome(status, changed=False) for status in servers]
    return order_result(order, outcomes, refused, context.policy.billing_now())


async def _status_of(server_id: str, context: Context) -> str | None:
    server = await find_server(context, server_id)
    return server.status if server is not None else None


async def _all(steps_of_servers: Any) -> None:
    """All at once; when one fails the others are still awaited, for what they have begun must be known."""
    running: list[Coroutine[Any, Any, None]] = list(steps_of_servers)
    ended = await asyncio.gather(*running, return_exceptions=True)
    errors = [error for error in ended if isinstance(error, BaseException)]
    # What may pass comes first: the others' outcome will be found again.
    errors.sort(key=lambda error: isinstance(error, (Refused, OutcomeUnknown)))
    if errors:
        raise errors[0]


async def _constant(value: Any) -> Any:
    return value

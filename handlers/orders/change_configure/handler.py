"""changeConfigure: another flavor, larger disks. What can be undone comes before what cannot."""

import asyncio
from dataclasses import replace

from pydantic import TypeAdapter

from handlers.context import ProjectContext
from handlers.effects.ledger import EffectId, EffectKind
from handlers.openstack import cinder, nova
from handlers.openstack.errors import NotFound
from handlers.openstack.nova import Server
from handlers.openstack.sessions import Reply
from handlers.orders.billing import has_order, with_order
from handlers.orders.change_configure.plan import (
    SUPERSEDED,
    Change,
    fee_items,
    has_flavor,
    plan_changes,
    refuse_superseded,
)
from handlers.orders.change_configure.steps import confirm_step, extend_step, resize_step
from handlers.orders.saga import FAILURE, Outcomes, Saga, carry_out, request_ids
from handlers.orders.snapshot import take_snapshot, unchanged_outcomes
from handlers.orders.step import Ready, Step, metadata_step, server_now
from handlers.servers.guard import find_server
from messages.orders import ChangedProduct, OrderChangeConfigure
from messages.results import ProductOutcome, Result

_STORED = TypeAdapter(list[Change])
#: The names of the steps, in the sequence in which they are done for all servers.
_NAMES = ("resize", "extend", "confirm", "feeData")


async def change_configuration(order: OrderChangeConfigure, context: ProjectContext) -> Result:
    """Carry the order out on all its servers, or leave all as they were; `Transient` where a later
    try may do it.
    """
    return await carry_out(ChangeConfigureSaga(order, context))


class ChangeConfigureSaga(Saga[OrderChangeConfigure, list[Change]]):
    """The saga of one changeConfigure order. Its plan is a list of `Change`, one a product."""

    def __init__(self, order: OrderChangeConfigure, context: ProjectContext) -> None:
        super().__init__(order, context, _STORED)

    async def make_plan(self) -> list[Change]:
        return await plan_changes(self.order, self.context)

    def steps(self) -> list[Step]:
        steps = [step for change in self.plan for step in self._steps_of(change)]
        return sorted(steps, key=lambda step: _NAMES.index(step.name))

    def _steps_of(self, change: Change) -> list[Step]:
        if change.found:
            return []
        context, progress, resumed = self.context, self.progress, not self.is_planned_now
        steps = [extend_step(change, one, context, resumed=resumed) for one in change.growths]
        if change.resizes:
            resize = resize_step(change, context, progress, resumed=resumed)
            steps = [resize, *steps, confirm_step(change, context, progress)]
        return [*steps, self._fee_data_step(change)]

    def _fee_data_step(self, change: Change) -> Step:
        """Write the fee data, and in the same call the order's name: all of it is done."""
        server_id, context = change.server_id, self.context
        items = fee_items(self.order, context)
        fee_data = change.before.fee_data.model_dump()

        async def prepare() -> Ready | None:
            # Where the order's name is there already, by an earlier run, the fee data may be a
            # later order's by now.
            server = await server_now(server_id, context)
            return None if has_order(server, context) else Ready()

        async def write() -> Reply:
            server = await nova.get_server(context.project, server_id)
            named = items | with_order(server, context)
            return await nova.set_metadata(context.project, server_id, named)

        async def follow() -> None:
            if self._is_touched(change):
                # Nothing of it is undone from here on, whatever becomes of the others.
                server = await server_now(server_id, context)
                await self.progress.end_server(server_id, server.status)

        step = metadata_step(
            "feeData",
            EffectId(EffectKind.METADATA, server_id),
            context,
            write=write,
            written=lambda server: has_order(server, context),
        )
        before = {item: fee_data.get(item) for item in items if item in fee_data}
        return replace(step, before=before, after=items, prepare=prepare, follow=follow)

    async def do(self) -> None:
        if not (self.is_planned_now or self.context.effects.any_done):
            # What an earlier run meant to begin may not have begun, and a newer order may have come
            # in between.
            for change in self.plan:
                server = await server_now(change.server_id, self.context)
                if not has_order(server, self.context):
                    refuse_superseded(self.order, server, self.context)
        await super().do()

    @property
    def _is_superseded(self) -> bool:
        """True where a newer order came in between: what the servers are now is not this one's to
        report, nor to undo.
        """
        failure = self.context.effects.remembered(FAILURE)
        return failure is not None and failure[0] == SUPERSEDED

    async def undo(self) -> None:
        if not self._is_superseded:
            await super().undo()

    async def outcomes(self) -> Outcomes:
        if self._is_superseded:
            return await self.untouched()
        ended = await asyncio.gather(*map(self._outcome, self.order.products, self.plan))
        for change, outcome in zip(self.plan, ended, strict=True):
            if self._is_touched(change):
                await self.progress.end_server(change.server_id, outcome.status)
        return [ended]

    async def _outcome(self, product: ChangedProduct, change: Change) -> ProductOutcome:
        """Look up what has changed: it is not concluded from what was done."""
        context, server = self.context, await find_server(self.context, change.server_id)
        outcome = ProductOutcome(
            product.ordered,
            change.server_id,
            None,
            changed=change.found or change.resizes or bool(change.growths),
            before=change.before if change.is_before_known else None,
            request_ids=request_ids(self._steps_of(change), context),
        )
        if server is None:
            return outcome
        grown = [
            await _has_grown(growth.volume_id, growth.before, context) for growth in change.growths
        ]
        return replace(
            outcome,
            status=server.status,
            changed=change.found or _is_resized(server, change) or any(grown),
            after=await take_snapshot(server, context),
        )

    def _is_touched(self, change: Change) -> bool:
        steps, begun = self._steps_of(change), self.context.effects.begun
        return change.found or any(begun(one.effect) for one in steps if one.name != "feeData")

    async def untouched(self) -> Outcomes:
        return await unchanged_outcomes(self.order.products, self.context)


def _is_resized(server: Server, change: Change) -> bool:
    if change.found_resize is not None:
        return has_flavor(server, change.flavor_after)
    is_moved = change.resizes and server.status != change.status
    return is_moved or not has_flavor(server, change.flavor_before)


async def _has_grown(volume_id: str, before: int, context: ProjectContext) -> bool:
    try:
        volume = await context.retrying(lambda: cinder.get_volume(context.project, volume_id))
    except NotFound:
        return True
    return volume.size != before

"""changeConfigure: another flavor, larger disks. What can be undone comes before what cannot."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from pydantic import TypeAdapter

from handlers.context import ProjectContext
from handlers.openstack import cinder, nova
from handlers.openstack.errors import NotFound
from handlers.openstack.nova import Server
from handlers.orders.change_configure import steps
from handlers.orders.change_configure.plan import Change, fee_items, has_flavor, plan_changes
from handlers.orders.change_configure.superseded import SUPERSEDED, refuse_superseded
from handlers.orders.order_markers import has_order, with_order
from handlers.orders.saga import Outcomes, Saga, all_done, all_undone, carry_out
from handlers.orders.snapshot import take_snapshot, unchanged_outcomes
from handlers.orders.step import Deed
from handlers.orders.steps import server_now, write_fee_data
from handlers.servers.guard import find_server
from messages.order_results import ProductOutcome
from messages.orders import OrderChangeConfigure
from messages.orders.change_configure import ChangedProduct
from messages.results import Result
from messages.updates import OrderStatus

#: A flavor that has its name from another.
_FLAVOR = "{} ({} vCPU, {} MiB, {} GiB)"


async def change_configuration(order: OrderChangeConfigure, context: ProjectContext) -> Result:
    """Carry the order out on all its servers, or leave all as they were; `Transient` where a later
    try may do it.
    """
    return await carry_out(Changing(order, context))


_STORED = TypeAdapter(list[Change])


class Changing(Saga[OrderChangeConfigure, list[Change]]):
    """The order's plan, steps and undoing."""

    def __init__(self, order: OrderChangeConfigure, context: ProjectContext) -> None:
        super().__init__(order, context, _STORED)

    async def make_plan(self) -> list[Change]:
        return await plan_changes(self.order, self.context)

    async def do(self) -> None:
        context, progress, looks = self.context, self.progress, not self.is_planned_now
        await self._check_newest()
        resizing = [change for change in self.plan if change.resizes]
        growths = [growth for change in self.plan for growth in change.growths]
        if resizing:
            await progress.publish(OrderStatus.RESIZING)
            await all_done(
                steps.resize(change, context, progress, looks=looks) for change in resizing
            )
        if growths:
            await progress.publish(OrderStatus.EXTENDING)
            await all_done(steps.extend(growth, context, looks=looks) for growth in growths)
        if resizing:
            await progress.publish(OrderStatus.CONFIRMING)
            await all_done(steps.confirm(change, context, progress) for change in resizing)
        await all_done(self._note_payment(change) for change in self.plan)

    def printed(self) -> list[Deed]:
        resizing, fees = [change for change in self.plan if change.resizes], self._fee_data()
        return [
            *(Deed("resize", one.server_id, *_flavors(one)) for one in resizing),
            *(
                Deed(
                    "extend",
                    one.server_id,
                    growth.before,
                    growth.after,
                    can_be_undone=False,
                    target=growth.volume_id,
                )
                for one in self.plan
                for growth in one.growths
            ),
            *(
                Deed("confirm", one.server_id, *_flavors(one), can_be_undone=False)
                for one in resizing
            ),
            *(
                Deed("feeData", one.server_id, _of(one, fees), fees)
                for one in self.plan
                if not one.found
            ),
        ]

    async def _check_newest(self) -> None:
        """What an earlier run meant to begin may not have begun, and a newer order may have come in
        between.
        """
        if self.is_planned_now or self.context.effects.any_done:
            return
        for change in self.plan:
            server = await server_now(change.server_id, self.context)
            if not has_order(server, self.context):
                refuse_superseded(self.order, server, self.context)

    async def _note_payment(self, change: Change) -> None:
        """Write the fee data, and in the same call the order's mark: all of it is done."""
        server = None if change.found else await server_now(change.server_id, self.context)
        if server is not None and not has_order(server, self.context):
            # Where the order is there already, by an earlier run, the fee data may be a later
            # order's by now.
            items = self._fee_data() | with_order(server, self.context)
            await write_fee_data(change.server_id, items, self.context)
        if self._touched(change):
            # Nothing of it is undone from here on, whatever becomes of the others.
            server = await server_now(change.server_id, self.context)
            await self.progress.end_server(change.server_id, server.status)

    def _fee_data(self) -> dict[str, str]:
        return fee_items(self.order, self.context)

    @property
    def _is_superseded(self) -> bool:
        """Whether a newer order came in between: what the servers are now is not this one's to
        tell, nor to undo.
        """
        failure = self.context.effects.remembered("failure")
        return failure is not None and failure[0] == SUPERSEDED

    async def undo(self) -> None:
        if self._is_superseded:
            return
        await self.progress.publish(OrderStatus.REVERTING)
        begun = self.context.effects.begun
        resizing = [change for change in self.plan if begun(f"resize:{change.server_id}")]
        growths = [growth for change in self.plan for growth in change.growths]
        await all_undone(
            [
                *(self._undo_resize(change) for change in resizing),
                *(steps.rescue_volume(growth, self.context) for growth in growths),
            ],
            self.context,
        )

    async def _undo_resize(self, change: Change) -> None:
        if not self.context.effects.begun(f"confirm:{change.server_id}"):
            await steps.revert(change, self.context, self.progress)
        server = await self.context.retrying(
            lambda: nova.get_server(self.context.project, change.server_id)
        )
        await steps.rescue(server, self.context)

    async def outcomes(self) -> Outcomes:
        if self._is_superseded:
            return await self.untouched()
        products = self.order.products
        ended = await asyncio.gather(*map(self._outcome, products, self.plan))
        for change, outcome in zip(self.plan, ended, strict=True):
            if self._touched(change):
                await self.progress.end_server(change.server_id, outcome.status)
        return [ended]

    async def _outcome(self, product: ChangedProduct, change: Change) -> ProductOutcome:
        """Whether anything was left changed is looked up, not reckoned."""
        context, server = self.context, await find_server(self.context, change.server_id)
        cinder = [growth.volume_id for growth in change.growths]
        outcome = ProductOutcome(
            product.ordered,
            change.server_id,
            None,
            changed=change.found or not change.is_nothing,
            before=change.before if change.is_before_known else None,
            request_ids=context.effects.request_ids([change.server_id, *cinder]),
        )
        if server is None:
            return outcome
        resized = change.found or _is_resized(server, change)
        grown = [
            await _has_grown(growth.volume_id, growth.before, context) for growth in change.growths
        ]
        after = await take_snapshot(server, context)
        return replace(outcome, status=server.status, changed=resized or any(grown), after=after)

    def _touched(self, change: Change) -> bool:
        names = [
            f"resize:{change.server_id}",
            *(f"extend:{growth.volume_id}" for growth in change.growths),
        ]
        return change.found or any(self.context.effects.begun(name) for name in names)

    async def untouched(self) -> Outcomes:
        return await unchanged_outcomes(self.order.products, self.context)


def _flavors(change: Change) -> tuple[str, str]:
    """Name the flavors before and after; with what is in them, where they have one name."""
    flavors = change.flavor_before, change.flavor_after
    names = [one if isinstance(one, str) else one[0] for one in flavors]
    if names[0] != names[1]:
        return names[0], names[1]
    before, after = (one if isinstance(one, str) else _FLAVOR.format(*one) for one in flavors)
    return before, after


def _is_resized(server: Server, change: Change) -> bool:
    if change.found_resize is not None:
        return has_flavor(server, change.flavor_after)
    is_moved = change.resizes and server.status != change.status
    return is_moved or not has_flavor(server, change.flavor_before)


def _of(change: Change, items: Mapping[str, str]) -> dict[str, str | None]:
    """What the server's fee data say of these items before it is changed."""
    return {
        item: change.before["feeData"].get(item)
        for item in items
        if item in change.before["feeData"]
    }


async def _has_grown(volume_id: str, before: int, context: ProjectContext) -> bool:
    try:
        volume = await context.retrying(lambda: cinder.get_volume(context.project, volume_id))
    except NotFound:
        return True
    return volume.size != before

"""unsubscribe: delete servers with what came with them.

Nothing is compensated: there is no way back from a deletion.
"""

import asyncio

from pydantic import TypeAdapter

from handlers.context import ProjectContext
from handlers.effects.concurrency import wait_for_all
from handlers.effects.ledger import EffectId, EffectKind
from handlers.orders.delete_server import (
    ServerDeletion,
    deletion_steps,
    kept_resources,
    plan_deletion,
)
from handlers.orders.saga import Outcomes, Saga, carry_out, do_steps, request_ids
from handlers.orders.snapshot import find_remaining, take_snapshot, unchanged_outcomes
from handlers.orders.step import Step
from messages.orders import InstanceProduct, OrderUnsubscribe
from messages.results import ProductOutcome, Result

_STORED = TypeAdapter(list[ServerDeletion])


async def unsubscribe(order: OrderUnsubscribe, context: ProjectContext) -> Result:
    """Delete the order's servers. Raises `Transient` where a retry may do it."""
    return await carry_out(UnsubscribeSaga(order, context))


class UnsubscribeSaga(Saga[OrderUnsubscribe, list[ServerDeletion]]):
    """The saga of one unsubscribe order. Its plan has one `ServerDeletion` a product."""

    def __init__(self, order: OrderUnsubscribe, context: ProjectContext) -> None:
        super().__init__(order, context, _STORED)

    async def make_plan(self) -> list[ServerDeletion]:
        return await wait_for_all(
            plan_deletion(one, self.context) for one in self.order.instance_ids
        )

    def steps(self) -> list[Step]:
        return [step for deletion in self.plan for step in self._steps_of(deletion)]

    def _steps_of(self, deletion: ServerDeletion) -> list[Step]:
        return deletion_steps(deletion, self.context, self.progress)

    async def do(self) -> None:
        # Each server has a list of its own: one that cannot be deleted keeps no other's disks.
        deleting = (self._delete(deletion) for deletion in self.plan if not deletion.gone)
        await wait_for_all(deleting, passing_first=True)

    async def _delete(self, deletion: ServerDeletion) -> None:
        await do_steps(self._steps_of(deletion), self.context, self.progress)
        # Its final update does not wait for the other servers.
        server = await find_remaining(deletion.server_id, self.context)
        status = server.status if server is not None else None
        await self.progress.end_server(deletion.server_id, status)

    async def undo(self) -> None:
        """Compensate nothing."""

    async def outcomes(self) -> Outcomes:
        ended = await asyncio.gather(*map(self._outcome, self.order.products, self.plan))
        for deletion, outcome in zip(self.plan, ended, strict=True):
            if not deletion.gone:
                await self.progress.end_server(deletion.server_id, outcome.status)
        return [ended]

    async def _outcome(self, product: InstanceProduct, deletion: ServerDeletion) -> ProductOutcome:
        context = self.context
        server = None
        if not deletion.gone:
            server = await find_remaining(product.instance_id, context)
        released = any(
            context.effects.done(EffectId(EffectKind.RELEASE, one)) for one in deletion.floating_ips
        )
        return ProductOutcome(
            product.ordered,
            product.instance_id,
            server.status if server is not None else "DELETED",
            changed=not deletion.gone and (server is None or released),
            before=None if deletion.gone else deletion.before,
            after=await take_snapshot(server, context) if server is not None else None,
            request_ids=request_ids(self._steps_of(deletion), context),
            more=await kept_resources(deletion, context) if server is None else {},
        )

    async def untouched(self) -> Outcomes:
        return await unchanged_outcomes(self.order.products, self.context)

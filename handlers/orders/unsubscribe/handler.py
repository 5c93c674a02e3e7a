"""unsubscribe: servers go, with what came with them. There is no way back: what fails is told, not
undone.
"""

import asyncio
from typing import Any

from handlers.context import ProjectContext
from handlers.orders.delete_server import (
    Departure,
    departure_deeds,
    kept,
    leave,
    plan_departure,
    request_ids,
)
from handlers.orders.instances import find_remaining
from handlers.orders.progress import Course
from handlers.orders.saga import Outcomes, all_of, carry_out, settled
from handlers.orders.snapshot import as_it_is, take_picture
from handlers.orders.step import Deed
from messages.order_results import ProductOutcome
from messages.orders import InstanceProduct, OrderUnsubscribe
from messages.results import Result
from messages.updates import OrderStatus


async def end_subscription(order: OrderUnsubscribe, context: ProjectContext) -> Result:
    """Delete the order's servers; `Transient` where a later try may do it."""
    return await carry_out(Ending(order, context))


class Ending:
    """The order's plan and steps; an `Saga`."""

    def __init__(self, order: OrderUnsubscribe, context: ProjectContext) -> None:
        self.order = order
        self.context = context
        self.course = Course(order, context)
        self._departures: list[Departure] = []

    async def plan(self) -> Any:
        planned = await settled(
            plan_departure(one, self.context) for one in self.order.instance_ids
        )
        return [departure.to_json() for departure in planned]

    def recall(self, plan: Any) -> None:
        self._departures = [Departure.from_json(record) for record in plan]

    async def do(self) -> None:
        if any(not departure.gone for departure in self._departures):
            await self.course.tell(OrderStatus.DELETING)
        await all_of(self._leave(departure) for departure in self._departures)

    async def _leave(self, departure: Departure) -> None:
        await leave(departure, self.context, self.course)
        if not departure.gone:
            # It has ended, whatever becomes of the others.
            server = await find_remaining(departure.server_id, self.context)
            await self.course.end_server(
                departure.server_id, server.status if server is not None else None
            )

    def deeds(self) -> list[Deed]:
        return [deed for departure in self._departures for deed in departure_deeds(departure)]

    async def undo(self) -> None:
        """Nothing comes back."""

    async def outcomes(self) -> Outcomes:
        ended = await asyncio.gather(*map(self._outcome, self.order.products, self._departures))
        for departure, outcome in zip(self._departures, ended, strict=True):
            if not departure.gone:
                await self.course.end_server(departure.server_id, outcome.status)
        return [ended]

    async def _outcome(self, product: InstanceProduct, departure: Departure) -> ProductOutcome:
        if departure.gone:
            more = await self._kept(departure)
            return ProductOutcome(
                product.ordered, product.instance_id, "DELETED", changed=False, more=more
            )
        server = await find_remaining(product.instance_id, self.context)
        released = any(
            self.context.effects.done(f"release:{one}") for one in departure.floating_ips
        )
        return ProductOutcome(
            product.ordered,
            product.instance_id,
            server.status if server is not None else "DELETED",
            changed=server is None or released,
            before=departure.before,
            after=await take_picture(server, self.context) if server is not None else None,
            request_ids=request_ids(departure, self.context),
            more=await self._kept(departure) if server is None else {},
        )

    async def _kept(self, departure: Departure) -> dict[str, Any]:
        stayed = await kept(departure, self.context)
        return {"kept": stayed} if stayed else {}

    async def untouched(self) -> Outcomes:
        return [
            await asyncio.gather(
                *(as_it_is(product, self.context) for product in self.order.products)
            )
        ]

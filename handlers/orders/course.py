"""What an order tells of its course: its own updates, and those of its servers."""

from collections.abc import Mapping
from typing import Any

from handlers.compute import Server
from handlers.context import Context
from messages.errors import Refused
from messages.fields import optional_word
from messages.orders import Order
from messages.status import ORDER_WORDS, OrderStatus, Update, server_update

#: How far an order is when a status is told, in percent. It never falls: what is lower is told as the last one was.
_PROGRESS = {
    OrderStatus.ACCEPTED: 0,
    OrderStatus.VALIDATING: 10,
    OrderStatus.RESIZING: 20,
    OrderStatus.EXTENDING: 60,
    OrderStatus.CONFIRMING: 80,
    OrderStatus.REVERTING: 80,
    OrderStatus.SUCCEEDED: 100,
    OrderStatus.FAILED: 0,  # as far as it had come
}


def order_update(
    order_id: str, flow_id: str | None, instance_id: str | None, status: OrderStatus, progress: int
) -> Update:
    """An update of an order."""
    fields = {"consoleOrderFlowId": flow_id, "instanceId": instance_id, "progress": progress}
    final = status in (OrderStatus.SUCCEEDED, OrderStatus.FAILED)
    return Update("order", order_id, None, status.value, ORDER_WORDS[status], final, fields)


def refused_order_update(message: Mapping[str, Any]) -> Update | None:
    """The final update of an order that could not even be read; None where it has no usable id."""
    products = message.get("productList")
    product = products[0] if isinstance(products, list) and len(products) == 1 else None
    try:
        order_id = optional_word(message.get("orderId"), "orderId")
        flow_id = optional_word(message.get("consoleOrderFlowId"), "consoleOrderFlowId")
        instance = optional_word(product.get("instanceId"), "instanceId") if isinstance(product, dict) else None
    except Refused:
        return None
    return order_update(order_id, flow_id, instance, OrderStatus.FAILED, 0) if order_id else None


def instance_of(order: Order) -> str | None:
    """The order's instance, where it has just one."""
    return order.products[0].instance_id if len(order.products) == 1 else None


class Course:
    """One order's updates."""

    def __init__(self, order: Order, context: Context) -> None:
        self._order = order
        self._context = context
        self._told: set[str] = set()
        self._last: dict[str, tuple[str, str | None]] = {}

    async def tell(self, status: OrderStatus) -> None:
        """Say how far the order is; once for each status."""
        if status in self._told:
            return
        self._told.add(status)
        order = self._order
        await self._context.tell(
            order_update(order.order_id, order.flow_id, instance_of(order), status, _PROGRESS[status])
        )

    async def tell_server(self, server: Server) -> None:
        """Say what a server of the order does; only what is new. That it is at rest again, its end says."""
        state = (server.status, server.task_state)
        if self._last.get(server.id) != state and not server.at_rest:
            self._last[server.id] = state
            await self._context.tell(server_update(server.id, None, *state, final=False))

    async def end_server(self, server_id: str, status: str | None) -> None:
        """Say what a server of the order ended as; None: it is gone."""
        await self._context.tell(server_update(server_id, None, status or "DELETED", None, final=True))

"""Status updates of an order and of its servers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from handlers.context import RequestContext
from handlers.openstack.nova import Server
from messages.fields import WrongValue, optional_word
from messages.orders import Order, name_of
from messages.updates import ORDER_WORDS, OrderStatus, Update, server_update

#: Percentage of an order's progress at each status. What is published never falls: a lower one is
#: published as the last one was.
_PROGRESS = {
    OrderStatus.ACCEPTED: 0,
    OrderStatus.VALIDATING: 10,
    OrderStatus.CREATING: 20,
    OrderStatus.RESIZING: 20,
    OrderStatus.STOPPING: 30,
    OrderStatus.STARTING: 40,
    OrderStatus.DELETING: 50,
    OrderStatus.EXTENDING: 60,
    OrderStatus.CONFIRMING: 80,
    OrderStatus.REVERTING: 80,
    OrderStatus.SUCCEEDED: 100,
    OrderStatus.FAILED: 0,  # published as the last one was
}


def order_update(
    order: Order, status: OrderStatus, progress: int, made: str | None = None
) -> Update:
    """Build an update of an order. It names the instance where there is just one, in the order or
    created by it (`made`).
    """
    named = order.instance_ids
    instance = named[0] if len(named) == 1 else made
    return _update(order.name, order.flow_id, instance, status, progress)


def refused_order_update(message: Mapping[str, Any]) -> Update | None:
    """Build the final update of an order that cannot be parsed; None where it has no usable id."""
    listed = message.get("instanceList", message.get("productList"))
    only = listed[0] if isinstance(listed, list) and len(listed) == 1 else None
    try:
        flow_id = optional_word(message.get("consoleOrderFlowId"))
        instance = optional_word(only.get("instanceId")) if isinstance(only, dict) else None
    except WrongValue:
        return None
    name = name_of(message)
    return _update(name, flow_id, instance, OrderStatus.FAILED, 0) if name else None


def _update(
    name: str, flow_id: str | None, instance_id: str | None, status: OrderStatus, progress: int
) -> Update:
    fields = {"consoleOrderFlowId": flow_id, "instanceId": instance_id, "progress": progress}
    final = status in (OrderStatus.SUCCEEDED, OrderStatus.FAILED)
    return Update("order", name, None, status.value, ORDER_WORDS[status], final, fields)


class OrderProgress:
    """Publishes the updates of one order."""

    def __init__(self, order: Order, context: RequestContext) -> None:
        self._order = order
        self._context = context
        self._made: str | None = None
        self._published: set[str] = set()
        self._last: dict[str, tuple[str, str | None]] = {}

    async def publish(self, status: OrderStatus) -> None:
        """Publish the status of the order; once for each status."""
        if status in self._published:
            return
        self._published.add(status)
        await self._context.replies.publish(
            order_update(self._order, status, _PROGRESS[status], self._made)
        )

    def name_instance(self, server_id: str | None) -> None:
        """Name the one instance that the order has created in the updates that follow."""
        self._made = server_id

    async def publish_server(self, server: Server) -> None:
        """Publish the state of a server of the order where it is new. A server at rest is left to
        `end_server`.
        """
        state = (server.status, server.task_state)
        if self._last.get(server.id) != state and not server.at_rest:
            self._last[server.id] = state
            update = server_update(server.id, None, *state, final=False)
            await self._context.replies.publish(replace(update, tenant_id=server.project_id))

    async def end_server(
        self, server_id: str, status: str | None, project_id: str | None = None
    ) -> None:
        """Publish the final update of a server of the order; `status` None: it is gone.

        `project_id` is its owner's where the order has no project of its own.
        """
        ended = server_update(server_id, None, status or "DELETED", None, final=True)
        await self._context.replies.publish(replace(ended, tenant_id=project_id))

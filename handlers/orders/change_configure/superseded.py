"""Of several changeConfigure orders for a server the newest counts: one that comes late must not
undo it.
"""

from datetime import datetime

from handlers.context import ProjectContext
from handlers.openstack.nova import Server
from handlers.orders.billing import STATUS_TIME, fee_time, local_time
from handlers.orders.step import failed
from messages.orders import OrderChangeConfigure

SUPERSEDED = "superseded"


def refuse_superseded(order: OrderChangeConfigure, server: Server, context: ProjectContext) -> None:
    """`Refused` where an order of a later statusTime has been carried out on the server; one
    without has none later.
    """
    own, last = time_of(order, context), fee_time(server, STATUS_TIME, context.policy.billing_zone)
    if own is not None and last is not None and own < last:
        raise failed(
            SUPERSEDED,
            f"an order of {last} has been carried out on {server.id}, this one is of {own}",
        )


def time_of(order: OrderChangeConfigure, context: ProjectContext) -> datetime | None:
    """When it was paid, by the billing system's clock. The future counts as now: it would shut out
    whatever comes.
    """
    now = context.policy.billing_now().replace(microsecond=0)
    paid = local_time(order.heading.status_time, context.policy.billing_zone)
    return min(paid, now) if paid is not None else None

"""order.plan: what an order would do, asked of the very planning that carries it out. Nothing is
touched.
"""

from dataclasses import replace
from typing import Any

from handlers.context import ProjectContext
from handlers.effects.backoff import Deadline
from handlers.effects.once import Effects, NoLedger
from handlers.orders.forecast import foresee
from messages.codes import Code
from messages.orders import PlanOrder
from messages.results import Result
from messages.secrets import mask

#: The part of the time for an answer that a busy server may be waited for.
_WAITING = 0.5


async def plan_order(task: PlanOrder, context: ProjectContext) -> Result:
    """The plan as the result's data; 200 whatever it says of the order."""
    patience = context.effects.patience
    asking = replace(
        context,
        effects=Effects(NoLedger(), patience),
        hold=min(context.hold, Deadline.after(patience.left * _WAITING)),
    )
    forecast: dict[str, Any] = (await foresee(task.message, asking, context.project.id)).to_json()
    return Result.of(Code.OK, mask(forecast))

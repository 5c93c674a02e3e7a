"""`ecs-worker run` with handlers that have faults of their own, chosen by the message: a test's
worker module.

What a handler does wrong stands in the tags of `server.tags.update`, and in the `billType` of an
order to renew.
"""

import asyncio
from typing import Any

from handlers.catalogue import HANDLERS
from handlers.context import ProjectContext
from handlers.orders.progress import OrderProgress
from messages.codes import Code
from messages.commands import ServerList, ServerTagsUpdate
from messages.orders import OrderRenew
from messages.results import Result
from messages.updates import OrderStatus, Update, server_update
from workers.bootstrap import Worker
from workers.settings import load_settings
from workers.telemetry import configure_logs


async def _tags(task: ServerTagsUpdate, context: ProjectContext) -> Result:
    return await _fail(task.tags[0], task.server_id, context)


async def _list(task: ServerList, context: ProjectContext) -> Result:
    return await _fail(task.search.value if task.search else "", "", context)


async def _renew(order: OrderRenew, context: ProjectContext) -> Result:
    await OrderProgress(order, context).publish(OrderStatus.ACCEPTED)
    return await _fail(order.bill_type or "", "", context)


async def _fail(how: str, server_id: str, context: ProjectContext) -> Result:
    match how:
        case "raises":
            raise LookupError("a secret=hunter2hunter2 of ours")
        case "unwritable":
            return Result.of(Code.OK, {"made": object()})
        case "half a pair":
            return Result.of(Code.OK, {"name": "\ud83d"})
        case "answered":
            await context.replies.answer(Result.of(Code.OK, {"first": True}))
            raise LookupError("after the answer")
        case "unwritable update":
            odd: Any = object()
            await context.replies.publish(
                server_update(server_id, None, "ACTIVE", None, final=False)
            )
            await context.replies.publish(Update("server", server_id, None, odd, None, final=True))
            return Result.of(Code.OK)
        case _:
            return Result.of(Code.OK, {"well": True})


async def _main() -> None:
    settings = load_settings()
    configure_logs(settings.log_format, settings.log_level)
    own = {ServerTagsUpdate: _tags, ServerList: _list, OrderRenew: _renew}
    await Worker(settings, {**HANDLERS, **own}).run()  # type: ignore[dict-item]


if __name__ == "__main__":
    asyncio.run(_main())

"""server.tags.list and server.tags.update."""

import asyncio

from handlers.context import ProjectContext
from handlers.effects.backoff import delays
from handlers.effects.ledger import EffectId, EffectKind
from handlers.effects.once import Landed
from handlers.openstack.errors import CloudRefusal, Conflict, NotFound
from handlers.openstack.nova import list_tags, replace_tags
from handlers.servers.guard import find_server, unknown_server
from messages.codes import Code
from messages.errors import Refused
from messages.results import Result
from messages.servers import ServerTagsList, ServerTagsUpdate


async def show_tags(task: ServerTagsList, context: ProjectContext) -> Result:
    """A server's tags."""
    server = await find_server(context, task.server_id)
    if server is None:
        raise unknown_server(task.server_id, None)
    return Result.of(Code.OK, {"tags": list(server.body.get("tags") or ())})


async def update_tags(task: ServerTagsUpdate, context: ProjectContext) -> Result:
    """Give it these tags and no others; Nova lets a server be tagged that is at rest, in whatever
    way.
    """
    if context.answered is not None:
        await context.effects.find_out(
            EffectId(EffectKind.TAGS, task.server_id), _replaced(task, context)
        )
        return context.answered
    for delay in delays(0.5, 4.0):
        server = await find_server(context, task.server_id)
        if server is None:
            raise unknown_server(task.server_id, None)
        try:
            await _replace(task, context)
        except Conflict:
            # A server that is being made can be tagged in a while; one in ERROR cannot.
            if not server.busy:
                raise Refused(Code.SERVER_STATE) from None
            if delay > context.times.deadline.left:
                raise Refused(
                    Code.FAILED, reason="busy", detail=f"busy with {server.task_state}"
                ) from None
            await asyncio.sleep(delay)
        except NotFound:
            raise unknown_server(task.server_id, None) from None
        except CloudRefusal as error:
            raise error.as_failure() from error
        else:
            break
    return Result.of(Code.OK)


async def _replace(task: ServerTagsUpdate, context: ProjectContext) -> None:
    await context.effects.once(
        EffectId(EffectKind.TAGS, task.server_id),
        do=lambda: replace_tags(context.project, task.server_id, task.tags),
        landed=_replaced(task, context),
        marker=None,
    )


def _replaced(task: ServerTagsUpdate, context: ProjectContext) -> Landed:
    async def landed(_: object) -> str | None:
        return (
            ""
            if sorted(await list_tags(context.project, task.server_id)) == sorted(task.tags)
            else None
        )

    return landed

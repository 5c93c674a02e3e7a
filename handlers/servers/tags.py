"""server.tags.list and server.tags.update."""

from handlers.context import ProjectContext
from handlers.effects.ledger import EffectId, EffectKind
from handlers.openstack.errors import CloudRefusal, Conflict, NotFound
from handlers.openstack.nova import Server, list_tags, replace_tags
from handlers.servers.guard import require_server, retrying_conflicts, unknown_server
from messages.codes import Code
from messages.commands import ServerTagsList, ServerTagsUpdate
from messages.errors import Refused
from messages.results import Result
from messages.views import ServerTags


async def show_tags(task: ServerTagsList, context: ProjectContext) -> Result:
    """Show a server's tags."""
    server = await require_server(context, task.server_id)
    return Result.of(Code.OK, ServerTags(tags=list(server.body.get("tags") or ())))


async def update_tags(task: ServerTagsUpdate, context: ProjectContext) -> Result:
    """Give a server these tags and no others; Nova takes them while it is at rest."""
    effect = EffectId(EffectKind.TAGS, task.server_id)
    server: Server

    async def landed(_: object) -> str | None:
        tags = await list_tags(context.project, task.server_id)
        return "" if sorted(tags) == sorted(task.tags) else None

    async def act() -> None:
        nonlocal server
        server = await require_server(context, task.server_id)
        try:
            await context.effects.once(
                effect,
                do=lambda: replace_tags(context.project, task.server_id, task.tags),
                landed=landed,
                marker=None,
            )
        except Conflict:
            # A server that is being made can be tagged in a while; one in ERROR cannot.
            if not server.busy:
                raise Refused(Code.SERVER_STATE) from None
            raise
        except NotFound:
            raise unknown_server(task.server_id, None) from None
        except CloudRefusal as error:
            raise error.as_failure() from error

    if context.answered is not None:
        await context.effects.find_out(effect, landed)
        return context.answered
    await retrying_conflicts(
        act,
        context,
        lambda _: Refused(Code.FAILED, reason="busy", detail=f"busy with {server.task_state}"),
    )
    return Result.of(Code.OK)

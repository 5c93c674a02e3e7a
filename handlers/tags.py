"""server.tags.list and server.tags.update."""

from handlers.compute import list_tags, replace_tags
from handlers.context import Context
from handlers.errors import CloudRefusal, NotFound
from handlers.servers import find_server, unknown_server
from messages.codes import Code
from messages.results import Result
from messages.servers import ListTags, UpdateTags


async def show_tags(task: ListTags, context: Context) -> Result:
    """A server's tags."""
    server = await find_server(context, task.server_id)
    if server is None:
        raise unknown_server(task.server_id, None)
    return Result.of(Code.OK, {"tags": list(server.body.get("tags") or ())})


async def update_tags(task: UpdateTags, context: Context) -> Result:
    """Give it these tags and no others."""
    if await find_server(context, task.server_id) is None:
        raise unknown_server(task.server_id, None)

    async def landed(_: object) -> str | None:
        return "" if sorted(await list_tags(context.project, task.server_id)) == sorted(task.tags) else None

    try:
        await context.effects.once(
            f"tags:{task.server_id}",
            do=lambda: replace_tags(context.project, task.server_id, task.tags), landed=landed, marker=None,
        )  # fmt: skip
    except NotFound:
        raise unknown_server(task.server_id, None) from None
    except CloudRefusal as error:
        raise error.as_failure() from error
    return Result.of(Code.OK)

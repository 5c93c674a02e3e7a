"""Status updates of a server: from an accepted action to its final state."""

from handlers.context import ProjectContext
from handlers.effects.ledger import EffectId
from handlers.openstack.errors import NotFound
from handlers.servers.guard import find_server
from messages.updates import server_update


async def follow_to_end(
    context: ProjectContext,
    server_id: str,
    action: str,
    first: tuple[str, str | None],
    effect: EffectId,
    *,
    overtaken: str | None = None,
) -> None:
    """Publish a server's states from an accepted action to the final one.

    `first` is its status and the task that Nova has set before it answered. A server without a task
    has ended: Nova sets the task before it accepts an action. So has one in the status `overtaken`:
    another action has taken its place, whose success or failure is not this one's. When the wait
    has lasted its time, the last known state is the final one. Only the watch is asked, which waits
    out a cloud that does not answer: an accepted action must have its final update.
    """
    if context.replies.final_published("server", server_id):
        return
    status, task = first
    if task is not None:
        await context.replies.publish(server_update(server_id, action, status, task, final=False))
    with context.watchers.servers.follow(server_id) as poller:
        while task is not None and status != overtaken:
            try:
                server = await context.next(poller, effect)
            except TimeoutError:
                break
            except NotFound:
                status = "DELETED"
                break
            is_new = (server.status, server.task_state) != (status, task)
            status, task = server.status, server.task_state
            if server.busy and status != overtaken and is_new:
                await context.replies.publish(
                    server_update(server_id, action, status, task, final=False)
                )
    await context.replies.publish(server_update(server_id, action, status, None, final=True))


async def publish_end(
    context: ProjectContext, server_id: str, action: str, effect: EffectId
) -> None:
    """Publish the final state of a server of which it is not known whether an action was carried
    out. `Transient` where Nova does not say.
    """
    if context.replies.final_published("server", server_id):
        return
    server = await find_server(context, server_id)
    first = (server.status, server.task_state) if server is not None else ("DELETED", None)
    await follow_to_end(context, server_id, action, first, effect)

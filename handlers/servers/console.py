"""The URL of a server's VNC console."""

from dataclasses import replace

from handlers.context import ProjectContext
from handlers.openstack.errors import CloudRefusal, Conflict, NotFound
from handlers.openstack.nova import open_console
from handlers.servers.guard import require_server, state_refusal, unknown_server, wait_until_idle
from messages.codes import Code
from messages.commands import OpenConsole
from messages.errors import Refused
from messages.results import ConsoleUrl, Result, ServerConsole

_NEEDS = frozenset({"ACTIVE"})
_BAD_REQUEST = 400


async def open_server_console(task: OpenConsole, context: ProjectContext) -> Result:
    """Open a console; the URL holds a short-lived token of Nova's, so it is kept nowhere."""
    server = await require_server(context, task.server_id)
    server = await wait_until_idle(context, server, context.effects.retry_until)
    if server.status not in _NEEDS or server.busy:
        raise state_refusal(server, _NEEDS) or Refused(Code.SERVER_STATE)
    try:
        url = await context.retrying(
            lambda: open_console(context.project, task.server_id, task.console_type)
        )
    except Conflict:
        raise Refused(Code.SERVER_STATE) from None
    except NotFound:
        raise unknown_server(task.server_id, None) from None
    except CloudRefusal as error:
        if error.status == _BAD_REQUEST:
            raise Refused(Code.FAILED, reason="console_type", detail=error.detail) from error
        raise error.as_failure() from error
    result = Result.of(Code.OK, ServerConsole(console=ConsoleUrl(type=task.console_type, url=url)))
    return replace(result, confidential=True)

"""Which function carries out which request."""

from collections.abc import Awaitable, Callable
from typing import Any

from handlers.batch import act_on_servers
from handlers.consoles import open_server_console
from handlers.context import Context
from handlers.orders.change_configure import change_configuration
from handlers.power import act_on_server
from messages.commands import OpenConsole, PowerAction, PowerBatch
from messages.orders import Order
from messages.results import Result

Handler = Callable[[Any, Context], Awaitable[Result]]

#: The handler of each kind of work.
HANDLERS: dict[type, Handler] = {
    PowerAction: act_on_server,
    PowerBatch: act_on_servers,
    OpenConsole: open_server_console,
    Order: change_configuration,
}

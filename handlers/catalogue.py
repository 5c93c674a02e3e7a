"""The handlers: which function carries out which request.

The module does not load while a task of the table of operations has no handler.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from handlers.images.changes import remove_image, remove_images, update_image
from handlers.images.create import make_image
from handlers.images.queries import show_image, show_images, show_private_images
from handlers.orders.change_configure.handler import change_configuration
from handlers.orders.new.handler import create_servers
from handlers.orders.preview import plan_order
from handlers.orders.renew.handler import renew_servers
from handlers.orders.show import show_request
from handlers.orders.soft_down.handler import soft_down
from handlers.orders.unsubscribe.handler import unsubscribe
from handlers.servers.batch import act_on_servers
from handlers.servers.console import open_server_console
from handlers.servers.power import act_on_server
from handlers.servers.queries import show_server, show_servers
from handlers.servers.tags import show_tags, update_tags
from messages.commands import (
    CreateImage,
    ImageBatchDelete,
    ImageDelete,
    ImageList,
    ImageListPrivate,
    ImageShow,
    ImageUpdate,
    OpenConsole,
    OrderPlan,
    OrderShow,
    PowerAction,
    PowerBatch,
    ServerList,
    ServerShow,
    ServerTagsList,
    ServerTagsUpdate,
)
from messages.operations import TASKS, IncompleteTable
from messages.orders import (
    OrderChangeConfigure,
    OrderNew,
    OrderRenew,
    OrderSoftDown,
    OrderUnsubscribe,
)
from messages.results import Result

#: Takes a task or an order and a `ProjectContext`; a softDown, which is no tenant's own, takes a
#: `RequestContext`.
Handler = Callable[[Any, Any], Awaitable[Result]]

#: The handler of each type of task and order.
HANDLERS: dict[type, Handler] = {
    PowerAction: act_on_server,
    PowerBatch: act_on_servers,
    OpenConsole: open_server_console,
    ServerList: show_servers,
    ServerShow: show_server,
    ServerTagsList: show_tags,
    ServerTagsUpdate: update_tags,
    CreateImage: make_image,
    ImageList: show_images,
    ImageListPrivate: show_private_images,
    ImageShow: show_image,
    ImageDelete: remove_image,
    ImageBatchDelete: remove_images,
    ImageUpdate: update_image,
    OrderPlan: plan_order,
    OrderShow: show_request,
    OrderChangeConfigure: change_configuration,
    OrderRenew: renew_servers,
    OrderSoftDown: soft_down,
    OrderNew: create_servers,
    OrderUnsubscribe: unsubscribe,
}

if missing := TASKS.keys() - HANDLERS.keys():
    names = ", ".join(sorted(one.__name__ for one in missing))
    raise IncompleteTable(f"without a handler: {names}")

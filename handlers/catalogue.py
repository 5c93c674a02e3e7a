"""Which function carries out which request."""

from collections.abc import Awaitable, Callable
from typing import Any

from handlers.images.changes import remove_image, remove_images, update_image
from handlers.images.create import make_image
from handlers.images.queries import show_image, show_images, show_private_images
from handlers.orders.change_configure.handler import change_configuration
from handlers.orders.new.handler import create_servers
from handlers.orders.preview import plan_order
from handlers.orders.renew.handler import renew_servers
from handlers.orders.soft_down.handler import take_down
from handlers.orders.unsubscribe.handler import end_subscription
from handlers.servers.batch import act_on_servers
from handlers.servers.console import open_server_console
from handlers.servers.power import act_on_server
from handlers.servers.queries import show_server, show_servers
from handlers.servers.tags import show_tags, update_tags
from messages.commands import OpenConsole, PowerAction, PowerBatch
from messages.images import (
    CreateImage,
    DeleteImage,
    DeleteImages,
    ListImages,
    ListPrivateImages,
    ShowImage,
    UpdateImage,
)
from messages.orders import ChangeConfigure, NewServers, PlanOrder, Renew, SoftDown, Unsubscribe
from messages.results import Result
from messages.servers import ListServers, ListTags, ShowServer, UpdateTags

#: Takes the work and a `ProjectContext`; what is no tenant's own takes an `RequestContext`.
Handler = Callable[[Any, Any], Awaitable[Result]]

#: The handler of each kind of work.
HANDLERS: dict[type, Handler] = {
    PowerAction: act_on_server,
    PowerBatch: act_on_servers,
    OpenConsole: open_server_console,
    ListServers: show_servers,
    ShowServer: show_server,
    ListTags: show_tags,
    UpdateTags: update_tags,
    CreateImage: make_image,
    ListImages: show_images,
    ListPrivateImages: show_private_images,
    ShowImage: show_image,
    DeleteImage: remove_image,
    DeleteImages: remove_images,
    UpdateImage: update_image,
    PlanOrder: plan_order,
    ChangeConfigure: change_configuration,
    Renew: renew_servers,
    SoftDown: take_down,
    NewServers: create_servers,
    Unsubscribe: end_subscription,
}

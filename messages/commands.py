"""Commands (contract 4): the console's requests, typed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from messages import images, servers
from messages.errors import wrong
from messages.fields import mapping, objects, optional_word, uuid_of, word
from messages.images import ImageList, ImageListPrivate, ImageShow, ImageTask
from messages.orders import OrderPlan, parse_plan
from messages.servers import ServerList, ServerShow, ServerTagsList, ServerTagsUpdate

#: Servers in one batch.
MAX_BATCH = 100


class Operation(StrEnum):
    """The operations that are carried out; the routing key of a command is one of these."""

    SERVER_ACTION = "server.action"
    SERVER_BATCH_ACTION = "server.batch_action"
    SERVER_LIST = "server.list"
    SERVER_SHOW = "server.show"
    SERVER_TAGS_LIST = "server.tags.list"
    SERVER_TAGS_UPDATE = "server.tags.update"
    IMAGE_LIST = "image.list"
    IMAGE_LIST_PRIVATE = "image.list_private"
    IMAGE_SHOW = "image.show"
    IMAGE_DELETE = "image.delete"
    IMAGE_BATCH_DELETE = "image.batch_delete"
    IMAGE_UPDATE = "image.update"
    ORDER_PLAN = "order.plan"


class Power(StrEnum):
    """What a server can be told to do, under the API's names."""

    START = "os-start"
    STOP = "os-stop"
    REBOOT = "reboot"


class Force(StrEnum):
    """How hard: only a reboot makes a difference of it, Nova has one stop."""

    SOFT = "SOFT"
    HARD = "HARD"


@dataclass(frozen=True, slots=True)
class PowerAction:
    """Start, stop or reboot one server."""

    server_id: str
    power: Power
    force: Force


@dataclass(frozen=True, slots=True)
class PowerBatch:
    """Start, stop or reboot 1..100 different servers, all or none begun."""

    server_ids: tuple[str, ...]
    power: Power
    force: Force


@dataclass(frozen=True, slots=True)
class OpenConsole:
    """Ask for the URL of a server's VNC console. The type is Nova's to judge."""

    server_id: str
    console_type: str


ServerTask = (
    PowerAction
    | PowerBatch
    | OpenConsole
    | ServerList
    | ServerShow
    | ServerTagsList
    | ServerTagsUpdate
)
Task = ServerTask | ImageTask | OrderPlan
#: What changes nothing: its result is not kept, a repeat is looked up afresh.
READS = (
    OpenConsole,
    ServerList,
    ServerShow,
    ServerTagsList,
    ImageList,
    ImageListPrivate,
    ImageShow,
    OrderPlan,
)


@dataclass(frozen=True, slots=True)
class Command:
    """A command that is right in form: what to do, and who says that he asks."""

    operation: Operation
    tenant: str | None
    user_id: str | None
    task: Task


def parse_command(message: Mapping[str, Any], routing_key: str) -> Command:
    """The command in a message's body, or `Refused` naming the parameter that is wrong."""
    operation = _operation(message, routing_key)
    task = _PARSERS[operation](message)
    tenant = optional_word(message.get("tenant_id"), "tenant_id")
    return Command(
        operation=operation,
        tenant=task.tenant if tenant is None and isinstance(task, OrderPlan) else tenant,
        user_id=optional_word(message.get("user_id"), "user_id"),
        task=task,
    )


def _operation(message: Mapping[str, Any], routing_key: str) -> Operation:
    name = message.get("operation")
    if name != routing_key:
        raise wrong("operation", "the operation is not the routing key")
    try:
        return Operation(routing_key)
    except ValueError:
        raise wrong("operation", "there is no such operation") from None


def _parse_action(message: Mapping[str, Any]) -> Task:
    server_id = uuid_of(message.get("server_id"), "server_id")
    action, options = _one_action(message, _ACTIONS)
    if action == "os-getVNCConsole":
        return OpenConsole(server_id, word(options.get("type"), "type").lower())
    if action == "createImage":
        return images.parse_create(server_id, options)
    power = Power(action)
    return PowerAction(server_id, power, _force(power, options))


def _parse_batch(message: Mapping[str, Any]) -> Task:
    action, options = _one_action(message, tuple(Power))
    power = Power(action)
    return PowerBatch(_server_ids(options.get("servers")), power, _force(power, options))


#: Every action of the API; two of them in one body contradict each other.
_ACTIONS = (*Power, "os-getVNCConsole", "createImage")


def _one_action(
    message: Mapping[str, Any], allowed: tuple[str, ...]
) -> tuple[str, Mapping[str, Any]]:
    body = mapping(message.get("body"), "body")
    named = [name for name in _ACTIONS if name in body]
    if len(named) != 1 or named[0] not in allowed:
        raise wrong("body", "the body must name just one action")
    return named[0], mapping(body[named[0]], named[0])


def _force(power: Power, options: Mapping[str, Any]) -> Force:
    if power is Power.START or options.get("type") is None:
        return Force.SOFT
    try:
        return Force(word(options["type"], "type").upper())
    except ValueError:
        raise wrong("type") from None


def _server_ids(value: Any) -> tuple[str, ...]:
    named = objects(value, "servers", 1, MAX_BATCH)
    ids = tuple(uuid_of(server.get("id"), "id") for server in named)
    if len(set(ids)) != len(ids):
        raise wrong("servers", "a server is named twice")
    return ids


_PARSERS: Mapping[Operation, Callable[[Mapping[str, Any]], Task]] = {
    Operation.SERVER_ACTION: _parse_action,
    Operation.SERVER_BATCH_ACTION: _parse_batch,
    Operation.SERVER_LIST: servers.parse_list,
    Operation.SERVER_SHOW: servers.parse_show,
    Operation.SERVER_TAGS_LIST: servers.parse_list_tags,
    Operation.SERVER_TAGS_UPDATE: servers.parse_update_tags,
    Operation.IMAGE_LIST: images.parse_list,
    Operation.IMAGE_LIST_PRIVATE: images.parse_list_private,
    Operation.IMAGE_SHOW: images.parse_show,
    Operation.IMAGE_DELETE: images.parse_delete,
    Operation.IMAGE_BATCH_DELETE: images.parse_batch_delete,
    Operation.IMAGE_UPDATE: images.parse_update,
    Operation.ORDER_PLAN: parse_plan,
}

"""The table of operations: what the worker has to know of each kind of request, in one place.

An operation has its request's model, and a row for each task that its message may ask for:
`server.action` has three. The module does not load while an operation, an order type or a task is
missing (`IncompleteTable`).
"""

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Literal, TypeVar

from messages.commands import (
    Command,
    CreateImage,
    Force,
    ImageBatchDelete,
    ImageDelete,
    ImageList,
    ImageListPrivate,
    ImageShow,
    ImageUpdate,
    OpenConsole,
    Operation,
    OrderPlan,
    OrderShow,
    Power,
    PowerAction,
    PowerBatch,
    ServerAction,
    ServerBatchAction,
    ServerList,
    ServerShow,
    ServerTagsList,
    ServerTagsUpdate,
    Task,
)
from messages.errors import wrong
from messages.fields import read, validated, word
from messages.orders import (
    Order,
    OrderChangeConfigure,
    OrderNew,
    OrderRenew,
    OrderSoftDown,
    OrderType,
    OrderUnsubscribe,
)
from messages.orders.new import with_secrets
from messages.orders.order import PaidOrder, is_soft_down
from messages.record import record
from messages.results import (
    CreatedImage,
    ImageOutcomes,
    OrderOutcome,
    OrderPreview,
    ServerConsole,
    ServerOutcomes,
    ShownRequest,
    SoftDownOutcome,
)
from messages.secrets import mask
from messages.views import Image, ImagePage, ServerPage, ServerTags, ShownServer

#: The types of work that the requests of commands and orders do not name themselves.
_TASKS = (PowerAction, PowerBatch, OpenConsole, CreateImage)
W = TypeVar("W", bound=Task | Order)


class IncompleteTable(TypeError):
    """An operation, an order type or a task has no row."""


class Mode(Enum):
    """The way in which a request is kept."""

    #: Changes nothing and is not journaled: a repeat is looked up afresh.
    READ = "read"
    #: As `READ`, but its answer is confidential: it needs a `message_id` and a `reply_to`.
    CONFIDENTIAL = "confidential"
    #: Journaled under its key: carried out once, a repeat gets the same result.
    CHANGE = "change"


class Finals(Enum):
    """The final status updates that a request owes, one for each of its resources."""

    NONE = "none"
    #: Written with the result: the request ends with its only resource.
    WITH_RESULT = "with_result"
    #: Written as each resource ends, which may be long before the whole request does.
    EACH = "each"


@record
class Resource:
    """A server or an image that gets status updates; `action` is that of its updates."""

    kind: Literal["server", "image"]
    id: str
    action: str | None


@record
class TaskSpec:
    """A row: what is so of every task of one type.

    `answer` is the type of a successful result's `data`; `locks` gives the names of the server
    locks that a task needs, `resources` the resources known beforehand that get status updates (an
    image or a server that is only made is not among them).
    """

    task: type[Any]
    answer: Any
    mode: Mode
    finals: Finals
    locks: Callable[[Any], tuple[str, ...]]
    resources: Callable[[Any], tuple[Resource, ...]]

    @property
    def is_journaled(self) -> bool:
        """Tell whether the request is written to the journal."""
        return self.mode is Mode.CHANGE


@record
class OperationSpec:
    """An operation: the model of its message's body, and its tasks."""

    request: type[Command] | type[Order]
    tasks: tuple[TaskSpec, ...]

    @property
    def changes_nothing(self) -> bool:
        """Tell whether none of its tasks changes anything: it is a read, whatever its message says."""
        return not any(task.is_journaled for task in self.tasks)


#: Appended to a server's id in the name of its second lock.
_HARD = " hard"


def _row(
    task: type[W],
    answer: Any,
    mode: Mode,
    finals: Finals,
    *,
    locks: Callable[[W], tuple[str, ...]],
    resources: Callable[[W], tuple[Resource, ...]],
) -> TaskSpec:
    return TaskSpec(task, answer, mode, finals, locks, resources)


def _nothing(_: Any) -> tuple[()]:
    return ()


def _read(request: type[Command], answer: Any) -> OperationSpec:
    row = TaskSpec(request, answer, Mode.READ, Finals.NONE, _nothing, _nothing)
    return OperationSpec(request, (row,))


def _order(order: type[Order], answer: Any = OrderOutcome) -> OperationSpec:
    row = _row(
        order,
        answer,
        Mode.CHANGE,
        Finals.EACH,
        locks=lambda one: _locks(one.instance_ids),
        resources=lambda one: tuple(
            Resource("server", server, None) for server in one.instance_ids
        ),
    )
    return OperationSpec(order, (row,))


def _locks(server_ids: Iterable[str]) -> tuple[str, ...]:
    """Both locks of each server."""
    return tuple(one + end for one in server_ids for end in ("", _HARD))


def _power_locks(server_ids: Iterable[str], power: Power, force: Force) -> tuple[str, ...]:
    """Both locks of each server; one of them for a reboot.

    A hard reboot does not wait for a soft one, which may hang: a soft one takes the first lock
    alone, a hard one the second alone, and everything else both.
    """
    if power is not Power.REBOOT:
        return _locks(server_ids)
    return tuple(one + (_HARD if force is Force.HARD else "") for one in server_ids)


#: Every operation and every order type.
OPERATIONS: dict[Operation | OrderType, OperationSpec] = {
    Operation.SERVER_ACTION: OperationSpec(
        ServerAction,
        (
            _row(
                PowerAction,
                None,
                Mode.CHANGE,
                Finals.WITH_RESULT,
                locks=lambda one: _power_locks((one.server_id,), one.power, one.force),
                resources=lambda one: (Resource("server", one.server_id, one.power.value),),
            ),
            _row(
                OpenConsole,
                ServerConsole,
                Mode.CONFIDENTIAL,
                Finals.NONE,
                locks=_nothing,
                resources=_nothing,
            ),
            _row(
                CreateImage,
                CreatedImage,
                Mode.CHANGE,
                Finals.EACH,
                locks=lambda one: _locks((one.server_id,)),
                resources=_nothing,
            ),
        ),
    ),
    Operation.SERVER_BATCH_ACTION: OperationSpec(
        ServerBatchAction,
        (
            _row(
                PowerBatch,
                ServerOutcomes,
                Mode.CHANGE,
                Finals.EACH,
                locks=lambda one: _power_locks(one.server_ids, one.power, one.force),
                resources=lambda one: tuple(
                    Resource("server", server, one.power.value) for server in one.server_ids
                ),
            ),
        ),
    ),
    Operation.SERVER_LIST: _read(ServerList, ServerPage),
    Operation.SERVER_SHOW: _read(ServerShow, ShownServer),
    Operation.SERVER_TAGS_LIST: _read(ServerTagsList, ServerTags),
    Operation.SERVER_TAGS_UPDATE: OperationSpec(
        ServerTagsUpdate,
        (
            _row(
                ServerTagsUpdate,
                None,
                Mode.CHANGE,
                Finals.NONE,
                locks=lambda one: _locks((one.server_id,)),
                resources=_nothing,
            ),
        ),
    ),
    Operation.IMAGE_LIST: _read(ImageList, ImagePage),
    Operation.IMAGE_LIST_PRIVATE: _read(ImageListPrivate, ImagePage),
    Operation.IMAGE_SHOW: _read(ImageShow, Image),
    Operation.IMAGE_DELETE: OperationSpec(
        ImageDelete,
        (
            _row(
                ImageDelete,
                Literal[""],
                Mode.CHANGE,
                Finals.WITH_RESULT,
                locks=_nothing,
                resources=lambda one: (Resource("image", one.image_id, None),),
            ),
        ),
    ),
    Operation.IMAGE_BATCH_DELETE: OperationSpec(
        ImageBatchDelete,
        (
            _row(
                ImageBatchDelete,
                ImageOutcomes,
                Mode.CHANGE,
                Finals.EACH,
                locks=_nothing,
                resources=lambda one: tuple(
                    Resource("image", image, None) for image in one.image_ids
                ),
            ),
        ),
    ),
    Operation.IMAGE_UPDATE: OperationSpec(
        ImageUpdate,
        (
            _row(
                ImageUpdate,
                Literal[""],
                Mode.CHANGE,
                Finals.NONE,
                locks=_nothing,
                resources=_nothing,
            ),
        ),
    ),
    Operation.ORDER_PLAN: _read(OrderPlan, OrderPreview),
    Operation.ORDER_SHOW: _read(OrderShow, ShownRequest),
    OrderType.CHANGE_CONFIGURE: _order(OrderChangeConfigure),
    OrderType.NEW: _order(OrderNew),
    OrderType.RENEW: _order(OrderRenew),
    OrderType.UNSUBSCRIBE: _order(OrderUnsubscribe),
    OrderType.SOFT_DOWN: _order(OrderSoftDown, SoftDownOutcome),
}


def _by_task() -> dict[type[Any], TaskSpec]:
    found = {row.task: row for spec in OPERATIONS.values() for row in spec.tasks}
    wanted = {*Operation, *OrderType, *_TASKS}
    if missing := wanted - OPERATIONS.keys() - found.keys():
        raise IncompleteTable(f"without a row: {', '.join(sorted(map(str, missing)))}")
    return found


#: The rows by the type of their task.
TASKS = _by_task()


def spec_of(task: Task | Order) -> TaskSpec:
    """Return the row of a task or an order."""
    return TASKS[type(task)]


_COMMANDS = {
    key.value: spec.request
    for key, spec in OPERATIONS.items()
    if isinstance(key, Operation) and issubclass(spec.request, Command)
}
_ORDERS = {
    key.value: spec.request
    for key, spec in OPERATIONS.items()
    if isinstance(key, OrderType) and issubclass(spec.request, PaidOrder)
}


def parse_command(message: Mapping[str, Any], routing_key: str) -> Command:
    """Return the command in a message's body, or raise `Refused` naming the parameter that is
    wrong.
    """
    if message.get("operation") != routing_key:
        raise wrong("operation", "the operation is not the routing key")
    model = _COMMANDS.get(routing_key)
    if model is None:
        raise wrong("operation", "there is no such operation")
    return validated(model, message)


def parse_order(message: Mapping[str, Any]) -> Order:
    """Return the order in a message's body, or raise `Refused` naming the field that is wrong. Its
    `ordered` is without secrets.
    """
    shown = mask(dict(message))
    if is_soft_down(message):
        return validated(OrderSoftDown, {**shown, "ordered": shown})
    model = _ORDERS.get(read(word, shown.get("orderType"), "orderType"))
    if model is None:
        raise wrong("orderType", "there is no such order")
    given = with_secrets(shown, message) if model is OrderNew else shown
    return validated(model, {**given, "ordered": shown})

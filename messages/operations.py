"""The table of operations: what the worker has to know of each kind of request, in one place.

An operation has a row for each task that its message may ask for: `server.action` has three. The
module does not load while an operation, an order type or a task is missing (`IncompleteTable`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeVar, get_args

from messages.commands import Force, OpenConsole, Operation, Power, PowerAction, PowerBatch, Task
from messages.images import (
    CreateImage,
    ImageBatchDelete,
    ImageDelete,
    ImageList,
    ImageListPrivate,
    ImageShow,
    ImageUpdate,
)
from messages.orders import (
    Order,
    OrderChangeConfigure,
    OrderNew,
    OrderPlan,
    OrderRenew,
    OrderSoftDown,
    OrderType,
    OrderUnsubscribe,
)
from messages.servers import ServerList, ServerShow, ServerTagsList, ServerTagsUpdate

#: Every type of work: tasks of commands, and orders.
Work = Task | OrderChangeConfigure | OrderNew | OrderRenew | OrderUnsubscribe | OrderSoftDown
W = TypeVar("W", bound=Task | Order)


class IncompleteTable(TypeError):
    """An operation, an order type or a task has no row."""


class Mode(Enum):
    """How a request is kept."""

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


@dataclass(frozen=True, slots=True)
class Resource:
    """A server or an image that gets status updates; `action` is that of its updates."""

    kind: Literal["server", "image"]
    id: str
    action: str | None


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A row: what is so of every task of one type.

    `locks` gives the names of the server locks that a task needs, `resources` the resources known
    beforehand that get status updates (an image or a server that is only made is not among them).
    """

    task: type[Any]
    mode: Mode
    finals: Finals
    locks: Callable[[Any], tuple[str, ...]]
    resources: Callable[[Any], tuple[Resource, ...]]

    @property
    def is_journaled(self) -> bool:
        """Tell whether the request is written to the journal."""
        return self.mode is Mode.CHANGE


#: Appended to a server's id in the name of its second lock.
_HARD = " hard"


def _row(
    task: type[W],
    mode: Mode,
    finals: Finals,
    locks: Callable[[W], tuple[str, ...]],
    resources: Callable[[W], tuple[Resource, ...]],
) -> TaskSpec:
    return TaskSpec(task, mode, finals, locks, resources)


def _nothing(_: Any) -> tuple[()]:
    return ()


def _read(task: type[Task], mode: Mode = Mode.READ) -> TaskSpec:
    return _row(task, mode, Finals.NONE, _nothing, _nothing)


def _order(order: type[Order]) -> TaskSpec:
    return _row(
        order,
        Mode.CHANGE,
        Finals.EACH,
        lambda one: _locks(one.instance_ids),
        lambda one: tuple(Resource("server", server, None) for server in one.instance_ids),
    )


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


#: Every operation with its rows, and every order type.
OPERATIONS: dict[Operation | OrderType, tuple[TaskSpec, ...]] = {
    Operation.SERVER_ACTION: (
        _row(
            PowerAction,
            Mode.CHANGE,
            Finals.WITH_RESULT,
            lambda one: _power_locks((one.server_id,), one.power, one.force),
            lambda one: (Resource("server", one.server_id, one.power.value),),
        ),
        _read(OpenConsole, Mode.CONFIDENTIAL),
        _row(
            CreateImage,
            Mode.CHANGE,
            Finals.EACH,
            lambda one: _locks((one.server_id,)),
            _nothing,
        ),
    ),
    Operation.SERVER_BATCH_ACTION: (
        _row(
            PowerBatch,
            Mode.CHANGE,
            Finals.EACH,
            lambda one: _power_locks(one.server_ids, one.power, one.force),
            lambda one: tuple(
                Resource("server", server, one.power.value) for server in one.server_ids
            ),
        ),
    ),
    Operation.SERVER_LIST: (_read(ServerList),),
    Operation.SERVER_SHOW: (_read(ServerShow),),
    Operation.SERVER_TAGS_LIST: (_read(ServerTagsList),),
    Operation.SERVER_TAGS_UPDATE: (
        _row(
            ServerTagsUpdate,
            Mode.CHANGE,
            Finals.NONE,
            lambda one: _locks((one.server_id,)),
            _nothing,
        ),
    ),
    Operation.IMAGE_LIST: (_read(ImageList),),
    Operation.IMAGE_LIST_PRIVATE: (_read(ImageListPrivate),),
    Operation.IMAGE_SHOW: (_read(ImageShow),),
    Operation.IMAGE_DELETE: (
        _row(
            ImageDelete,
            Mode.CHANGE,
            Finals.WITH_RESULT,
            _nothing,
            lambda one: (Resource("image", one.image_id, None),),
        ),
    ),
    Operation.IMAGE_BATCH_DELETE: (
        _row(
            ImageBatchDelete,
            Mode.CHANGE,
            Finals.EACH,
            _nothing,
            lambda one: tuple(Resource("image", image, None) for image in one.image_ids),
        ),
    ),
    Operation.IMAGE_UPDATE: (_row(ImageUpdate, Mode.CHANGE, Finals.NONE, _nothing, _nothing),),
    Operation.ORDER_PLAN: (_read(OrderPlan),),
    OrderType.CHANGE_CONFIGURE: (_order(OrderChangeConfigure),),
    OrderType.NEW: (_order(OrderNew),),
    OrderType.RENEW: (_order(OrderRenew),),
    OrderType.UNSUBSCRIBE: (_order(OrderUnsubscribe),),
    OrderType.SOFT_DOWN: (_order(OrderSoftDown),),
}


def _by_task() -> dict[type[Any], TaskSpec]:
    found = {row.task: row for rows in OPERATIONS.values() for row in rows}
    wanted = {*Operation, *OrderType, *get_args(Work)}
    if missing := wanted - OPERATIONS.keys() - found.keys():
        raise IncompleteTable(f"without a row: {', '.join(sorted(map(str, missing)))}")
    return found


#: The rows by the type of their task.
TASKS = _by_task()


def spec_of(task: Task | Order) -> TaskSpec:
    """Return the row of a task or an order."""
    return TASKS[type(task)]

"""The operations as typed methods: each is stated once, for threads and for asyncio.

Every method takes what may be said with every request (`Options`), too. Those whose answer has no
data return the `Reply`. A failure is raised by its code (`RequestFailed`).
"""

import functools
import json
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, Unpack

from pydantic import BaseModel

from ecs_client.errors import EcsError, NoAnswer
from ecs_client.options import Options, Who
from ecs_client.reply import Reply
from ecs_client.streams import AsyncStream, StatusEvent, Stream
from messages.commands import Operation
from messages.record import record
from messages.results import (
    ConsoleUrl,
    CreatedImage,
    ImageOutcomes,
    OrderPreview,
    RequestState,
    ServerConsole,
    ServerOutcomes,
    ShownRequest,
    TargetOutcome,
)
from messages.updates import ORDER_WORDS, OrderStatus
from messages.views import Image, ImagePage, ServerDetails, ServerPage, ServerTags, ShownServer

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Force = Literal["SOFT", "HARD"]
Order = Mapping[str, Any] | bytes | str
#: Seconds without an update after which an order that is followed is looked at.
_LOOK_AGAIN = 30.0


@record
class Ask(Generic[T]):
    """A command, and how its reply is read."""

    operation: Operation
    fields: Mapping[str, Any]
    read: Callable[[Reply], T]
    options: Options


def _data_of(model: type[M]) -> Callable[[Reply], M]:
    return lambda reply: model.model_validate(reply.result())


def _succeeded(reply: Reply) -> Reply:
    reply.result()
    return reply


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


# Servers.


def list_servers(
    page: int = 1,
    size: int = 10,
    *,
    search: str | None = None,
    search_field: str | None = None,
    sort: str | None = None,
    descending: bool = True,
    **options: Unpack[Options],
) -> Ask[ServerPage]:
    """Return a page of the tenant's servers, `size` 1..100.

    `search_field` is name, ip, uuid or status; without it `search` is looked for in name, id and
    addresses. `sort` is name, createTime or status.
    """
    fields = _given(
        pageNo=page,
        pageSize=size,
        searchValue=search,
        searchField=search_field,
        sortField=sort,
        sortOrder="descend" if descending else "ascend",
    )
    return Ask(Operation.SERVER_LIST, fields, _data_of(ServerPage), options)


def show_server(server_id: str, **options: Unpack[Options]) -> Ask[ServerDetails]:
    """Return a server."""
    read = _data_of(ShownServer)
    return Ask(
        Operation.SERVER_SHOW, {"server_id": server_id}, lambda reply: read(reply).server, options
    )


def start(server_id: str, **options: Unpack[Options]) -> Ask[Reply]:
    """Start a server that is off."""
    return _act(server_id, {"os-start": {}}, _succeeded, options)


def stop(server_id: str, type: Force = "SOFT", **options: Unpack[Options]) -> Ask[Reply]:
    """Stop a server that runs."""
    return _act(server_id, {"os-stop": {"type": type}}, _succeeded, options)


def reboot(server_id: str, type: Force = "SOFT", **options: Unpack[Options]) -> Ask[Reply]:
    """Reboot a server."""
    return _act(server_id, {"reboot": {"type": type}}, _succeeded, options)


def console(server_id: str, type: str = "novnc", **options: Unpack[Options]) -> Ask[ConsoleUrl]:
    """Return the URL of a server's console, which holds a short-lived token."""
    read = _data_of(ServerConsole)
    body = {"os-getVNCConsole": {"type": type}}
    return _act(server_id, body, lambda reply: read(reply).console, options)


def create_image(
    server_id: str,
    name: str,
    description: str,
    metadata: Mapping[str, str] | None = None,
    **options: Unpack[Options],
) -> Ask[str]:
    """Make an image of a server, and return its id; `metadata` become its properties."""
    read = _data_of(CreatedImage)
    body = {"createImage": _given(name=name, description=description, metadata=metadata)}
    return _act(server_id, body, lambda reply: read(reply).image_id, options)


def start_all(server_ids: Iterable[str], **options: Unpack[Options]) -> Ask[list[TargetOutcome]]:
    """Start up to 100 servers: all, or none is begun."""
    return _act_on_all(server_ids, "os-start", {}, options)


def stop_all(
    server_ids: Iterable[str],
    type: Force = "SOFT",
    **options: Unpack[Options],
) -> Ask[list[TargetOutcome]]:
    """Stop up to 100 servers: all, or none is begun."""
    return _act_on_all(server_ids, "os-stop", {"type": type}, options)


def reboot_all(
    server_ids: Iterable[str],
    type: Force = "SOFT",
    **options: Unpack[Options],
) -> Ask[list[TargetOutcome]]:
    """Reboot up to 100 servers: all, or none is begun."""
    return _act_on_all(server_ids, "reboot", {"type": type}, options)


def list_tags(server_id: str, **options: Unpack[Options]) -> Ask[list[str]]:
    """Return a server's tags."""
    read = _data_of(ServerTags)
    fields = {"server_id": server_id}
    return Ask(Operation.SERVER_TAGS_LIST, fields, lambda reply: read(reply).tags, options)


def set_tags(server_id: str, tags: Iterable[str] | str, **options: Unpack[Options]) -> Ask[Reply]:
    """Replace a server's tags; a text holds several, separated by commas."""
    joined = tags if isinstance(tags, str) else ",".join(tags)
    fields = {"server_id": server_id, "tags": joined}
    return Ask(Operation.SERVER_TAGS_UPDATE, fields, _succeeded, options)


def _act(
    server_id: str, body: Mapping[str, Any], read: Callable[[Reply], T], options: Options
) -> Ask[T]:
    return Ask(Operation.SERVER_ACTION, {"server_id": server_id, "body": body}, read, options)


def _act_on_all(
    server_ids: Iterable[str], action: str, settings: Mapping[str, Any], options: Options
) -> Ask[list[TargetOutcome]]:
    body = {action: {"servers": [{"id": one} for one in server_ids], **settings}}
    read = _data_of(ServerOutcomes)
    return Ask(
        Operation.SERVER_BATCH_ACTION, {"body": body}, lambda reply: read(reply).servers, options
    )


# Images.


def list_images(
    page: int = 1,
    size: int = 10,
    *,
    search: str | None = None,
    sort: str | None = None,
    descending: bool = True,
    visibility: str | None = None,
    **options: Unpack[Options],
) -> Ask[ImagePage]:
    """Return a page of the images that the tenant may use.

    `search` is part of a name, or an id; `visibility` is public, private, shared or community.
    """
    fields = _given(
        page=page,
        pageSize=size,
        searchValue=search,
        sortField=sort,
        sortOrder="descend" if descending else "ascend",
        visibility=visibility,
    )
    return Ask(Operation.IMAGE_LIST, fields, _data_of(ImagePage), options)


def list_private_images(tag: str, **options: Unpack[Options]) -> Ask[ImagePage]:
    """Return all private images that carry a tag."""
    return Ask(Operation.IMAGE_LIST_PRIVATE, {"tag": tag}, _data_of(ImagePage), options)


def show_image(image_id: str, **options: Unpack[Options]) -> Ask[Image]:
    """Return an image."""
    return Ask(Operation.IMAGE_SHOW, {"image_id": image_id}, _data_of(Image), options)


def delete_image(image_id: str, **options: Unpack[Options]) -> Ask[Reply]:
    """Delete an image."""
    return Ask(Operation.IMAGE_DELETE, {"image_id": image_id}, _succeeded, options)


def delete_images(image_ids: Iterable[str], **options: Unpack[Options]) -> Ask[ImageOutcomes]:
    """Delete up to 100 images, and return what became of each."""
    fields = {"body": {"images": [{"id": one} for one in image_ids]}}
    return Ask(Operation.IMAGE_BATCH_DELETE, fields, _data_of(ImageOutcomes), options)


def update_image(
    image_id: str, patch: Sequence[Mapping[str, Any]], **options: Unpack[Options]
) -> Ask[Reply]:
    """Change an image by a JSON patch on /name, /description, /system, /systemType."""
    fields = {"image_id": image_id, "body": list(patch)}
    return Ask(Operation.IMAGE_UPDATE, fields, _succeeded, options)


# Orders.


def plan_order(order: Order, **options: Unpack[Options]) -> Ask[OrderPreview]:
    """Return what an order would do; nothing is done."""
    content = order if isinstance(order, Mapping) else json.loads(order)
    return Ask(Operation.ORDER_PLAN, {"order": content}, _data_of(OrderPreview), options)


def show_order(key: str, **options: Unpack[Options]) -> Ask[ShownRequest]:
    """Return how far an order or a command is, by its orderId, flowId or message_id."""
    return Ask(Operation.ORDER_SHOW, {"key": key}, _data_of(ShownRequest), options)


# The methods.


class _Client(Protocol):
    timeout: float

    def call(
        self, operation: str, fields: Mapping[str, Any] | None, **options: Unpack[Options]
    ) -> Reply: ...

    def updates(
        self,
        tenant: str | None = None,
        resource: str | None = None,
        id: str | None = None,
    ) -> Stream[StatusEvent]: ...

    def submit(self, order: Order, **options: Unpack[Options]) -> str: ...

    def execute(self, order: Order, **options: Unpack[Options]) -> Reply: ...


class _AsyncClient(Protocol):
    timeout: float

    async def call(
        self, operation: str, fields: Mapping[str, Any] | None, **options: Unpack[Options]
    ) -> Reply: ...

    def updates(
        self,
        tenant: str | None = None,
        resource: str | None = None,
        id: str | None = None,
    ) -> AsyncStream[StatusEvent]: ...

    async def submit(self, order: Order, **options: Unpack[Options]) -> str: ...

    async def execute(self, order: Order, **options: Unpack[Options]) -> Reply: ...


class _Area:
    def __init__(self, client: _Client) -> None:
        self._client = client


class _AsyncArea:
    def __init__(self, client: _AsyncClient) -> None:
        self._client = client


def _sync(ask: Callable[P, Ask[T]]) -> Callable[Concatenate[_Area, P], T]:
    """Return the method that publishes what `ask` returns, and reads the reply."""

    @functools.wraps(ask)
    def method(self: _Area, /, *args: P.args, **kwargs: P.kwargs) -> T:
        asked = ask(*args, **kwargs)
        return asked.read(self._client.call(asked.operation, asked.fields, **asked.options))

    return method


def _async(ask: Callable[P, Ask[T]]) -> Callable[Concatenate[_AsyncArea, P], Awaitable[T]]:
    """Return the same as `_sync`, for asyncio."""

    @functools.wraps(ask)
    async def method(self: _AsyncArea, /, *args: P.args, **kwargs: P.kwargs) -> T:
        asked = ask(*args, **kwargs)
        reply = await self._client.call(asked.operation, asked.fields, **asked.options)
        return asked.read(reply)

    return method


class Servers(_Area):
    """Servers."""

    list = _sync(list_servers)
    show = _sync(show_server)
    start = _sync(start)
    stop = _sync(stop)
    reboot = _sync(reboot)
    console = _sync(console)
    create_image = _sync(create_image)
    start_all = _sync(start_all)
    stop_all = _sync(stop_all)
    reboot_all = _sync(reboot_all)
    tags = _sync(list_tags)
    set_tags = _sync(set_tags)


class AsyncServers(_AsyncArea):
    """Servers."""

    list = _async(list_servers)
    show = _async(show_server)
    start = _async(start)
    stop = _async(stop)
    reboot = _async(reboot)
    console = _async(console)
    create_image = _async(create_image)
    start_all = _async(start_all)
    stop_all = _async(stop_all)
    reboot_all = _async(reboot_all)
    tags = _async(list_tags)
    set_tags = _async(set_tags)


class Images(_Area):
    """Images."""

    list = _sync(list_images)
    private = _sync(list_private_images)
    show = _sync(show_image)
    delete = _sync(delete_image)
    delete_all = _sync(delete_images)
    update = _sync(update_image)


class AsyncImages(_AsyncArea):
    """Images."""

    list = _async(list_images)
    private = _async(list_private_images)
    show = _async(show_image)
    delete = _async(delete_image)
    delete_all = _async(delete_images)
    update = _async(update_image)


class Orders(_Area):
    """Orders, and what becomes of them."""

    plan = _sync(plan_order)
    show = _sync(show_order)

    def submit(self, order: Order, **options: Unpack[Options]) -> str:
        """Publish an order or a softDown, and return its key: `orderId`, `flowId`.

        It has been taken by the broker then; what becomes of it is told by `follow`, and by
        `EcsClient.results`. Bytes and text go out as they are, unless the client's tenant or token
        is to be added. Raises `ValueError` for what is no order, and as `EcsClient.call`.
        """
        return self._client.submit(order, **options)

    def execute(self, order: Order, **options: Unpack[Options]) -> Reply:
        """Publish an order or a softDown and wait for its result, for `timeout` seconds
        (`math.inf`: as long as it takes; an order that is retried may take a day).

        The result is on the queue of order results, too. Raises as `submit`, and `NoAnswer`.
        """
        return self._client.execute(order, **options)

    def follow(
        self, key: str, *, timeout: float | None = None, **options: Unpack[Who]
    ) -> Iterator[StatusEvent]:
        """Return the updates of an order or a softDown from now on, up to its final one.

        An order that has ended already has its final update at once, made of what `show` says.
        Raises `NoAnswer` where it has not ended within `timeout` seconds (None: wait).
        """
        following = _Following(key, timeout)
        with self._client.updates(resource="order", id=key) as updates:
            updates.wait_until_consuming(following.left(self._client.timeout))
            while True:
                with suppress(EcsError):  # it may not be ours to look at: updates alone
                    if (event := following.ended(self.show(key, **options))) is not None:
                        yield event
                        return
                while (update := updates.next(following.left(_LOOK_AGAIN))) is not None:
                    yield update
                    if update.final:
                        return


class AsyncOrders(_AsyncArea):
    """Orders, and what becomes of them."""

    plan = _async(plan_order)
    show = _async(show_order)

    async def submit(self, order: Order, **options: Unpack[Options]) -> str:
        """Publish an order or a softDown, and return its key, as `Orders.submit`."""
        return await self._client.submit(order, **options)

    async def execute(self, order: Order, **options: Unpack[Options]) -> Reply:
        """Publish an order or a softDown and wait for its result, as `Orders.execute`."""
        return await self._client.execute(order, **options)

    async def follow(
        self,
        key: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as all methods of both clients
        **options: Unpack[Who],
    ) -> AsyncIterator[StatusEvent]:
        """Return the updates of an order, as `Orders.follow`."""
        following = _Following(key, timeout)
        async with self._client.updates(resource="order", id=key) as updates:
            await updates.wait_until_consuming(following.left(self._client.timeout))
            while True:
                with suppress(EcsError):
                    if (event := following.ended(await self.show(key, **options))) is not None:
                        yield event
                        return
                while (update := await updates.next(following.left(_LOOK_AGAIN))) is not None:
                    yield update
                    if update.final:
                        return


class _Following:
    """An order that is followed."""

    def __init__(self, key: str, timeout: float | None) -> None:
        self._key = key
        self._until = None if timeout is None else time.monotonic() + timeout

    def left(self, longest: float) -> float:
        """Return for how long to wait next. Raises `NoAnswer` where the time is over."""
        if self._until is None:
            return longest
        left = self._until - time.monotonic()
        if left <= 0:
            raise NoAnswer(f"{self._key} has not ended in time; it may be followed again")
        return min(left, longest)

    def ended(self, shown: ShownRequest) -> StatusEvent | None:
        """Return the final update of an order that is done; None of one that is not."""
        if shown.state is not RequestState.DONE or shown.result is None:
            return None
        succeeded = isinstance(shown.result.code, int)
        status = OrderStatus.SUCCEEDED if succeeded else OrderStatus.FAILED
        return StatusEvent(
            resource="order",
            id=self._key,
            operation=shown.operation,
            action=None,
            status=status,
            translation=ORDER_WORDS[status],
            final=True,
            message_id=None,
            time=shown.updated_at,
            progress=shown.progress or 0,
        )

"""Status updates and order results as iterators, for threads and for asyncio."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import field
from typing import Any, Generic, TypeVar

from pydantic import Field, ValidationError

from ecs_client.errors import ClientClosed
from ecs_client.subscriptions import Delivery, Source, Subscription, Subscriptions
from messages.record import record
from messages.updates import StatusUpdate

log = logging.getLogger("ecs_client")
T = TypeVar("T")


class StatusEvent(StatusUpdate):
    """A status update, with its event id: the same update always has the same one."""

    event_id: str = Field("", exclude=True)
    #: The update as it came.
    body: bytes = Field(b"", exclude=True, repr=False)
    # Workers of an earlier version do not name them.
    tenant_id: str | None = None
    user_id: str | None = None


@record
class OrderResult:
    """The result of an order, from the queue of order results."""

    #: The envelope verbatim.
    body: bytes = field(repr=False)
    #: The same result always has the same one.
    message_id: str | None
    #: The order's `correlation_id`, else its `message_id`.
    correlation_id: str | None
    #: `order.<orderType>`
    operation: str
    #: It was delivered before, and not settled.
    is_redelivered: bool

    @property
    def envelope(self) -> dict[str, Any]:
        """The envelope, read: `code`, `message`, `data`."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def succeeded(self) -> bool:
        """True where the order was carried out."""
        return isinstance(self.envelope["code"], int)


def read_update(
    tenant: str | None, resource: str | None, resource_id: str | None
) -> Callable[[Delivery], StatusEvent | None]:
    """Return a reader of updates that are about what is named here; it returns None of others."""

    def read(delivery: Delivery) -> StatusEvent | None:
        try:
            content = json.loads(delivery.body)
            update = StatusEvent(**content, event_id=delivery.message_id or "", body=delivery.body)
        except (ValueError, TypeError, ValidationError):
            log.warning("ecs_client: an update that cannot be read: %s", delivery.message_id)
            return None
        is_meant = (
            tenant in (None, update.tenant_id)
            and resource in (None, update.resource)
            and resource_id in (None, update.id)
        )
        return update if is_meant else None

    return read


def read_order_result(delivery: Delivery) -> OrderResult:
    """Return the order result in a message."""
    return OrderResult(
        body=delivery.body,
        message_id=delivery.message_id,
        correlation_id=delivery.correlation_id,
        operation=delivery.routing_key,
        is_redelivered=delivery.is_redelivered,
    )


class Reader(Generic[T]):
    """Takes and settles the messages of a subscription: each when the next is asked for (`each`),
    or many at once.
    """

    def __init__(
        self, subscription: Subscription, read: Callable[[Delivery], T | None], *, each: bool
    ) -> None:
        self.subscription = subscription
        self._read = read
        self._each = each
        self._last: Delivery | None = None
        self._unsettled = 0

    def take(self) -> T | None:
        """Return the next; None where none has come yet. Raises the error that ended it."""
        if self._each:
            self.settle()
        while (delivery := self.subscription.take()) is not None:
            self._last = delivery
            self._unsettled += 1
            found = self._read(delivery)
            if not self._each and self._unsettled >= self.subscription.source.prefetch // 4:
                self.settle()
            if found is not None:
                return found
        self.settle()
        return None

    def settle(self) -> None:
        """Ack what was taken."""
        if self._last is not None:
            self.subscription.ack(self._last, multiple=not self._each)
            self._last = None
            self._unsettled = 0


class Stream(Generic[T]):
    """An iterator of what a subscription delivers, without end; a context manager.

    Leaving the loop by an exception or `break`, or closing the stream, gives back what was not
    settled: of order results the one that the body of the loop was given last.
    """

    def __init__(
        self, link: Subscriptions, source: Source, read: Callable[[Delivery], T | None], each: bool
    ) -> None:
        self._changed = threading.Event()
        self._reader = Reader(link.subscribe(source, self._changed.set), read, each=each)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        try:
            found = self.next(None)
        except ClientClosed:
            if self._reader.subscription.is_closed:
                raise StopIteration from None
            raise
        assert found is not None
        return found

    def next(self, timeout: float | None) -> T | None:
        """Return the next; None where none comes within `timeout` seconds (None: wait)."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            self._changed.clear()
            if self._reader.subscription.is_closed:
                raise ClientClosed("the stream is closed")
            if (found := self._reader.take()) is not None:
                return found
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return None
            self._changed.wait(left)

    def wait_until_consuming(self, timeout: float) -> bool:
        """Wait until what is published from now on is heard; False after `timeout` seconds."""
        until = time.monotonic() + timeout
        subscription = self._reader.subscription
        while subscription.channel is None and subscription.error is None:
            if (left := until - time.monotonic()) <= 0:
                return False
            self._changed.wait(left)
            self._changed.clear()
        return subscription.error is None

    def ack(self) -> None:
        """Settle what was given last; `break` then gives nothing back."""
        self._reader.settle()

    def close(self) -> None:
        """End the stream."""
        self._reader.subscription.close()
        self._changed.set()

    def __enter__(self) -> "Stream[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_reader"):
            self._reader.subscription.close()


class _Bell:
    """Wakes a coroutine from another thread; one call of the loop for many rings."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()
        self._is_rung = False

    def ring(self) -> None:
        """Wake the coroutine; from any thread."""
        if not self._is_rung:
            self._is_rung = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        """Wait until it rings."""
        await self._event.wait()
        self._event.clear()
        self._is_rung = False


class AsyncStream(Generic[T]):
    """The same as `Stream`, for asyncio."""

    def __init__(
        self, link: Subscriptions, source: Source, read: Callable[[Delivery], T | None], each: bool
    ) -> None:
        self._bell = _Bell(asyncio.get_running_loop())
        self._reader = Reader(link.subscribe(source, self._bell.ring), read, each=each)

    @property
    def epoch(self) -> int:
        """Counts the connections; 0 before the first. What is published while there is none is
        heard later, unless that takes more than a minute.
        """
        return self._reader.subscription.epoch

    @property
    def is_consuming(self) -> bool:
        """True while the stream hears what is published."""
        return self._reader.subscription.channel is not None

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            found = await self.next(None)
        except ClientClosed:
            if self._reader.subscription.is_closed:
                raise StopAsyncIteration from None
            raise
        assert found is not None
        return found

    async def next(self, within: float | None) -> T | None:
        """Return the next; None where none comes within so many seconds (None: wait)."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while True:
                    if self._reader.subscription.is_closed:
                        raise ClientClosed("the stream is closed")
                    if (found := self._reader.take()) is not None:
                        return found
                    await self._bell.wait()
        return None

    async def wait_until_consuming(self, within: float | None = None) -> bool:
        """Wait until what is published from now on is heard; False after so many seconds."""
        subscription = self._reader.subscription
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while subscription.channel is None and subscription.error is None:
                    await self._bell.wait()
        self._bell.ring()  # what it has heard meanwhile is still to be taken
        return subscription.channel is not None

    async def ack(self) -> None:
        """Settle what was given last; `break` then gives nothing back."""
        self._reader.settle()

    async def close(self) -> None:
        """End the stream."""
        self._reader.subscription.close()
        self._bell.ring()

    async def __aenter__(self) -> "AsyncStream[T]":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __del__(self) -> None:
        if hasattr(self, "_reader"):
            self._reader.subscription.close()

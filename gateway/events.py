"""Server-Sent Events: each tenant's status updates, from one subscription for all of them."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import Receive, Scope, Send

from messages.record import record
from messages.wire import encode

#: Seconds between two signs of life of a stream.
HEARTBEAT = 15.0
#: Updates of one tenant, and bytes of all tenants', that a stream can be resumed from; and seconds.
KEPT, KEPT_BYTES, KEPT_SECONDS = 1000, 16 * 1024 * 1024, 600.0
#: Bytes that wait for one reader before it is cut off.
MAX_BEHIND = 256 * 1024
#: Milliseconds after which a reader whose stream ended asks again.
_RETRY = 3000
_SIGN_OF_LIFE = b": heartbeat\n\n"
#: A function in a request's scope that closes its connection at once.
ABORT = "ecs.abort"


@record
class Event:
    """An update as it is sent. `at` is monotonic."""

    id: str
    tenant: str
    resource: str
    resource_id: str
    sent: bytes
    at: float


def update_event(
    update_id: str, tenant: str, resource: str, resource_id: str, body: bytes
) -> Event:
    """Return the event of an update; `body` is a JSON text."""
    data = b"\n".join(b"data: " + line for line in body.splitlines())
    sent = b"event: update\nid: %s\n%s\n\n" % (update_id.encode(), data)
    return Event(update_id, tenant, resource, resource_id, sent, time.monotonic())


def notice(name: str, reason: str) -> bytes:
    """Return an event without an id: the reader's `Last-Event-ID` stays as it is."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), encode({"reason": reason}))


class Subscriber:
    """One stream: the updates that it subscribes to, and those that wait to be sent."""

    __slots__ = ("abort", "behind", "end", "is_cut", "resource", "resource_id", "waiting", "wake")

    def __init__(self, resource: str | None, resource_id: str | None) -> None:
        self.resource = resource
        self.resource_id = resource_id
        self.waiting: deque[bytes] = deque()
        self.behind = 0
        self.wake = asyncio.Event()
        #: Why it ends, once all that waits is sent.
        self.end: str | None = None
        self.is_cut = False
        self.abort: Callable[[], None] = lambda: None

    def wants(self, event: Event) -> bool:
        """Tell whether an event of its tenant is for it."""
        return self.resource in (None, event.resource) and self.resource_id in (
            None,
            event.resource_id,
        )

    def push(self, sent: bytes) -> bool:
        """Have something sent. A reader that is too far behind is cut off, and True is returned:
        what it misses it gets when it resumes.
        """
        if self.is_cut:
            return False
        self.waiting.append(sent)
        self.behind += len(sent)
        self.wake.set()
        if self.behind > MAX_BEHIND:
            self.is_cut = True
            self.waiting.clear()
            self.abort()
        return self.is_cut

    def finish(self, reason: str) -> None:
        """End the stream after what waits."""
        self.end = reason
        self.wake.set()

    def take(self) -> bytes:
        """Return all that waits."""
        found = b"".join(self.waiting)
        self.waiting.clear()
        self.behind = 0
        self.wake.clear()
        return found


class Updates:
    """The updates of the last minutes by tenant, and the streams that hear of new ones."""

    def __init__(self) -> None:
        self._kept: dict[str, OrderedDict[str, Event]] = {}
        #: Of all tenants, oldest first.
        self._order: OrderedDict[tuple[str, str], Event] = OrderedDict()
        self._bytes = 0
        self._subscribers: dict[str, set[Subscriber]] = {}
        #: Streams, and those that were cut off.
        self.streams = self.cut = 0

    def publish(self, event: Event) -> None:
        """Keep an update and send it to its tenant's streams. One that came before is dropped."""
        kept = self._kept.setdefault(event.tenant, OrderedDict())
        if event.id in kept:
            return
        kept[event.id] = event
        self._order[event.tenant, event.id] = event
        self._bytes += len(event.sent)
        if len(kept) > KEPT:
            self._drop(next(iter(kept.values())))
        self.expire(event.at)
        for one in self._subscribers.get(event.tenant, ()):
            if one.wants(event):
                self.cut += one.push(event.sent)

    def expire(self, now: float) -> None:
        """Drop what is too old, or too much."""
        while self._order:
            oldest = next(iter(self._order.values()))
            if self._bytes <= KEPT_BYTES and oldest.at >= now - KEPT_SECONDS:
                return
            self._drop(oldest)

    def lose(self) -> None:
        """Tell all streams that updates may have been missed; none can be resumed across that."""
        self._kept.clear()
        self._order.clear()
        self._bytes = 0
        told = notice("gap", "broker_reconnected")
        for listed in self._subscribers.values():
            for one in listed:
                one.push(told)

    def finish(self, reason: str) -> None:
        """End all streams."""
        for listed in self._subscribers.values():
            for one in listed:
                one.finish(reason)

    @contextmanager
    def subscribed(
        self, tenant: str, one: Subscriber, last_event_id: str | None
    ) -> Iterator[Subscriber]:
        """Have a stream of a tenant's updates, those after `last_event_id` first."""
        if last_event_id is not None:
            self._resume(tenant, one, last_event_id)
        self._subscribers.setdefault(tenant, set()).add(one)
        self.streams += 1
        try:
            yield one
        finally:
            self.streams -= 1
            self._subscribers[tenant].discard(one)
            if not self._subscribers[tenant]:
                del self._subscribers[tenant]

    def _resume(self, tenant: str, one: Subscriber, last_event_id: str) -> None:
        kept = self._kept.get(tenant) or OrderedDict[str, Event]()
        if last_event_id not in kept:
            one.push(notice("gap", "unknown_last_event_id"))
            return
        is_later = False
        missed = []
        for event in kept.values():
            if is_later and one.wants(event):
                missed.append(event.sent)
            is_later = is_later or event.id == last_event_id
        # Joined, lest a reader be cut off for what it has missed.
        one.waiting.append(b"".join(missed))

    def _drop(self, event: Event) -> None:
        kept = self._kept[event.tenant]
        del kept[event.id], self._order[event.tenant, event.id]
        self._bytes -= len(event.sent)
        if not kept:
            del self._kept[event.tenant]


class EventStream:
    """The answer to a request for updates, an ASGI application; it ends at `until` (Unix seconds)."""

    def __init__(
        self, updates: Updates, tenant: str, subscriber: Subscriber, last_event_id: str | None
    ) -> None:
        self._updates = updates
        self._tenant = tenant
        self._subscriber = subscriber
        self._last_event_id = last_event_id

    async def serve(self, scope: Scope, receive: Receive, send: Send, until: float | None) -> None:
        """Send updates until the reader goes, or is to ask anew."""
        one = self._subscriber
        one.abort = scope.get(ABORT, one.abort)
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"x-accel-buffering", b"no"),
        ]
        gone = asyncio.create_task(_gone(receive, one))
        try:
            # Before the reader sees an answer: what it does then is heard.
            with self._updates.subscribed(self._tenant, one, self._last_event_id):
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await _send(send, b"retry: %d\n\n" % _RETRY + one.take())
                while not gone.done() and not one.is_cut:
                    if until is not None and time.time() >= until:
                        one.finish("token_expired")
                    if sent := one.take():
                        await _send(send, sent)
                    elif one.end is not None:
                        await _send(send, notice("end", one.end))
                        break
                    else:
                        await _wait(one, send, until)
            if not gone.done() and not one.is_cut:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()


async def _wait(one: Subscriber, send: Send, until: float | None) -> None:
    """Wait for something to send, with a sign of life where there is nothing."""
    limit = HEARTBEAT if until is None else min(HEARTBEAT, max(0.0, until - time.time()))
    try:
        async with asyncio.timeout(limit):
            await one.wake.wait()
    except TimeoutError:
        await _send(send, _SIGN_OF_LIFE)


async def _send(send: Send, body: bytes) -> None:
    message: dict[str, Any] = {"type": "http.response.body", "body": body, "more_body": True}
    await send(message)


async def _gone(receive: Receive, one: Subscriber) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    one.wake.set()

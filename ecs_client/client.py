"""The clients: `EcsClient` for threads, `AsyncEcsClient` for asyncio."""

import asyncio
import json
import os
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Unpack

from ecs_client.address import read_brokers
from ecs_client.errors import NoAnswer
from ecs_client.operations import (
    AsyncImages,
    AsyncOrders,
    AsyncServers,
    Images,
    Orders,
    Servers,
)
from ecs_client.options import Options
from ecs_client.publisher import Answer, Finish, Publication, Publisher
from ecs_client.reply import Reply
from ecs_client.streams import (
    AsyncStream,
    OrderResult,
    StatusEvent,
    Stream,
    read_order_result,
    read_update,
)
from ecs_client.subscriptions import Source, Subscriptions, own_queue
from ecs_client.tracing import continued

#: Updates that come before the first is acked.
_PREFETCH = 200
#: Seconds by which a thread waits longer for its answer than the link does.
_GRACE = 10.0


class Client:
    """The part that both clients have in common."""

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "ecs",
        tenant: str | None = None,
        user: str | None = None,
        token: str | Callable[[], str] | None = None,
        timeout: float = 35.0,
        broker_timeout: float = 10.0,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
    ) -> None:
        """Set the options; nothing is connected before the first request.

        `url` names one broker or several, separated by commas; `token` may be a function that
        returns one, called for each request. `timeout` is how many seconds an answer is waited
        for, `broker_timeout` how many for the broker to take a message. Raises `ValueError`.
        """
        self._brokers = read_brokers(url, ca_file, cert_file, key_file)
        self.namespace = namespace
        self.timeout = timeout
        self._broker_timeout = broker_timeout
        self._identity = {"tenant_id": tenant, "user_id": user}
        self._token = token
        self._is_closed = False
        self._links: dict[type[Any], Any] = {}
        self._linking = threading.Lock()
        self._pid = os.getpid()

    def __repr__(self) -> str:
        """Show it without secrets."""
        # The virtual host "/" as URLs write it.
        shown = (
            f"{one}/" if one.virtual_host == "/" else f"{one}" for one in self._brokers.endpoints
        )
        return f"{type(self).__name__}({', '.join(shown)}, namespace={self.namespace!r})"

    def _link(self, kind: type[Any]) -> Any:
        """Return the link of a kind; after a fork another one: threads and connections are the
        parent's.
        """
        if self._pid != os.getpid():
            self._pid, self._links, self._linking = os.getpid(), {}, threading.Lock()
        found = self._links.get(kind)
        if found is None:
            with self._linking:
                found = self._links.get(kind)
                if found is None:
                    found = self._links[kind] = kind(self._brokers)
                    # A client that nobody has any more, and the end of the program, close it.
                    weakref.finalize(self, found.stop)
                    if self._is_closed:
                        found.stop()
        return found

    @property
    def _publisher(self) -> Publisher:
        found: Publisher = self._link(Publisher)
        return found

    @property
    def _subscriptions(self) -> Subscriptions:
        found: Subscriptions = self._link(Subscriptions)
        return found

    @property
    def problem(self) -> str | None:
        """The reason why the broker takes no messages now, without secrets; None: nothing.
        Connects, where that was not begun.
        """
        link = self._publisher
        link.start()
        return None if link.may_publish else link.problem

    def _stop(self) -> None:
        self._is_closed = True
        for one in list(self._links.values()):
            one.stop()

    def _command(
        self,
        operation: str,
        fields: Mapping[str, Any] | bytes | str | None,
        options: Options,
        finish: Finish,
    ) -> Publication:
        """Return the publication of a command. A body given as bytes or text goes out as it is."""
        if isinstance(fields, bytes | str):
            body = fields.encode() if isinstance(fields, str) else fields
        else:
            body = _json({"operation": operation} | self._who(options) | dict(fields or {}))
        return self._publication(f"{self.namespace}.commands", operation, body, options, finish)

    def _who(self, options: Options) -> dict[str, Any]:
        """Return the fields that say who asks."""
        own = self._token() if callable(self._token) else self._token
        given = {
            "tenant_id": options.get("tenant") or self._identity["tenant_id"],
            "user_id": options.get("user") or self._identity["user_id"],
            "token": options.get("token") or own,
        }
        return {name: value for name, value in given.items() if value is not None}

    def _publication(
        self, exchange: str, routing_key: str, body: bytes, options: Options, finish: Finish
    ) -> Publication:
        headers = dict(options.get("headers") or {})
        if (deadline := options.get("deadline")) is not None:
            headers["x-ecs-deadline"] = str(int(deadline))
        message_id = options.get("message_id") or uuid.uuid4().hex
        for name in ("traceparent", "tracestate"):
            if (value := options.get(name)) is not None:
                headers[name] = value
        if "traceparent" not in headers:
            trace, end = continued(f"{routing_key} publish", exchange, message_id)
            headers |= trace
            finish = _ending(finish, end) if trace else finish
        now = time.monotonic()
        timeout = options.get("timeout")
        timeout = self.timeout if timeout is None else timeout
        return Publication(
            exchange=exchange,
            routing_key=routing_key,
            body=body,
            message_id=message_id,
            headers=headers,
            finish=finish,
            take_by=now + min(timeout, self._broker_timeout),
            answer_by=now + timeout,
        )

    def _order(
        self,
        order: Mapping[str, Any] | bytes | str,
        options: Options,
        finish: Finish,
        *,
        wants_reply: bool,
    ) -> tuple[str, Publication]:
        """Return an order's key, and its publication."""
        content = order if isinstance(order, Mapping) else json.loads(order)
        content = content if isinstance(content, Mapping) else {}
        is_soft_down = "instanceList" in content
        key = content.get("flowId" if is_soft_down else "orderId")
        kind = "softDown" if is_soft_down else content.get("orderType")
        if not isinstance(key, str) or not isinstance(kind, str) or not key.strip():
            raise ValueError("an order is an object with orderId and orderType, or with flowId")
        who = self._who(options)
        who.pop("user_id", None)  # an order names its own, as userId
        missing = {name: value for name, value in who.items() if not content.get(name)}
        if missing or isinstance(order, Mapping):
            body = _json({**content, **missing})
        else:
            body = order.encode() if isinstance(order, str) else order
        exchange, routing_key = f"{self.namespace}.orders", f"order.{kind.strip()}"
        found = self._publication(exchange, routing_key, body, options, finish)
        found.wants_reply = wants_reply
        return key.strip(), found

    def _status_source(self, resource: str | None, resource_id: str | None) -> Source:
        binding = f"{resource or '*'}.{resource_id or '#'}"
        return own_queue(f"{self.namespace}.status", binding, _PREFETCH)

    def _results_source(self, prefetch: int) -> Source:
        return Source(f"{self.namespace}.order-results", prefetch)


def _ending(finish: Finish, end: Callable[[], None]) -> Finish:
    """Return what finishes a publication and ends its span."""

    def both(answer: Answer | None, error: Exception | None) -> None:
        end()
        finish(answer, error)

    return both


class EcsClient(Client):
    """Asks the worker, from any number of threads; a context manager."""

    @property
    def servers(self) -> Servers:
        """The operations of servers."""
        return Servers(self)

    @property
    def images(self) -> Images:
        """The operations of images."""
        return Images(self)

    @property
    def orders(self) -> Orders:
        """Orders, and what becomes of them."""
        return Orders(self)

    def call(
        self,
        operation: str,
        fields: Mapping[str, Any] | bytes | str | None = None,
        **options: Unpack[Options],
    ) -> Reply:
        """Publish a command and wait for its reply.

        `fields` are the operation's parameters, or the whole body as bytes or text, which goes out
        as it is. A failure is a reply, too: `Reply.result` raises it.

        Raises `NoAnswer`, `BrokerUnavailable`, `Unroutable`, `ClientClosed`; `ValueError` or
        `TypeError` for what JSON or AMQP cannot say.
        """
        outcome = _Outcome()
        publication = self._command(operation, fields, options, outcome.set)
        answer = self._publish(publication, outcome)
        return Reply(answer.body, answer.headers, publication.message_id)

    def submit(self, order: Mapping[str, Any] | bytes | str, **options: Unpack[Options]) -> str:
        """Publish an order, as `orders.submit`."""
        outcome = _Outcome()
        key, publication = self._order(order, options, outcome.set, wants_reply=False)
        self._publish(publication, outcome)
        return key

    def execute(self, order: Mapping[str, Any] | bytes | str, **options: Unpack[Options]) -> Reply:
        """Publish an order and wait for its result, as `orders.execute`."""
        outcome = _Outcome()
        _, publication = self._order(order, options, outcome.set, wants_reply=True)
        answer = self._publish(publication, outcome)
        return Reply(answer.body, answer.headers, publication.message_id)

    def updates(
        self,
        tenant: str | None = None,
        resource: str | None = None,
        id: str | None = None,  # noqa: A002 - the field's word
    ) -> Stream[StatusEvent]:
        """Return the status updates from now on, those of a tenant's id, a kind of resource
        (server, image, order), an id alone where they are given.
        """
        source = self._status_source(resource, id)
        return Stream(self._subscriptions, source, read_update(tenant, resource, id), each=False)

    def results(self, prefetch: int = 10) -> Stream[OrderResult]:
        """Return the order results, each acked when the next is asked for.

        `prefetch` is how many this consumer is given before the first is acked.
        """
        source = self._results_source(prefetch)
        return Stream(self._subscriptions, source, read_order_result, each=True)

    def close(self) -> None:
        """Close the connections; what still waits ends with `ClientClosed`."""
        self._stop()

    def __enter__(self) -> "EcsClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _publish(self, publication: Publication, outcome: "_Outcome") -> Answer:
        link = self._publisher
        link.publish(publication)
        try:
            return outcome.wait(publication)
        except BaseException:
            link.forget(publication)
            raise


class AsyncEcsClient(Client):
    """The same as `EcsClient`, for asyncio; an asynchronous context manager."""

    _batch: "_Batch | None" = None

    @property
    def servers(self) -> AsyncServers:
        """The operations of servers."""
        return AsyncServers(self)

    @property
    def images(self) -> AsyncImages:
        """The operations of images."""
        return AsyncImages(self)

    @property
    def orders(self) -> AsyncOrders:
        """Orders, and what becomes of them."""
        return AsyncOrders(self)

    async def call(
        self,
        operation: str,
        fields: Mapping[str, Any] | bytes | str | None = None,
        **options: Unpack[Options],
    ) -> Reply:
        """Publish a command and wait for its reply, as `EcsClient.call`."""
        future, finish = self._future()
        publication = self._command(operation, fields, options, finish)
        answer = await self._publish(publication, future)
        return Reply(answer.body, answer.headers, publication.message_id)

    async def submit(
        self, order: Mapping[str, Any] | bytes | str, **options: Unpack[Options]
    ) -> str:
        """Publish an order, as `orders.submit`."""
        future, finish = self._future()
        key, publication = self._order(order, options, finish, wants_reply=False)
        await self._publish(publication, future)
        return key

    async def execute(
        self, order: Mapping[str, Any] | bytes | str, **options: Unpack[Options]
    ) -> Reply:
        """Publish an order and wait for its result, as `orders.execute`."""
        future, finish = self._future()
        _, publication = self._order(order, options, finish, wants_reply=True)
        answer = await self._publish(publication, future)
        return Reply(answer.body, answer.headers, publication.message_id)

    def updates(
        self,
        tenant: str | None = None,
        resource: str | None = None,
        id: str | None = None,  # noqa: A002 - the field's word
    ) -> AsyncStream[StatusEvent]:
        """Return the status updates from now on, as `EcsClient.updates`."""
        source, read = self._status_source(resource, id), read_update(tenant, resource, id)
        return AsyncStream(self._subscriptions, source, read, each=False)

    def results(self, prefetch: int = 10) -> AsyncStream[OrderResult]:
        """Return the order results, each acked when the next is asked for."""
        source = self._results_source(prefetch)
        return AsyncStream(self._subscriptions, source, read_order_result, each=True)

    async def close(self) -> None:
        """Close the connections; what still waits ends with `ClientClosed`."""
        await asyncio.to_thread(self._stop)

    async def __aenter__(self) -> "AsyncEcsClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _future(self) -> "tuple[asyncio.Future[Answer], Finish]":
        loop = asyncio.get_running_loop()
        batch = self._batch
        if batch is None or batch.loop is not loop:
            batch = self._batch = _Batch(loop)
        future: asyncio.Future[Answer] = loop.create_future()
        return future, lambda answer, error: batch.add((future, answer, error))

    async def _publish(self, publication: Publication, future: "asyncio.Future[Answer]") -> Answer:
        link = self._publisher
        link.publish(publication)
        try:
            return await future
        except asyncio.CancelledError:
            link.forget(publication)
            raise


class _Outcome:
    """A result that a thread waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._found: tuple[Answer | None, Exception | None] = (None, None)

    def set(self, answer: Answer | None, error: Exception | None) -> None:
        """Note the end of a publication, once."""
        self._found = answer, error
        self._lock.release()

    def wait(self, publication: Publication) -> Answer:
        """Return the answer, or raise the error."""
        left = max(0.0, publication.answer_by - time.monotonic())
        if not self._lock.acquire(timeout=min(left + _GRACE, threading.TIMEOUT_MAX)):
            raise NoAnswer("the client's thread does not answer", publication.message_id)
        answer, error = self._found
        if error is not None:
            raise error
        assert answer is not None
        return answer


_Ended = tuple["asyncio.Future[Answer]", Answer | None, Exception | None]


class _Batch:
    """Takes answers from the link's thread to a loop: one call of the loop for many."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._ended: deque[_Ended] = deque()
        self._is_called = False

    def add(self, ended: _Ended) -> None:
        """Note the end of a publication; from the link's thread."""
        self._ended.append(ended)
        if not self._is_called:
            self._is_called = True
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                self.loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._is_called = False
        while self._ended:
            future, answer, error = self._ended.popleft()
            if future.done():  # cancelled
                continue
            if error is not None:
                future.set_exception(error)
            else:
                assert answer is not None
                future.set_result(answer)


def _json(value: Any) -> bytes:
    """Return compact JSON. Raises `ValueError` or `TypeError` for what JSON cannot say."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

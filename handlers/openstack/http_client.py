"""HTTP on the loop: connections that are kept, and calls whose answers have a size and a time.

A call is `Transient` until its request is written, and whoever is told so may repeat it. From then
on it may have been carried out: `CallLost` says that its answer did not come.
"""

import asyncio
import select
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from handlers.effects.backoff import Deadline
from handlers.effects.concurrency import ACCOUNT, Tenant, ThreadPool
from handlers.openstack.errors import as_transient, described
from messages.errors import Ambiguous, Transient
from messages.record import record

#: Bytes of an answer; a page of a thousand servers is some megabytes.
MAX_ANSWER = 32 * 2**20
#: Bytes of an answer's status line and headers.
_MAX_HEAD = 2**16
#: Seconds after which an unused connection is not used again: firewalls forget it without a word.
#: For a change they are few: servers close unused connections (Apache after five seconds), and of a
#: change that meets the goodbye nobody could tell whether it was carried out.
_IDLE, _IDLE_BEFORE_CHANGE = 60.0, 1.0


@record
class CallTimes:
    """Time limits of one call, in seconds."""

    #: In which nothing comes, while connecting or between two bytes.
    silence: float
    #: From the request to the last byte of its answer.
    total: float


@record
class Proxy:
    """A proxy through which TLS is spoken with the service; `head` is sent to it with CONNECT."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    head: bytes


@record
class Origin:
    """The end of a connection. A service that is not asked by TLS is asked by way of a proxy as
    the proxy is: its host and port then stand here.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None
    proxy: Proxy | None

    @property
    def place(self) -> str:
        """The host and port, to be shown."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class CallLost(Exception):
    """A request was written, and its answer did not come whole (`no_answer`) or is not read
    (`bad_answer`). `late`: nothing at all came in time, so it may still be carried out.
    """

    def __init__(self, reason: str, detail: str, advice: str = "", *, late: bool = False) -> None:
        self._reason = reason
        self._advice = advice
        self._late = late
        super().__init__(detail)

    def as_error(self, *, mutating: bool) -> Transient:
        """Return the error that says what to do; `mutating`: the call was to change something."""
        if mutating:
            return Ambiguous(
                self._reason, detail=str(self), may_land_late=self._late, advice=self._advice
            )
        # Whoever reads asks again, whyever there was no answer.
        reason = "no_connection" if self._reason == "no_answer" else self._reason
        return Transient(reason, detail=str(self), advice=self._advice)


@dataclass(slots=True)
class Answer:
    """An answer as it came; headers by their names in lower case. `lost` says why there is none.

    `met_goodbye`: the server closed a connection that had been used before, and said nothing.
    """

    status: int
    headers: dict[str, str]
    body: bytearray
    lost: CallLost | None = None
    met_goodbye: bool = False


#: Called just before a request is written: returns until when it may be, or raises.
Guard = Callable[[], Awaitable[Deadline]]


class HttpClient:
    """Connections to all services, shared by all projects; so many calls at once as there are
    places, which tenants are given in turn.
    """

    def __init__(self, places: ThreadPool, times: CallTimes) -> None:
        self.places = places
        self._times = times
        #: Unused connections, the one used last at the end.
        self._unused: dict[Origin, list[HttpConnection]] = {}

    async def call(
        self,
        origin: Origin,
        request: bytes,
        guard: Guard | None = None,
        tenant: str = ACCOUNT,
    ) -> Answer:
        """Write a request and return its answer. `Transient` where it was not written, `CallLost`
        where it was. `tenant`: whose turn it is that the call waits for.

        A caller that is cancelled waits no longer. Its call takes up a place until it has ended: a
        change is under way as long.
        """
        is_change = not request.startswith(b"GET ")
        idle = _IDLE_BEFORE_CHANGE if is_change else _IDLE
        place = await self.places.acquire(tenant)
        try:
            connection = await self._connection(origin, idle)
            if guard is not None:
                connection = await self._guarded(connection, origin, guard)
        except BaseException:
            self.places.release(place)
            raise
        connection.place = place
        answer = await connection.call(request, self._ended)
        if answer.lost is None:
            return answer
        if answer.met_goodbye and not is_change:
            return await self.call(origin, request, tenant=tenant)
        raise answer.lost

    async def close(self) -> None:
        """Wait for the calls that are under way; none is begun any more."""
        await self.places.close()
        for connections in self._unused.values():
            for connection in connections:
                connection.close()
        self._unused.clear()

    async def _connection(self, origin: Origin, idle: float) -> "HttpConnection":
        """Return a connection that nobody else uses, and that has been unused for less than `idle`
        seconds.
        """
        unused = self._unused.setdefault(origin, [])
        while unused:
            connection = unused.pop()
            if connection.is_usable(idle):
                return connection
            connection.close()
        with as_transient("no_connection", origin.place):
            async with asyncio.timeout(self._times.silence):
                return await self._connect(origin)

    async def _guarded(
        self, connection: "HttpConnection", origin: Origin, guard: Guard
    ) -> "HttpConnection":
        """Return the connection, or another one if it was closed meanwhile, once the guard lets
        the request through.
        """
        try:
            send_by = await guard()
            if not connection.is_usable(_IDLE_BEFORE_CHANGE):
                connection.close()
                connection = await self._connection(origin, _IDLE_BEFORE_CHANGE)
            if send_by.passed:
                # The process stood still, or connecting took long: the right to send is to be
                # checked again.
                raise Transient("not_sent", detail="the time in which it might be sent is over")
        except BaseException:
            self._unused[origin].append(connection)
            raise
        return connection

    async def _connect(self, origin: Origin) -> "HttpConnection":
        proxy = origin.proxy
        protocol = await self._reach(origin, proxy if proxy is not None else origin)
        if proxy is None:
            return protocol
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        end = f"{host}:{origin.port}"
        request = f"CONNECT {end} HTTP/1.1\r\nHost: {end}\r\n".encode() + proxy.head + b"\r\n"
        try:
            answer = await protocol.call(request, lambda _: None, has_body=False)
            if answer.lost is not None:
                raise answer.lost
            if answer.status != 200:
                raise ConnectionError(f"the proxy answers {answer.status}")
            return await protocol.secured()
        except BaseException:
            protocol.close()
            raise

    async def _reach(self, origin: Origin, end: Origin | Proxy) -> "HttpConnection":
        """Connect to the first address of a name that answers; all of them share the time."""
        loop = asyncio.get_running_loop()
        # In the thread that belongs to the call's place: a name server that hangs must hold up
        # neither the journal nor the broker's connections.
        look_up = partial(socket.getaddrinfo, end.host, end.port, type=socket.SOCK_STREAM)
        found = await loop.run_in_executor(self.places.threads, look_up)
        failed: Exception = OSError(f"{end.host} has no address")
        for *_, address in found:
            try:
                async with asyncio.timeout(self._times.silence / len(found)):
                    _, protocol = await loop.create_connection(
                        lambda: HttpConnection(origin, self._times),
                        str(address[0]),
                        end.port,
                        ssl=end.tls,
                        server_hostname=end.host if end.tls is not None else None,
                    )
            except OSError as error:  # a time-out is one, too
                failed = error
            else:
                return protocol
        raise failed

    def _ended(self, connection: "HttpConnection") -> None:
        self.places.release(connection.place)
        if connection.is_open:
            self._unused[connection.origin].append(connection)


class HttpConnection(asyncio.Protocol):
    """A connection, used by one call at a time. The parser calls the methods `on_…`."""

    #: That of the call under way.
    place: Tenant
    _transport: asyncio.Transport
    _poll: select.poll

    def __init__(self, origin: Origin, times: CallTimes) -> None:
        self.origin = origin
        self._times = times
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        #: Of the call under way: who waits for its answer, and what is done at its end.
        self._waiting: asyncio.Future[Answer] | None = None
        self._on_end: Callable[[HttpConnection], None]
        self._answer: Answer
        self._has_body = True
        #: True where the server takes another call on this connection, and once it has had one.
        self._keeps = self._was_used = False
        #: How far its answer has come: bytes, the most that there may be, whether its length is
        #: known, whether it is whole.
        self._size, self._most, self._is_framed, self._is_whole = 0, 0, False, False
        #: When it must have ended, and when the last byte came, on the monotonic clock.
        self._until = self._heard_at = time.monotonic()
        self._timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    async def secured(self) -> "HttpConnection":
        """Begin TLS with the end behind a proxy; return the connection inside."""
        inside = HttpConnection(self.origin, self._times)
        tls = self.origin.tls
        assert tls is not None
        if not self.is_open:
            raise ConnectionError("the proxy closed the connection")
        transport = await self._loop.start_tls(
            self._transport, inside, tls, server_hostname=self.origin.host
        )
        if transport is None:
            raise ConnectionError("the proxy closed the connection")
        inside.connection_made(transport)
        return inside

    @property
    def is_open(self) -> bool:
        """True while it may be used once more."""
        return not self._transport.is_closing()

    def is_usable(self, idle: float) -> bool:
        """Tell whether a request may be written to it now: it has been unused for less than `idle`
        seconds.

        A server closes connections that are not used. Its goodbye may have come in this turn of
        the loop, which has not read it yet: a change that is written now would be lost, and nobody
        could tell.
        """
        return (
            not self._transport.is_closing()
            and time.monotonic() - self._heard_at < idle
            and not self._poll.poll(0)
        )

    def close(self) -> None:
        """Close it at once; a call that is under way is lost."""
        self._transport.abort()

    def call(
        self, request: bytes, on_end: "Callable[[HttpConnection], None]", *, has_body: bool = True
    ) -> "asyncio.Future[Answer]":
        """Write a request; the future has its answer. `on_end` is called when the call has ended,
        whether somebody waits for it or not.
        """
        self._waiting = waiting = self._loop.create_future()
        self._on_end, self._has_body = on_end, has_body
        self._answer = Answer(0, {}, bytearray())
        self._size, self._most, self._is_framed, self._is_whole = 0, _MAX_HEAD, False, False
        self._heard_at = now = time.monotonic()
        self._until = now + self._times.total
        self._timer = self._loop.call_later(
            min(self._times.silence, self._times.total), self._look_at_time
        )
        self._transport.write(request)
        return waiting

    # What comes.

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:
            self._transport.abort()  # nothing was asked
            return
        self._heard_at = time.monotonic()
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._keeps = False
            if self._answer.lost is None and not self._is_whole:
                self._answer.lost = CallLost("no_answer", *described(error, self.origin.place))
        if self._answer.lost is not None:
            self._end(keep=False)
        elif self._is_whole:
            self._end(keep=self._keeps)
        elif self._size > self._most:
            self._lose("bad_answer", f"the answer is longer than {self._most} bytes")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is None:
            return
        self._answer.met_goodbye = self._was_used and self._size == 0
        if exc is None and self._answer.status and not self._is_framed:
            self._end(keep=False)  # an answer without a length ends with the connection
        else:
            why = exc or ConnectionError("closed before the answer")
            self._lose("no_answer", *described(why, self.origin.place))

    def on_message_begin(self) -> None:
        if self._is_whole:
            raise ValueError("there is more than one answer")  # ends the parsing

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        status, headers = self._parser.get_status_code(), self._answer.headers
        if status < 200:
            headers.clear()  # another answer follows
            return
        self._answer.status = status
        self._most = MAX_ANSWER
        is_chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        self._is_framed = "content-length" in headers or is_chunked
        self._is_whole = self._keeps = not self._has_body
        if headers.get("content-encoding", "identity") != "identity":
            self._answer.lost = CallLost("bad_answer", "the answer is packed")

    def on_body(self, data: bytes) -> None:
        self._answer.body += data

    def on_message_complete(self) -> None:
        self._is_whole = self._answer.status > 0
        if self._has_body:  # a tunnel stays, whatever the proxy says of its answer
            self._keeps = self._parser.should_keep_alive()  # which is only known here

    # The end.

    def _look_at_time(self) -> None:
        now = time.monotonic()
        ends = min(self._until, self._heard_at + self._times.silence)
        if now < ends:
            self._timer = self._loop.call_later(ends - now, self._look_at_time)
            return
        text = "the answer takes too long" if now >= self._until else "nothing comes any more"
        self._lose("no_answer", text, late=not self._answer.status)

    def _lose(self, reason: str, detail: str, advice: str = "", *, late: bool = False) -> None:
        self._answer.lost = CallLost(reason, detail, advice, late=late)
        self._end(keep=False)

    def _end(self, *, keep: bool) -> None:
        waiting, self._waiting = self._waiting, None
        self._timer.cancel()
        self._was_used = True
        if not keep:
            self._transport.abort()
        self._on_end(self)
        if waiting is not None and not waiting.done():  # else nobody waits any more
            waiting.set_result(self._answer)

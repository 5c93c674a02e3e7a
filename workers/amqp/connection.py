"""Connections to the broker that notice when they are gone, and come back."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import Any

import pika
import structlog
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.exceptions import StreamLostError
from pika.frame import decode_frame
from pika.heartbeat import HeartbeatChecker
from pika.spec import FRAME_END

from ecs_client.address import Target
from handlers.effects.backoff import delay_after
from handlers.effects.concurrency import in_daemon_thread
from workers.amqp.broker import Broker, BrokerUnusable, Where, broker_at, explain
from workers.amqp.frames import FRAME

log = structlog.get_logger()

#: Where the URL does not say: seconds between two heartbeats, for reaching the broker, and until it
#: is ready to talk.
_SECONDS = {"heartbeat": 15, "socket_timeout": 10, "stack_timeout": 20}
#: The last two where another address is left to be tried.
_SECONDS_OF_SEVERAL = {"socket_timeout": 5, "stack_timeout": 10}
#: Options of the URL that are the commands' alone.
_OF_COMMANDS = ("connection_attempts", "retry_delay")
#: Seconds for looking up the brokers' names.
_LOOKUP = 15.0
#: Seconds before the first and at most before any attempt to reconnect; each waits a random part
#: (full jitter). Within a round over all addresses each attempt waits as the first does.
FIRST_DELAY, LONGEST_DELAY = 0.2, 10.0
#: Seconds that the broker has to agree to the end of a connection.
CLOSE_PATIENCE = 3.0
#: At most, where the broker refuses who we are: a person has to mend that.
LONGEST_REFUSED_DELAY = 20.0


def parameters(
    broker: Broker, target: Target, name: str, *, is_last: bool = True
) -> pika.ConnectionParameters:
    """Return the parameters of a connection to one address; the name is shown in the broker's
    management. `is_last`: no other address is left, so this one may take its time.

    Raises `BrokerUnusable`.
    """
    endpoint, context = target.endpoint, broker.tls_context()
    # Attempts are made here, each at the next address.
    options = {name: one for name, one in endpoint.options.items() if name not in _OF_COMMANDS}
    return pika.ConnectionParameters(
        host=target.ip,
        port=endpoint.port,
        virtual_host=endpoint.virtual_host,
        credentials=pika.PlainCredentials(endpoint.user, endpoint.password),
        # The URL's host goes into SNI, and is what the certificate must hold, whatever the address.
        ssl_options=pika.SSLOptions(context, endpoint.host) if context is not None else None,
        client_properties={"connection_name": name, "product": "ecs-worker"},
        **{**_SECONDS, **({} if is_last else _SECONDS_OF_SEVERAL), **options},
    )


class _Heartbeats(HeartbeatChecker):  # type: ignore[misc]
    """Notices silence within two heartbeats; pika's own looks every heartbeat and five seconds
    more.
    """

    def _start_check_timer(self) -> None:
        # The broker sends two in this time.
        self._check_interval = self._timeout
        super()._start_check_timer()


#: Bytes that are read from the socket at once: one turn of the loop is to stay short.
_READ_BYTES = 64 * 1024
#: Reads a frame: kind, buffer, begin and end of its payload. False: pika is to read it.
FrameReader = Callable[[int, bytes, int, int], bool]


class CoalescingConnection(AsyncioConnection):  # type: ignore[misc]  # pika is half typed
    """Reads and writes what there is much of (deliveries, publications, acks, confirms) as bytes,
    and writes once per turn of the loop. All else is pika's.

    It overrides private names of pika (decision 24).
    """

    _frame_buffer: bytes

    def __init__(self, *given: Any, **named: Any) -> None:
        self._unwritten: list[bytes] = []
        #: By channel; of a channel that is closed, until another has its number.
        self._readers: dict[int, FrameReader] = {}
        super().__init__(*given, **named)

    def read_by(self, channel: Channel, reader: FrameReader) -> None:
        """Have a channel's frames read by `reader` before pika sees them."""
        self._readers[channel.channel_number] = reader

    def send(self, frames: bytes) -> None:
        """Write whole frames with all else of this turn."""
        if not self._unwritten:
            asyncio.get_running_loop().call_soon(self._write)
        self._unwritten.append(frames)

    def _on_data_available(self, data_in: bytes) -> None:
        buffer = self._frame_buffer + data_in if self._frame_buffer else data_in
        at, there = 0, len(buffer)
        while at + FRAME.size < there:
            kind, channel, size = FRAME.unpack_from(buffer, at)
            begin = at + FRAME.size
            end = begin + size
            if end >= there:
                break
            reader = self._readers.get(channel)
            if reader is None or buffer[end] != FRAME_END or not reader(kind, buffer, begin, end):
                _, found = decode_frame(buffer[at : end + 1])
                self._process_frame(found)
            at = end + 1
        self._frame_buffer = buffer[at:]
        self.bytes_received += at  # the sign of life that heartbeats look at

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = _READ_BYTES
        if self.params.ssl_options is None:
            # Once a turn: pika reads until the socket has nothing, which is an exception. What TLS
            # has read already shows at no socket, so there it must.
            transport._MAX_CONSUME_BYTES = 1
        super()._proto_connection_made(transport)

    def _create_heartbeat_checker(self) -> HeartbeatChecker | None:
        return _Heartbeats(self, self.params.heartbeat) if self.params.heartbeat else None

    def _adapter_emit_data(self, data: bytes) -> None:
        self.send(data)

    def _write(self) -> None:
        data, self._unwritten = b"".join(self._unwritten), []
        transport = self._transport
        # Gone with the connection: nothing that was on its way counts as sent.
        if transport is None or self.is_closed:
            return
        if self.params.ssl_options is None and not transport.get_write_buffer_size():
            # At once; pika waits a turn until the socket is writable, and takes two system calls
            # for that. It also meets the error again.
            with suppress(OSError):
                data = data[transport._sock.send(data) :]
        if data:
            super()._adapter_emit_data(data)

    def abort(self, why: str = "the broker did not answer the close") -> None:
        """End the connection without the broker's consent, unless it has ended: a broker that hangs does not
        answer a close either.
        """
        if not self.is_closed:
            self._terminate_stream(StreamLostError(why))


class RecoveringConnection:
    """A connection that comes back. `on_up` gets each new connection, `on_down` is called when it
    is gone.

    Each attempt is made to the next address. A round goes over all addresses of all brokers, those
    that failed lately last, and the next one begins with names looked up anew.
    """

    def __init__(
        self,
        where: Where,
        name: str,
        on_up: Callable[[CoalescingConnection], None],
        on_down: Callable[[], None],
    ) -> None:
        self._where = where
        self._name = name
        self._on_up = on_up
        self._on_down = on_down
        self._connection: CoalescingConnection | None = None
        self._closing = False
        #: The addresses of this round that are still to be tried, and the one that is.
        self._round: deque[Target] = deque()
        self._target: Target | None = None
        #: Rounds in which no address could be used, and whether this one has met only brokers that
        #: refuse who we are.
        self._failures, self._is_refused = 0, True
        self._opening: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._closed = asyncio.Event()
        #: Whether the connection is open.
        self.is_up = False
        #: Whether the broker has stopped taking what we publish (an alarm).
        self.is_blocked = False
        #: When it last took to it again, on the monotonic clock.
        self.unblocked_at = 0.0
        #: Times that a connection was lost, or made to none of the addresses.
        self.reconnects = 0

    def open(self) -> None:
        """Begin to connect, and go on until `close`."""
        # In a context of its own: it is nobody's, though a request had the last one dropped.
        self._opening = asyncio.get_running_loop().create_task(self._open(), context=Context())

    async def _open(self) -> None:
        broker = broker_at(self._where)
        try:
            if not self._round:
                self._is_refused = True
                async with asyncio.timeout(_LOOKUP):
                    self._round.extend(await in_daemon_thread(broker.targets, "broker-addresses"))
            self._target = self._round.popleft()
            # Each time anew: a certificate is renewed by replacing its file.
            is_last = not self._round
            wanted = parameters(broker, self._target, self._name, is_last=is_last)
        except (OSError, RuntimeError, BrokerUnusable) as error:  # or the time is out
            self._again(error, "" if isinstance(error, BrokerUnusable) else self._advice(error))
            return
        self._connection = CoalescingConnection(
            wanted,
            on_open_callback=self._opened,
            on_open_error_callback=self._not_opened,
            on_close_callback=self._lost,
        )

    def drop(self) -> None:
        """Close the connection and make a new one."""
        if self._connection is not None and self._connection.is_open:
            self._connection.close(320, "starting over")
            asyncio.get_running_loop().call_later(CLOSE_PATIENCE, self._connection.abort)

    def abandon(self) -> None:
        """Make a new connection without a farewell: the broker reads no more of this one."""
        if self._connection is not None and self._connection.is_open:
            self._connection.abort("the broker confirms nothing any more")

    async def close(self) -> None:
        """Close for good; waits a short time for the broker to agree."""
        self._closing = True
        if self._later is not None:
            self._later.cancel()
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
            return
        if self._connection is None or self._connection.is_closed or self._later is not None:
            return
        if self._connection.is_open:
            self._connection.close()
        try:
            async with asyncio.timeout(5):
                await self._closed.wait()
        except TimeoutError:
            log.warning("connection.close_unanswered", connection=self._name)

    def _opened(self, connection: Any) -> None:
        self._failures = 0
        self._round.clear()
        self.is_up = True
        self.is_blocked = False
        connection.add_on_connection_blocked_callback(lambda *_: self._set_blocked(True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._set_blocked(False))
        if self._target is not None:
            self._target.worked()
        log.info("connection.up", connection=self._name, broker=str(self._target))
        self._on_up(connection)

    def _set_blocked(self, blocked: bool) -> None:
        self.is_blocked = blocked
        if not blocked:
            self.unblocked_at = monotonic()
        log.warning(
            "connection.blocked" if blocked else "connection.unblocked", connection=self._name
        )

    def _not_opened(self, _: Any, error: BaseException | str) -> None:
        self._again(error, self._advice(error))

    def _advice(self, error: BaseException | str) -> str:
        return explain(error, self._where).advice

    def _lost(self, _: Any, error: BaseException) -> None:
        was_up, self.is_up = self.is_up, False
        if was_up:
            self._on_down()
        self._again(error)

    def _again(self, error: BaseException | str, advice: str = "") -> None:
        self._closed.set()
        if self._closing:
            return
        self._closed.clear()
        if self._target is not None:
            self._target.failed()  # it hangs, or is about to go: the others first
        explained = explain(error, self._where)
        self._is_refused = self._is_refused and explained.is_refused
        is_refused = self._is_refused and not self._round
        longest = LONGEST_REFUSED_DELAY if is_refused else LONGEST_DELAY
        most = FIRST_DELAY if self._round else delay_after(self._failures, FIRST_DELAY, longest)
        if not self._round:
            self.reconnects += 1
            self._failures += 1
        delay = random.uniform(most / 2 if is_refused else 0.0, most)  # noqa: S311
        known: dict[str, object] = {"connection": self._name, "why": explained.reason}
        if self._target is not None:
            known["broker"] = str(self._target)
        if advice:
            known["advice"] = advice
        # While another address is left nobody has to do anything.
        tell = log.info if self._round else log.warning
        tell("connection.down", **known, again_in=round(delay, 2))
        self._target = None
        self._later = asyncio.get_running_loop().call_later(delay, self._retry)

    def _retry(self) -> None:
        self._later = None
        self.open()

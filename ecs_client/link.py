"""A connection to the broker that one thread owns, and makes again whenever it breaks.

py-amqp packs and reads the frames; the bytes are moved here. Its own way reads a frame by three
system calls and writes each at once, and blocks where a broker under memory alarm reads no more:
replies would stop, too. Here the socket never blocks, what is written within one turn goes out
together, and other threads wake the thread through a socket.
"""

import logging
import os
import random
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from struct import unpack_from
from typing import Any

from ecs_client.address import Brokers, Target, explained, line_of, targets

log = logging.getLogger("ecs_client")

#: Bytes that are read at once.
_CHUNK = 256 * 1024
#: Bytes that wait to be written beyond which nothing more is published for now.
_CROWDED = 4 * 1024 * 1024
#: Seconds in which the broker must answer a request about a channel.
_RPC = 8.0
#: Seconds before the first attempt to connect again, at most, and before any later one.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_FRAME_END = 0xCE


class LinkLost(ConnectionError):
    """The connection is of no use any more."""


class Link:
    """Keeps one connection, from the first `start` to `stop`.

    Subclasses say what happens on it. Their methods and whatever is given to `post` run in the
    link's thread; only `set_up` runs in the thread that connects.
    """

    def __init__(self, brokers: Brokers) -> None:
        self.brokers = brokers
        #: Of the process that made it: a fork has no thread.
        self.pid = os.getpid()
        self.connection: Any = None
        self.is_blocked = False
        #: Every broker refused this client at the last attempt, as `problem` says.
        self.is_refused = False
        self.is_stopped = False
        self._has_ended = False
        self._has_worked = False
        self._problem = "it is not connected yet"
        self._posted: deque[Callable[[], None]] = deque()
        self._is_woken = False
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._socket: socket.socket | None = None
        self._is_writing = False
        self._in, self._at = bytearray(), 0
        self._out = bytearray()
        self._rpc_channel: int | None = None
        self._rpc_until = 0.0
        self._failures = 0
        self._next_tick = 0.0
        self._timers: list[tuple[float, Callable[[], None]]] = []
        #: The address of the connection, or of the last one.
        self._target: Target | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    # What others call, from any thread.

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="ecs-client", daemon=True)
                    thread.start()  # raises where the process may have no more threads
                    self._thread = thread

    def post(self, action: Callable[[], None]) -> None:
        """Have something done in the link's thread, in the order in which it is posted."""
        self._posted.append(action)
        if not self._is_woken:
            self._is_woken = True
            # Full: it is woken anyway. Closed: the thread has ended.
            with suppress(OSError):
                self._wake.send(b"\0")
        if self._has_ended:
            self._do_posted()

    def stop(self, seconds: float = 5.0) -> None:
        """Close the connection and end the thread; twice is the same as once."""
        if self.pid != os.getpid():
            return  # another process's connection
        self.post(self._stop)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds)
        elif thread is None:
            self._stop()

    @property
    def problem(self) -> str:
        """The reason why the broker takes no messages, without secrets."""
        if self.connection is not None and self.is_blocked:
            return "the broker blocks publishers (memory or disk alarm)"
        return self._problem

    # What subclasses say.

    def set_up(self, connection: Any) -> Any:
        """Prepare a connection; what it returns is given to `connected`. Blocks, in the thread
        that connects.
        """

    def connected(self, prepared: Any) -> None:
        """Use the connection from now on."""

    def lost(self) -> None:
        """Note that the connection and its channels are gone."""

    def refused(self) -> None:
        """Note that every broker refuses this client; it is tried again nevertheless."""

    def channel_failed(self, channel: int, error: Exception) -> None:
        """Go on after the broker has closed a channel, which is open again under its number."""

    def sweep(self, now: float) -> float:
        """Do what is due, and return when it is to be called again (monotonic)."""
        return now + 3600

    def stopped(self) -> None:
        """End all that waits."""

    def unblocked(self) -> None:
        """Go on publishing."""

    # The thread.

    @property
    def may_publish(self) -> bool:
        """True while there is a broker that reads what is written."""
        return self.connection is not None and not self.is_blocked and len(self._out) < _CROWDED

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something in so many seconds."""
        self._timers.append((time.monotonic() + seconds, action))

    def _run(self) -> None:
        self._connect()
        while not self.is_stopped:
            try:
                self._turn()
            except Exception as error:
                log.exception("ecs_client: the link failed, and is made again")
                time.sleep(0.1)  # whatever is wrong may be wrong in the next turn, too
                self._lose(error)
        self.stopped()
        # Whoever posts from now on does it alone: all is refused.
        self._has_ended = True
        self._do_posted()
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _turn(self) -> None:
        now = time.monotonic()
        due = self._do_timers(now)
        due = min(due, self.sweep(now))
        if self.connection is not None:
            due = min(due, self._tick(now))
        if self._posted:
            due = now
        for key, _ in self._selector.select(max(0.0, due - now)):
            if key.fileobj is self._woken:
                with suppress(*_WOULD_BLOCK):
                    while len(self._woken.recv(4096)) == 4096:
                        pass
            elif self._socket is not None:
                self._guard(self._read)
        # Before the queue is emptied: what is posted from now on wakes again.
        self._is_woken = False
        self._do_posted()
        if self._out:
            was_crowded = len(self._out) >= _CROWDED
            self._guard(self._write)
            if was_crowded and self.may_publish:
                self.unblocked()

    def _do_posted(self) -> None:
        for _ in range(len(self._posted)):
            try:
                action = self._posted.popleft()
            except IndexError:  # the link has ended, and another thread took it
                return
            action()

    def _do_timers(self, now: float) -> float:
        for timer in [one for one in self._timers if one[0] <= now]:
            self._timers.remove(timer)
            timer[1]()
        return min((when for when, _ in self._timers), default=now + 3600)

    def _tick(self, now: float) -> float:
        """Send a heartbeat where it is time, and notice that the broker sends none."""
        heartbeat = self.connection.heartbeat
        if not heartbeat:
            return now + 3600
        if now >= self._next_tick:
            self._next_tick = now + heartbeat / 4
            self._guard(self.connection.heartbeat_tick)
        return self._next_tick

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # py-amqp raises KeyError, AttributeError and others, too
            self._lose(error)

    # Connecting.

    def _connect(self) -> None:
        # In a thread of its own: names are looked up and brokers waited for, while requests that
        # wait run out of time.
        dialing = threading.Thread(target=self._dial, name="ecs-client-connect", daemon=True)
        try:
            dialing.start()
        except RuntimeError as error:  # the process may have no more threads
            self._again(line_of(error))

    def _dial(self) -> None:
        try:
            found = targets(self.brokers.endpoints)
        except OSError as error:
            names = ", ".join(one.address for one in self.brokers.endpoints)
            problem = f"no broker at {names}: {error.strerror or line_of(error)}"
            self.post(lambda: self._again(problem))
            return
        problems, refusing = [], set()
        for target in found:
            if self.is_stopped:
                return
            connection = None
            try:
                connection = self.brokers.connect(
                    target, on_blocked=self._on_blocked, on_unblocked=self._on_unblocked
                )
                prepared = self.set_up(connection)
            except Exception as error:  # py-amqp raises whatever its socket and its parser do
                target.failed()
                problem, is_refusal = explained(error, target)
                problems.append(problem)
                if is_refusal:
                    refusing.add(target.endpoint.address)
                if connection is not None:
                    with suppress(Exception):
                        connection.collect()
            else:
                target.worked()
                self.post(partial(self._take, connection, prepared, target))
                return
        # Of one name with several addresses (localhost) one may be nobody's.
        is_refused = refusing == {one.address for one in self.brokers.endpoints}
        self.post(lambda: self._again("; ".join(problems), is_refused=is_refused))

    def _take(self, connection: Any, prepared: Any, target: Target) -> None:
        if self.is_stopped:
            with suppress(Exception):
                connection.collect()
            return
        self.connection, self._socket, self._target = connection, connection.sock, target
        self.is_blocked = self.is_refused = False
        self._in, self._at, self._out = bytearray(), 0, bytearray()
        self._socket.setblocking(False)
        # py-amqp writes into our buffer from now on, and waits for answers by our reading.
        connection.frame_writer = connection.frame_writer_cls(connection, self)
        connection.drain_events = self._drain
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._is_writing = False
        self._next_tick = 0.0
        self._failures = 0
        self._has_worked = True
        self._guard(lambda: self.connected(prepared))

    def _again(self, problem: str, *, is_refused: bool = False) -> None:
        if is_refused and not self.is_refused and self._has_worked:
            log.error("ecs_client: %s; it is tried again and again", problem)
        self._problem = problem
        self.is_refused = is_refused
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._failures)
        self._failures += 1
        # Of many clients that lost the same broker not all come back at once.
        self.later(random.uniform(longest / 2, longest), self._connect)  # noqa: S311
        if is_refused:
            self.refused()

    def _lose(self, error: Exception) -> None:
        if self.connection is None:
            return
        log.warning("ecs_client: the connection to the broker is lost: %s", line_of(error))
        if self._target is not None:
            self._target.failed()  # it hangs, or is about to go: the others first
        self._drop()
        self.lost()
        self._again(line_of(error))

    def _drop(self) -> None:
        connection, self.connection = self.connection, None
        if self._socket is not None:
            with suppress(KeyError, ValueError):
                self._selector.unregister(self._socket)
            self._socket = None
        with suppress(Exception):
            connection.collect()
        self.is_blocked = False

    def _stop(self) -> None:
        if self.is_stopped:
            return
        self.is_stopped = True
        if self.connection is not None:
            with suppress(Exception):
                self._rpc_until = time.monotonic() + 2.0
                self.connection.close()
            self._drop()
        if self._thread is None:
            self.stopped()

    # Bytes.

    def write(self, frames: bytes | memoryview) -> None:
        """Take frames from py-amqp."""
        self._out += frames

    def _write(self) -> None:
        assert self._socket is not None
        try:
            while self._out:
                del self._out[: self._socket.send(self._out)]
        except _WOULD_BLOCK:
            pass
        if bool(self._out) != self._is_writing:
            self._is_writing = bool(self._out)
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._is_writing else 0)
            self._selector.modify(self._socket, wanted)

    def _read(self) -> None:
        self._dispatch()
        with suppress(*_WOULD_BLOCK):
            while self._socket is not None:
                self._receive()
                self._dispatch()

    def _receive(self) -> None:
        assert self._socket is not None
        data = self._socket.recv(_CHUNK)
        if not data:
            raise LinkLost("the broker closed the connection")
        self._in += data

    def _dispatch(self) -> None:
        # py-amqp opens a channel that the broker has closed anew, and waits for that.
        self._rpc_until = time.monotonic() + _RPC
        while self._dispatch_one():
            pass

    def _dispatch_one(self) -> bool:
        connection = self.connection
        frame = self._next_frame() if connection is not None else None
        if frame is None:
            return False
        try:
            connection.on_inbound_frame(frame)
        except connection.channel_errors as error:
            # py-amqp has opened the channel anew by now.
            if frame[1] == self._rpc_channel:
                raise
            self.channel_failed(frame[1], error)
        return True

    def _next_frame(self) -> tuple[int, int, bytes] | None:
        buffer, at = self._in, self._at
        if len(buffer) - at >= 8:
            kind, channel, size = unpack_from(">BHI", buffer, at)
            end = at + 7 + size
            if len(buffer) > end:
                if buffer[end] != _FRAME_END:
                    raise LinkLost("the broker sent what is no frame")
                self._at = end + 1
                return kind, channel, bytes(memoryview(buffer)[at + 7 : end])
        del buffer[:at]
        self._at = 0
        return None

    # Requests about channels, which py-amqp waits for.

    def rpc(self, channel: Any, action: Callable[[], Any]) -> Any:
        """Do something on a channel that the broker answers; what it sends meanwhile is handled.

        Raises `LinkLost` where it does not answer in time, or the error for which it closed the
        channel.
        """
        before = self._rpc_channel
        self._rpc_channel = channel.channel_id if channel is not None else None
        self._rpc_until = time.monotonic() + _RPC
        try:
            return action()
        finally:
            self._rpc_channel = before
            # What has arrived behind the answer is still to be read.
            self.post(lambda: self._guard(self._read))

    def _drain(self, timeout: float | None = None) -> None:
        """Handle one frame; instead of py-amqp's own.

        No more than one: what follows an answer may need what py-amqp does with the answer first,
        such as a delivery its consumer.
        """
        while self._socket is not None:
            if self._out:
                self._write()
            if self._dispatch_one():
                return
            with suppress(*_WOULD_BLOCK):
                self._receive()
                continue
            left = self._rpc_until - time.monotonic()
            if left <= 0:
                raise LinkLost("the broker does not answer")
            _wait_for(self._socket, left, writing=bool(self._out))
        raise LinkLost("the connection is lost")

    def _on_blocked(self, _: str) -> None:
        self.is_blocked = True

    def _on_unblocked(self) -> None:
        self.is_blocked = False
        self.post(self.unblocked)


def _wait_for(sock: socket.socket, seconds: float, *, writing: bool) -> None:
    """Wait until a socket can be read, or written where that is asked for."""
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0))
        selector.select(seconds)

"""A bad network between a client and a server of this machine: a TCP proxy that does to their bytes
what it is told.
"""

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any

#: Basic.Ack as it goes over the wire: an ack on its way up, a publisher's confirm on its way down.
ACK = re.compile(rb"\x01..\x00\x00\x00\x0d\x00\x3c\x00\x50.{9}\xce", re.DOTALL)
#: The beginning of Basic.Publish (up) and of Basic.Deliver (down).
PUBLISH = re.compile(rb"\x01..[^\xce]{4}\x00\x3c\x00\x28", re.DOTALL)
DELIVER = re.compile(rb"\x01..[^\xce]{4}\x00\x3c\x00\x3c", re.DOTALL)


class Way(Enum):
    """Which way bytes go."""

    UP = "client to server"
    DOWN = "server to client"


class Reset(Exception):
    """The connection is reset, after these bytes were let through."""

    def __init__(self, forward: bytes = b"") -> None:
        super().__init__("reset")
        self.forward = forward


#: Gets what comes, gives what goes on; may wait first, may raise `Reset`.
Tamper = Callable[[Way, bytes], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Drip:
    """So many bytes at a time, with seconds between."""

    size: int
    seconds: float


class Proxy:
    """Listens on `port` of 127.0.0.1 for a server on another; a context manager. Any thread may
    tell it what to do.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._pipes: set[_Pipe] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: Any = None
        #: Ways in which everything is read and nothing goes on.
        self.swallows: frozenset[Way] = frozenset()
        self.drips: dict[Way, Drip] = {}
        self.tamper: Tamper | None = None
        #: Connections that were accepted so far.
        self.accepted = 0
        self.port = 0

    @property
    def connections(self) -> int:
        """Those that are open."""
        return len(self._pipes)

    def url_of(self, url: str) -> str:
        """The same URL, through here."""
        return re.sub(rf":{self._target}(?=[/?]|$)", f":{self.port}", url)

    def blackhole(self, *ways: Way) -> None:
        """Swallow everything, or what goes these ways."""
        self.swallows = frozenset(ways or Way)

    def hang(self) -> None:
        """The connections of now hang, and their servers never hear of their end; new ones are
        well.
        """
        for pipe in list(self._pipes):
            pipe.hangs = True

    def clear(self) -> None:
        """Be a good network again. Connections that missed something are reset: nothing of theirs
        can be trusted.
        """
        missed, self.swallows = self.swallows, frozenset()
        self.drips, self.tamper = {}, None
        if missed:
            self.reset()

    def reset(self) -> int:
        """Reset every connection; returns how many there were."""

        async def reset_all() -> int:
            pipes = list(self._pipes)
            for pipe in pipes:
                pipe.reset()
            return len(pipes)

        return self._run(reset_all())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        pipe = _Pipe(self)
        self._pipes.add(pipe)
        try:
            await pipe.run(reader, writer, self._target)
        except asyncio.CancelledError:
            # the proxy ends; asyncio's streams would complain of a handler that was cancelled
            return
        finally:
            self._pipes.discard(pipe)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        async def end_all() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._run(end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class _Pipe:
    """One connection: both its ends, and the pumps between them."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        #: What comes after the last bytes before a reset is nobody's.
        self._is_over = False
        self.hangs = False
        self._ends: list[asyncio.StreamWriter] = []

    async def run(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int
    ) -> None:
        self._ends.append(writer)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            self.reset()
            return
        self._ends.append(up_writer)
        pumps = [
            asyncio.ensure_future(self._pump(Way.UP, reader, up_writer)),
            asyncio.ensure_future(self._pump(Way.DOWN, up_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            while self.hangs:  # noqa: ASYNC110 - until the proxy ends
                await asyncio.sleep(0.1)
        finally:
            for pump in pumps:
                pump.cancel()
            for end in self._ends:
                end.close()

    def reset(self) -> None:
        """Both sides get a RST."""
        for end in self._ends:
            found = end.get_extra_info("socket")
            if found is not None:
                with suppress(OSError):
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()

    async def _pump(
        self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                try:
                    await self._forward(way, data, writer)
                except Reset as reset:
                    self._is_over = True
                    writer.write(reset.forward)
                    await writer.drain()
                    await asyncio.sleep(0.1)  # a RST overtakes what has not been read yet
                    self.reset()
                    return

    async def _forward(self, way: Way, data: bytes, writer: asyncio.StreamWriter) -> None:
        tamper = self._proxy.tamper
        if tamper is not None:
            data = await tamper(way, data)
        while data:
            if self._is_over or self.hangs or way in self._proxy.swallows:
                return
            drip = self._proxy.drips.get(way)
            size = drip.size if drip is not None else len(data)
            writer.write(data[:size])
            await writer.drain()
            data = data[size:]
            if drip is not None:
                await asyncio.sleep(drip.seconds)

"""The topology is declared at the start, when somebody notices that a part is gone, and now and
then besides.

What only publishers use (the exchange of commands, a binding) would be missed by nobody here.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable

import structlog
from structlog.contextvars import clear_contextvars

from workers.amqp.broker import Where
from workers.amqp.broker_errors import explain
from workers.amqp.topology import Topology, TopologyMismatch, declare

log = structlog.get_logger()

#: Seconds between two declarations of what is there, as far as we know.
EVERY = 20.0
#: Seconds before declaring is tried again.
_DELAYS = (0.5, 1, 2, 5, 10)
#: Seconds for declaring; a broker that hangs answers nothing, one that drips answers a little, for
#: ever.
_PATIENCE = 30.0


class Upkeep:
    """Declares exchanges and queues. `on_mismatch` is called when one exists with other arguments;
    `mismatch` is it.
    """

    def __init__(self, where: Where, wanted: Topology, on_mismatch: Callable[[], None]) -> None:
        self._where = where
        self._wanted = wanted
        self._on_mismatch = on_mismatch
        self._running: asyncio.Task[None] | None = None
        self.mismatch: TopologyMismatch | None = None

    async def until_declared(self) -> None:
        """Declare everything; a broker that is down is waited for. `TopologyMismatch`."""
        tries = 0
        while True:
            try:
                await _in_a_thread_of_its_own(lambda: declare(self._where, self._wanted), _PATIENCE)
            except TopologyMismatch:
                raise
            except Exception as error:
                delay = _DELAYS[min(tries, len(_DELAYS) - 1)]
                told = explain(error, self._where)
                log.warning(
                    "broker.not_reached", why=told.reason, advice=told.advice, again_in=delay
                )
                tries += 1
                await asyncio.sleep(delay)
            else:
                return

    def soon(self) -> None:
        """Something of ours is gone from the broker: declare everything again, once for all who
        notice.
        """
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().create_task(self._again())

    async def watch(self) -> None:
        """Declare again and again, until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            self.soon()

    def close(self) -> None:
        """Leave it."""
        if self._running is not None:
            self._running.cancel()

    async def _again(self) -> None:
        clear_contextvars()  # it is nobody's, though a request had it begun
        try:
            await self.until_declared()
        except TopologyMismatch as error:
            log.error("topology.mismatch", why=str(error))  # noqa: TRY400 - its text says it all
            self.mismatch = error
            self._on_mismatch()


async def _in_a_thread_of_its_own(act: Callable[[], None], seconds: float) -> None:
    """As `asyncio.to_thread`, but one that hangs is left alone, and does not keep the process from
    ending.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def tell(error: Exception | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    def run() -> None:
        error = None
        try:
            act()
        except Exception as found:
            error = found
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=run, name="declare", daemon=True).start()
    async with asyncio.timeout(seconds):
        await ended

"""Declaration of the topology at the start, when a part is noticed to be gone, and now and then
besides.

The parts that only publishers use (the exchange of commands, a binding) would be missed by no
worker.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context

import structlog

from handlers.effects.backoff import delays
from handlers.effects.concurrency import in_daemon_thread
from workers.amqp.broker import Where, explain
from workers.amqp.topology import Topology, TopologyMismatch, declare

log = structlog.get_logger()

#: Seconds between two declarations of what is there, as far as we know.
EVERY = 20.0
#: Seconds before declaring is tried again, at first and at most.
FIRST_DELAY, LONGEST_DELAY = 0.5, 10.0
#: Seconds for declaring; a broker that hangs answers nothing, one that drips answers a little, for
#: ever.
_PATIENCE = 30.0


class TopologyDeclarer:
    """Declares exchanges and queues. `on_mismatch` is called when one exists with other arguments;
    `mismatch` is the error.
    """

    def __init__(self, where: Where, wanted: Topology, on_mismatch: Callable[[], None]) -> None:
        self._where = where
        self._wanted = wanted
        self._on_mismatch = on_mismatch
        self._running: asyncio.Task[None] | None = None
        self.mismatch: TopologyMismatch | None = None

    async def until_declared(self) -> None:
        """Declare everything; a broker that is down is waited for. Raises `TopologyMismatch`."""
        for delay in delays(FIRST_DELAY, LONGEST_DELAY):
            try:
                async with asyncio.timeout(_PATIENCE):
                    await in_daemon_thread(lambda: declare(self._where, self._wanted), "declare")
            except TopologyMismatch:
                raise
            except Exception as error:
                explained = explain(error, self._where)
                log.warning(
                    "broker.not_reached",
                    why=explained.reason,
                    advice=explained.advice,
                    again_in=delay,
                )
                await asyncio.sleep(delay)
            else:
                return

    def declare_soon(self) -> None:
        """Declare everything again, once for all callers, for something is gone from the broker."""
        if self._running is None or self._running.done():
            # In a context of its own: it is nobody's, though a request had it begun.
            self._running = asyncio.get_running_loop().create_task(self._again(), context=Context())

    async def watch(self) -> None:
        """Declare again and again, until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            self.declare_soon()

    def close(self) -> None:
        """Cancel a declaration that is under way."""
        if self._running is not None:
            self._running.cancel()

    async def _again(self) -> None:
        try:
            await self.until_declared()
        except TopologyMismatch as error:
            log.error("topology.mismatch", why=str(error))  # noqa: TRY400 - its text says it all
            self.mismatch = error
            self._on_mismatch()

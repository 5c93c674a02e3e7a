"""A mixed load of commands and orders, and the account of what became of each: invariants I1 to I5."""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from types import TracebackType

from sandbox.openstack import SimulatedOpenStack
from sandbox.worker import WorkerProcess
from tests.support.invariants import MEMORY, RECOVERY, await_ends, check, resident_megabytes
from tests.support.kinds import KINDS, Asked
from tests.support.lasting import LastingRequester
from tests.support.names import DEAD_QUEUE, INPUT_QUEUES
from tests.support.tenant import Tenant
from tests.support.waiting import eventually

#: What a load is mixed of: an order of several effects, what takes its time, and what is done at
#: once.
_MIX = ("resize", "reboot", "stop", "tags", "image.delete", "image.update")


class Load:
    """Sends requests and hears what becomes of them; a context manager.

    It talks to the broker itself, not by the way that the worker takes.
    """

    def __init__(self, broker_url: str, cloud: SimulatedOpenStack, tenant: Tenant) -> None:
        self.requester = LastingRequester(broker_url)
        self._cloud = cloud
        self._tenant = tenant
        self.asked: list[Asked] = []

    def mix(self, number: int = len(_MIX)) -> list[Asked]:
        """So many requests, each on things of its own; made, not sent."""
        kinds = {kind.name: kind for kind in KINDS}
        with ThreadPoolExecutor(4) as pool:
            asks = [kinds[name].ask for name in islice(cycle(_MIX), number)]
            return list(pool.map(lambda ask: ask(self._tenant, self._cloud), asks))

    def send(self, *asked: Asked) -> None:
        """Publish until each is confirmed, whatever happens to the broker meanwhile."""
        for one in asked:
            one.publish(self.requester)
            self.asked.append(one)

    def has_begun(self) -> bool:
        """Tell whether something has come back."""
        self.requester.listen(0.05)
        return bool(self.requester.heard)

    def account(self, seconds: float = 90.0) -> None:
        """Wait until all is answered, then see that I1, I2 and I3 hold of everything that was sent."""
        await_ends(self.requester, self.asked, seconds)
        eventually(lambda: all(self.requester.depth(queue) == 0 for queue in INPUT_QUEUES), 30)
        self.requester.listen(0.2)
        check(self.requester.heard, self.asked, self._tenant, self._cloud.executed())
        assert self.requester.depth(DEAD_QUEUE) == 0, "something was parked"

    def recovered(self, seconds: float = RECOVERY) -> float:
        """Seconds until a request is answered: it must be within so many (I5)."""
        began = time.monotonic()
        probe = self.requester.command(
            "server.action", server_id=str(uuid.uuid4()), body={"os-start": None}
        )
        assert self.requester.result_of(probe, seconds).body["code"] == "101.001033"
        return time.monotonic() - began

    def __enter__(self) -> "Load":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.requester.close()


@contextmanager
def memory_flat(worker: WorkerProcess) -> Iterator[None]:
    """I4: the worker is as large afterwards as it was, within 50 MB."""
    before = resident_megabytes(worker.pid)
    yield
    grown = resident_megabytes(worker.pid) - before
    assert grown < MEMORY, f"the worker has grown by {grown:.0f} MB"

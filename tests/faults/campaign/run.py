"""Runs phases, and counts what they have shown."""

import random
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sandbox.broker import PrivateBroker
from sandbox.postgres import PrivatePostgres
from tests.faults.campaign.phases import Phase, S
from tests.faults.campaign.site import Site, Stage, site
from tests.faults.campaign.traffic import Traffic
from tests.support.invariants import MEMORY, RECOVERY, report
from tests.support.lasting import LastingRequester
from tests.support.names import DEAD_QUEUE

#: Seconds for what was asked to come to its end.
PATIENCE = 240.0

#: Told of what is going on; the second says whether the line is soon followed by another of its
#: kind.
Tell = Callable[[str, bool], None]


@dataclass
class Row:
    """Holds what a phase has seen; recovery in seconds (the longest), memory in megabytes (the
    larger of two workers).
    """

    fault: str
    injected: int = 0
    inputs: int = 0
    results: int = 0
    parked: int = 0
    in_vain: int = 0
    copies: int = 0
    duplicate_effects: int = 0
    lost: int = 0
    recovered: float = 0.0
    memory_before: int = 0
    memory_after: int = 0


class Campaign:
    """Phases one after the other, on one broker and one database server; a context manager."""

    def __init__(self, tell: Tell = lambda _, __: None, *, pace: float = 0.3) -> None:
        self._tell = tell
        self._pace = pace
        self._stack = ExitStack()
        self._broker: PrivateBroker
        self._database: PrivatePostgres | None = None

    def __enter__(self) -> "Campaign":
        self._broker = self._stack.enter_context(PrivateBroker())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(
        self, phases: Iterable[Phase[Site]], minutes: float, seed: int
    ) -> Iterator[tuple[Row, list[str]]]:
        """Each phase's row, and what it has shown to be broken; so many minutes of faults in all."""
        phases = list(phases)
        shares = sum(phase.share for phase in phases)
        for phase in phases:
            seconds = minutes * 60 * phase.share / shares
            self._tell(f"{phase.fault}, for {seconds:.0f} s", False)
            yield self.run_phase(phase, seconds, random.Random(seed))

    def run_phase(
        self, phase: Phase[Site], seconds: float, chance: random.Random
    ) -> tuple[Row, list[str]]:
        """One kind of fault for so many seconds."""
        row, broken = Row(phase.fault), []
        folder = Path(tempfile.mkdtemp(prefix="ecs-faults-"))
        database = self._the_database() if phase.database else None
        with (
            site(
                self._broker,
                folder,
                chance,
                network=phase.network,
                database=database,
                pace=self._pace,
            ) as found,
            Traffic(found.requester(), found.cloud, chance) as traffic,
        ):
            broken += load(phase, found, traffic, (seconds, RECOVERY), row, self._tell)
        if broken:
            self._tell(f"journal and logs are in {folder}", False)
        else:
            shutil.rmtree(folder)
        return row, broken

    def _the_database(self) -> PrivatePostgres:
        if self._database is None:
            self._database = self._stack.enter_context(PrivatePostgres())
        return self._database


def load(
    phase: Phase[S],
    found: S,
    traffic: Traffic,
    seconds: tuple[float, float],
    row: Row,
    tell: Tell,
) -> list[str]:
    """Strike for `seconds[0]`, wait until all that was asked has come to its end, and count;
    `seconds[1]` is what a recovery may take.
    """
    time.sleep(min(8.0, seconds[0] / 4))  # caches and pools are filled
    row.memory_before = found.largest()
    broken = strikes(phase, found, seconds, row)
    traffic.end()
    await_ends(traffic, tell)
    broken += end(found, row)
    return broken + account(traffic, found, row)


def await_ends(traffic: Traffic, tell: Tell) -> None:
    """Wait for all that was asked; what does not end in time is found missing later."""
    limit = time.monotonic() + PATIENCE
    while (left := len(traffic.unended())) and time.monotonic() < limit:
        traffic.requester.listen(0.5)
        tell(f"{left} of {len(traffic.asked)} under way", True)
    traffic.requester.listen(1.0)


def strikes(phase: Phase[S], found: S, seconds: tuple[float, float], row: Row) -> list[str]:
    """Inject the fault again and again; after each the workers must work again within their time."""
    broken = []
    probe = found.probe()
    recovery(probe)  # its queue has carried a message before anything is struck
    limit = time.monotonic() + seconds[0]
    while time.monotonic() < limit:
        began = time.monotonic()
        phase.strike(found)
        row.injected += 1
        took = recovery(probe)
        row.recovered = max(row.recovered, round(took, 1))
        if took > seconds[1]:
            broken.append(f"it took {took:.0f} s until a request was answered")
        phase.mend(found)
        time.sleep(max(0.0, found.chance.uniform(*phase.every) - (time.monotonic() - began)))
    found.cloud.clear_faults("api.")
    probe.close()
    return broken


def recovery(probe: LastingRequester) -> float:
    """Seconds until a request that asks for a server that is not there has its answer."""
    began = time.monotonic()
    # What is measured is the workers' time, not the one in which this connection is found dead.
    probe.leave()
    asked = probe.command("server.action", server_id=str(uuid.uuid4()), body={"os-start": None})
    probe.result_of(asked, 120)
    probe.heard.clear()
    return time.monotonic() - began


def end(found: Stage, row: Row) -> list[str]:
    """Look at the workers' memory, and drain them."""
    broken = []
    for worker in found.workers:
        worker.wait_ready(RECOVERY)
    row.memory_after = found.largest()
    if row.memory_after - row.memory_before > MEMORY:
        broken.append(f"a worker grew from {row.memory_before} to {row.memory_after} MB")
    return broken + [
        "a worker did not end well at SIGTERM"
        for worker in found.workers
        if worker.terminate() != 0
    ]


def account(traffic: Traffic, found: Stage, row: Row) -> list[str]:
    """Fill in the row; what is broken."""
    seen = report(
        traffic.requester.heard, traffic.asked, traffic.tenant, found.cloud.executed(), lenient=True
    )
    parked = traffic.requester.take(DEAD_QUEUE)
    row.inputs, row.results = seen.inputs + len(traffic.unheard), seen.results
    row.in_vain, row.copies = seen.in_vain, traffic.copies
    row.duplicate_effects, row.parked = seen.duplicate_effects, len(parked)
    row.lost = seen.lost + len(traffic.unheard - parked)
    return [
        *seen.broken,
        *(f"neither answered nor parked: {one}" for one in sorted(traffic.unheard - parked)),
        *(f"parked without need: {one}" for one in sorted(parked - traffic.unheard)),
    ]

"""Runs phases on clusters, and counts what they have shown."""

import random
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from sandbox.cluster import Cluster
from tests.cluster.phases import ClusterPhase
from tests.cluster.stage import cluster_stage
from tests.faults.campaign.run import Row, Tell, load
from tests.faults.campaign.traffic import Traffic

#: Seconds within which a request is answered again: from when a node dies, is cut off or stopped;
#: where all three die, from when they are back.
RECOVERY = 15.0


@dataclass
class ClusterRow:
    """Counts of a phase; `recovered` is the longest recovery in seconds."""

    fault: str
    version: str
    injected: int = 0
    inputs: int = 0
    results: int = 0
    dead_lettered: int = 0
    doubled: int = 0
    lost: int = 0
    recovered: float = 0.0


def run(
    phases: Iterable[ClusterPhase], minutes: float, seed: int, tell: Tell
) -> Iterator[tuple[ClusterRow, list[str]]]:
    """Each phase's row, and what it has shown to be broken; so many minutes of faults in all."""
    phases = list(phases)
    shares = sum(phase.share for phase in phases)
    for partitions, some in groupby(phases, lambda phase: phase.partitions):
        with Cluster(partitions=partitions) as cluster:
            for phase in some:
                seconds = minutes * 60 * phase.share / shares
                tell(f"{phase.fault}, for {seconds:.0f} s", False)
                yield run_phase(cluster, phase, seconds, random.Random(seed), tell)


def run_phase(
    cluster: Cluster,
    phase: ClusterPhase,
    seconds: float,
    chance: random.Random,
    tell: Tell = lambda _, __: None,
    *,
    pace: float = 0.3,
    recovery: float = RECOVERY,
) -> tuple[ClusterRow, list[str]]:
    """One kind of fault for so many seconds; `recovery`: the seconds that one may take."""
    row = Row(phase.fault)
    folder = Path(tempfile.mkdtemp(prefix="ecs-cluster-"))
    with (
        cluster_stage(cluster, folder, chance, pace) as stage,
        Traffic(stage.requester(), stage.cloud, chance) as traffic,
    ):
        broken = load(phase, stage, traffic, (seconds, recovery), row, tell)
        if stage.restarted:
            tell(f"{stage.restarted} nodes stayed apart until they were restarted", False)
    if broken:
        tell(f"journal and logs are in {folder}", False)
    else:
        shutil.rmtree(folder)
    counts = (row.injected, row.inputs, row.results, row.parked, row.duplicate_effects, row.lost)
    return ClusterRow(phase.fault, cluster.version(), *counts, row.recovered), broken

"""The kinds of faults of a cluster, and how often each strikes."""

from dataclasses import dataclass

from tests.cluster.stage import ClusterStage
from tests.faults.campaign.phases import Phase


@dataclass(frozen=True)
class ClusterPhase(Phase[ClusterStage]):
    """A kind of fault; `partitions` is the cluster's `cluster_partition_handling`."""

    partitions: str = "pause_minority"


_OFTEN, _SOMETIMES = (1.0, 4.0), (2.0, 6.0)
PHASES = (
    ClusterPhase(
        "own",
        "a worker's own node killed (SIGKILL)",
        ClusterStage.kill_own,
        _SOMETIMES,
        0.12,
        mend=ClusterStage.mend,
    ),
    ClusterPhase(
        "leader",
        "the leader of ecs.orders killed (SIGKILL)",
        ClusterStage.kill_leader,
        _SOMETIMES,
        0.12,
        mend=ClusterStage.mend,
    ),
    ClusterPhase(
        "cut",
        "a node cut off for 5 to 25 s, pause_minority",
        ClusterStage.cut,
        _SOMETIMES,
        0.15,
        mend=ClusterStage.mend,
    ),
    ClusterPhase(
        "pause",
        "a node stopped (SIGSTOP) for 5 to 25 s",
        ClusterStage.pause,
        _SOMETIMES,
        0.15,
        mend=ClusterStage.mend,
    ),
    ClusterPhase(
        "rolling",
        "rolling restart, drained or not",
        ClusterStage.stop_next,
        _OFTEN,
        0.12,
        mend=ClusterStage.mend,
    ),
    ClusterPhase("all", "all three killed at once (SIGKILL)", ClusterStage.kill_all, _OFTEN, 0.1),
    ClusterPhase("worker", "a worker killed (SIGKILL)", ClusterStage.kill, _OFTEN, 0.06),
    ClusterPhase(
        "leaderless",
        "a queue without a leader, as reply_to and bound",
        ClusterStage.orphan_a_queue,
        _SOMETIMES,
        0.1,
        mend=ClusterStage.delete_orphan,
    ),
    ClusterPhase(
        "ignore",
        "a node cut off for 5 to 25 s, ignore",
        ClusterStage.cut,
        _SOMETIMES,
        0.15,
        mend=ClusterStage.mend,
        partitions="ignore",
    ),
)

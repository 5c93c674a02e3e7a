"""Readings of what workers and journal report: why a queue stands still, what fails, what to do."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import inf

from messages.results import WaitReason
from workers.admin import heartbeats, pauses
from workers.admin.state import (
    DependencyStatus,
    Noted,
    PausedKind,
    RequestGroup,
    Stage,
    Status,
    WorkerQueue,
    WorkerState,
    WorkerStatus,
)
from workers.admin.times import shown_time
from workers.amqp.names import Names
from workers.amqp.queues import QueueDepth, Role
from workers.circuit_breaker import COMPUTE, IDENTITY, IMAGE
from workers.heartbeat import STARTING
from workers.journal import Operations, Pause, UnfinishedRequest

#: What is not known where a dependency cannot be reached.
LOST = {
    "broker": "the queues are not shown",
    "journal": "requests, workers and pauses are not shown",
}


def read_workers(operations: Operations) -> tuple[WorkerStatus, ...]:
    """Return the workers of the namespace that told of themselves within a day. Blocks; raises
    `JournalError`.
    """
    return tuple(
        WorkerStatus(
            owner=one.row.owner,
            host=one.row.host,
            pid=one.row.pid,
            version=one.row.version,
            region=one.row.region,
            namespace=one.row.namespace,
            started_at=one.row.started_at,
            seen_at=one.row.seen_at,
            state=WorkerState(one.liveness.value),
            queues=tuple(
                WorkerQueue(
                    queue=queue.queue,
                    consuming=queue.consuming,
                    why_not=queue.why,
                    held=queue.held,
                    waiting=queue.held - queue.begun,
                    delivered_rate=queue.delivered_rate,
                    settled_rate=queue.settled_rate,
                    oldest_at=queue.oldest_published_at,
                )
                for queue in one.report.queues
            ),
            problems=one.report.problems,
            down=tuple(one.report.down.items()),
        )
        for one in heartbeats.workers(operations)
    )


def read_pauses(operations: Operations, names: Names) -> tuple[PausedKind, ...]:
    """Return the pauses in force, of each kind the one that lasts longest. Blocks; raises
    `JournalError`.
    """
    found: dict[str, Pause] = {}
    for one in pauses.current(operations):
        other = found.get(one.kind.value)
        if other is None or (other.until or inf) < (one.until or inf):
            found[one.kind.value] = one
    return tuple(
        PausedKind(
            kind, f"{names.namespace}.{kind}", one.reason, one.operator, one.since, one.until
        )
        for kind, one in found.items()
    )


def consumed_at(queue: str, workers: Iterable[WorkerStatus]) -> float | None:
    """Return when a worker told last that it consumes a queue; None where none does."""
    seen = [
        worker.seen_at
        for worker in workers
        for one in worker.queues
        if one.queue == queue and one.consuming
    ]
    return max(seen, default=None)


def told_by_workers(workers: Iterable[WorkerStatus]) -> list[DependencyStatus]:
    """Return the state of the cloud's services as the living workers see them."""
    alive = [one for one in workers if one.state is WorkerState.ALIVE]
    found = []
    for name in (IDENTITY, COMPUTE, IMAGE):
        down = {one.name: dict(one.down)[name] for one in alive if name in dict(one.down)}
        if not alive:
            found.append(DependencyStatus(name, None, "no living worker tells", ()))
        elif down:
            found.append(DependencyStatus(name, False, next(iter(down.values())), tuple(down)))
        else:
            found.append(DependencyStatus(name, True, None, tuple(one.name for one in alive)))
    return found


def trouble_of(depth: QueueDepth, noted: Noted) -> str | None:
    """Return why a queue of requests is not worked off, and what to do; None where it is."""
    if depth.ready is None:
        return "it is not declared: start a worker, or run ecs-worker topology apply"
    if depth.role not in (Role.INPUT, Role.UNDELIVERED):
        return None
    for one in noted.paused:
        if one.queue == depth.name:
            end = f"until {shown_time(one.until)}" if one.until is not None else "until resumed"
            return (
                f"{one.kind} are paused by {one.by} {end} ({one.reason}):"
                f" ecs-worker resume {one.kind}"
            )
    living = [one for one in noted.workers if one.works]
    is_starting = any(
        one.queue == depth.name and one.why_not == STARTING
        for worker in living
        if worker.state is WorkerState.ALIVE
        for one in worker.queues
    )
    if depth.consumers or is_starting:  # it consumes within seconds, or says why not
        return None
    reasons = [
        f"{worker.name}: {one.why_not}"
        for worker in living
        for one in worker.queues
        if one.queue == depth.name and one.why_not is not None
    ]
    if living:
        why = "; ".join(reasons) or f"see ecs-worker check and the log of {living[0].name}"
        return f"no worker consumes it: {why}"
    return "no worker consumes it: start one (ecs-worker run)"


def retry_delay(seconds: float, delays: Sequence[int]) -> int:
    """Return the delay of the retry queue in which a message waits that goes on after so many
    seconds.
    """
    return min(delays, key=lambda delay: abs(delay - seconds))


def stage_of(request: UnfinishedRequest) -> Stage:
    """Return how far an unfinished request is."""
    if request.is_answered:
        return Stage.ANSWERED
    if request.wait is None:
        return Stage.RUNNING
    return {
        WaitReason.TURN: Stage.WAITING_TURN,
        WaitReason.RETRY: Stage.WAITING_RETRY,
        WaitReason.RESOURCE: Stage.WAITING_RESOURCE,
        WaitReason.WORKER: Stage.NO_WORKER,
    }[request.wait.reason]


def groups(unfinished: Iterable[UnfinishedRequest]) -> list[RequestGroup]:
    groups: defaultdict[tuple[Stage, str], list[UnfinishedRequest]] = defaultdict(list)
    for one in unfinished:
        groups[stage_of(one), one.tenant].append(one)
    found = []
    for (stage, tenant), members in groups.items():
        oldest = min(members, key=lambda one: one.received_at)
        due = [one.wait.until for one in members if one.wait and one.wait.until is not None]
        found.append(
            RequestGroup(
                stage,
                tenant,
                len(members),
                oldest.received_at,
                oldest.name,
                min(due, default=None),
            )
        )
    return sorted(found, key=lambda one: one.oldest_at)


#: Seconds for which a killed worker is worth a word, and after which a retry is overdue.
_RECENTLY, _OVERDUE = 3600.0, 60.0
#: Seconds after which a wait for the cloud is worth a word: most resizes end before.
_LONG = 600.0


def findings(status: Status) -> list[str]:
    """Return what stands still or fails, the worst first, each with what to do."""
    found = [
        f"{one.name} cannot be reached: {one.why}"
        for one in status.dependencies
        if not one.is_up and not one.told_by and one.name in LOST
    ]
    has_journal = not any(one.name == "journal" and not one.is_up for one in status.dependencies)
    if has_journal and not any(one.works for one in status.workers):
        consumed = any(one.consumers for one in status.queues if one.role is Role.INPUT)
        found.append(
            "what consumes the input queues tells nothing of itself: workers of an earlier version,"
            " or with another journal"
            if consumed
            else "no worker runs: start one (ecs-worker run)"
        )
    found += [
        f"{one.name}: {'' if one.ready is None else f'{one.ready} messages wait, and '}{one.trouble}"
        for one in status.queues
        if one.trouble is not None and one.ready != 0
    ]
    found += [
        f"{one.name} is down, say {', '.join(one.told_by)}: {one.why}"
        for one in status.dependencies
        if one.told_by and one.is_up is False
    ]
    for worker in status.workers:
        seen = f"last seen {shown_time(worker.seen_at)}"
        if worker.state is WorkerState.SILENT:
            found.append(
                f"worker {worker.name} lives and tells nothing more, {seen}: it hangs, or cannot"
                " reach the journal; look at its log, and restart it if it hangs"
            )
        elif worker.state is WorkerState.DEAD and status.at - worker.seen_at < _RECENTLY:
            found.append(f"worker {worker.name} was killed, or its host is gone, {seen}")
        elif worker.state is WorkerState.ALIVE:
            found += [f"worker {worker.name}: {problem}" for problem in worker.problems]
    found += [
        said for group in status.requests if (said := _group_finding(group, status.at)) is not None
    ]
    if status.dead.total:
        found.append(f"{status.dead.total} dead letters wait for an operator: ecs-worker dead list")
    found += [
        f"{one.name}: {one.ready} results wait, and the order system does not fetch them"
        for one in status.queues
        if one.role is Role.RESULTS and one.ready and not one.consumers
    ]
    return found


def _group_finding(group: RequestGroup, now: float) -> str | None:
    """Return what is to be said of the unfinished requests of a tenant, None where nothing is."""
    if group.stage is Stage.NO_WORKER:
        return (
            f"{group.count} begun requests of {group.tenant} have no worker, the oldest is"
            f" {group.oldest}: their messages come to the next worker"
        )
    if group.stage is Stage.WAITING_RESOURCE and now - group.oldest_at > _LONG:
        return (
            f"requests of {group.tenant} wait for the cloud, the oldest came at"
            f" {shown_time(group.oldest_at)}: ecs-worker show {group.oldest}"
        )
    if group.next_at is not None and now - group.next_at > _OVERDUE:
        return (
            f"requests of {group.tenant} were due at {shown_time(group.next_at)} and did not"
            f" go on; one of them is {group.oldest}: ecs-worker show {group.oldest}"
        )
    return None

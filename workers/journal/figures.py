"""Counts of what the journal knows, for metrics: cheap enough to be read every few seconds."""

import time
from collections.abc import Mapping

from sqlalchemy import Connection, case, func, select

from messages.record import record
from messages.results import WaitReason
from workers.journal import schema
from workers.journal.dead_letters import causes_of
from workers.journal.records import DeadLetterCause, Kind, State

#: Seconds since a worker's last sign within which it counts as alive.
ALIVE_WITHIN = 20.0
#: What a request waits for that a worker carries out just now.
NOTHING = "nothing"
#: What requests wait for.
WAITS = (NOTHING, *(one.value for one in WaitReason))


@record
class Unfinished:
    """Requests of one kind that wait for the same: how many, and when the oldest of them first came
    (Unix seconds).
    """

    number: int
    oldest: float


@record
class Figures:
    """Workers that have just told of themselves, requests without a published result by kind and by
    what they wait for (one of `WAITS`), as their workers noted it, and dead letters by cause.
    """

    workers: int
    unfinished: Mapping[tuple[Kind, str], Unfinished]
    causes: tuple[DeadLetterCause, ...]


def figures_in(connection: Connection, namespace: str) -> Figures:
    """Return the counts now; requests are those of all namespaces of the journal."""
    workers, requests = schema.workers.c, schema.requests.c
    alive = (
        select(func.count())
        .select_from(schema.workers)
        .where(workers.namespace == namespace, workers.ended_at.is_(None))
        .where(workers.seen_at > time.time() - ALIVE_WITHIN)
    )
    # The text is JSON without blanks (`noted_wait`).
    waits = case(
        *(
            (requests.waits_for.like(f'%"reason":"{one.value}"%'), one.value)
            for one in WaitReason
            if one is not WaitReason.WORKER
        ),
        (requests.owner.is_(None), WaitReason.WORKER.value),
        else_=NOTHING,
    )
    unfinished = (
        select(requests.kind, waits, func.count(), func.min(requests.received_at))
        .where(requests.state != State.SETTLED.value)
        .group_by(requests.kind, waits)
    )
    return Figures(
        workers=connection.execute(alive).scalar_one(),
        unfinished={
            (Kind(kind), wait): Unfinished(number, oldest)
            for kind, wait, number, oldest in connection.execute(unfinished)
        },
        causes=tuple(causes_of(connection, namespace)),
    )

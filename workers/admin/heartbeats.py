"""The workers, as they tell of themselves in the journal."""

import time
from enum import StrEnum

from messages.record import record
from workers.heartbeat import WorkerReport
from workers.journal import Operations, WorkerRow

#: Seconds without a heartbeat after which a worker's row is old; it writes one every 5 s.
OLD_AFTER = 15.0
#: Seconds without one after which a process that does not hold its lock any more is dead: it may
#: just have lost its connection to the database.
_LATE = 7.0


class Liveness(StrEnum):
    """State of a worker."""

    ALIVE = "alive"
    #: Its process lives, and has not been able to write: it is stopped, or cannot reach the
    #: journal.
    SILENT = "silent"
    #: It drained, and ended.
    ENDED = "ended"
    #: It was killed, or its host is gone.
    DEAD = "dead"


@record
class WorkerSeen:
    """A worker. `report` is what it told at `row.seen_at`."""

    row: WorkerRow
    liveness: Liveness
    report: WorkerReport


def workers(journal: Operations) -> list[WorkerSeen]:
    """Return the workers of the namespace that told of themselves within a day, by host."""
    return [
        WorkerSeen(row, _liveness(journal, row), WorkerReport.model_validate_json(row.document))
        for row in journal.workers()
    ]


def _liveness(journal: Operations, row: WorkerRow) -> Liveness:
    if row.ended_at is not None:
        return Liveness.ENDED
    age = time.time() - row.seen_at
    if age > _LATE and not journal.is_alive(row.owner):
        return Liveness.DEAD
    return Liveness.ALIVE if age < OLD_AFTER else Liveness.SILENT

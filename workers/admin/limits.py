"""Limits that an operator sets for a status, and what is beyond them."""

from collections.abc import Iterable, Mapping

from messages.record import record
from workers.admin.state import QueueStatus, Status, WorkerState
from workers.admin.times import span
from workers.amqp.queues import Role


@record
class Limits:
    """Limits; None and empty: none. `ready` (messages) and `age` (seconds) are by the queue's name;
    under "" those of every queue of requests. `request_age`: seconds since the oldest unfinished
    request was received.
    """

    ready: Mapping[str, int]
    age: Mapping[str, float]
    dead: int | None = None
    workers: int | None = None
    request_age: float | None = None

    def broken(self, status: Status) -> list[str]:
        """Return a line for each limit that is passed, or of which that cannot be told."""
        found = [
            line
            for queue, most in self.ready.items()
            for one in _meant(queue, status.queues)
            if (line := _too_many(one, most)) is not None
        ]
        found += [
            line
            for queue, longest in self.age.items()
            for one in _meant(queue, status.queues)
            if (line := _too_old(one, longest, status.at)) is not None
        ]
        dead = status.dead.total
        if self.dead is not None and (dead is None or dead > self.dead):
            told = dead if dead is not None else "an unknown number of"
            found.append(f"{told} dead letters, {self.dead} may be")
        alive = sum(one.state is WorkerState.ALIVE for one in status.workers)
        if self.workers is not None and alive < self.workers:
            found.append(f"{alive} workers are alive, {self.workers} must be")
        oldest = min(status.requests, key=lambda one: one.oldest_at, default=None)
        if self.request_age is not None and oldest is not None:
            age = status.at - oldest.oldest_at
            if age > self.request_age:
                found.append(
                    f"request {oldest.oldest} is {span(age)} old and not finished,"
                    f" {span(self.request_age)} it may be"
                )
        return found


def _too_many(queue: QueueStatus, most: int) -> str | None:
    ready = queue.ready
    if ready is not None and ready <= most:
        return None
    told = ready if ready is not None else "an unknown number of"
    return f"{queue.name}: {told} messages are ready, {most} may be"


def _too_old(queue: QueueStatus, longest: float, now: float) -> str | None:
    if queue.oldest_at is not None:
        age = now - queue.oldest_at
        return (
            f"{queue.name}: the oldest message is {span(age)} old, {span(longest)} it may be"
            if age > longest
            else None
        )
    if not queue.ready:
        return None
    why = queue.oldest_unknown or "nobody tells"
    return f"{queue.name}: the age of its {queue.ready} messages is not known ({why})"


def _meant(queue: str, queues: Iterable[QueueStatus]) -> list[QueueStatus]:
    if queue:
        return [one for one in queues if one.name == queue]
    return [one for one in queues if one.role in (Role.INPUT, Role.UNDELIVERED)]

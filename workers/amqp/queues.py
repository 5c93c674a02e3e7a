"""Depths of the queues of the topology, read by passive declares, which change nothing.

The broker counts ready messages alone: what a consumer holds unacknowledged is in none of these
numbers.
"""

from enum import StrEnum
from types import TracebackType

from kombu import Connection

from messages.record import record
from workers.amqp.broker import Where
from workers.amqp.names import Names
from workers.amqp.topology import Topology, connected


class Role(StrEnum):
    """The purpose of a queue of the topology."""

    INPUT = "input"
    RESULTS = "results"
    RETRY = "retry"
    UNDELIVERED = "undelivered"
    DEAD = "dead"


@record
class QueueDepth:
    """A queue of the topology as the broker counts it.

    `ready` are the messages that wait and that no consumer holds; it and `consumers` are None where
    the queue is not declared. `delay` is a retry queue's, in seconds, and None for every other.
    """

    name: str
    role: Role
    ready: int | None
    consumers: int | None
    delay: int | None = None


class QueueDepths:
    """Reads the depths of all queues again and again, on one connection that is kept. Blocks; one
    thread at a time.
    """

    def __init__(self, where: Where, names: Names, wanted: Topology) -> None:
        self._where = where
        self.namespace = names.namespace
        self._queues = [
            (queue.name, _role(queue.name, names), _delay(queue.queue_arguments))
            for queue in wanted.queues
        ]
        self._connection: Connection | None = None

    def __enter__(self) -> "QueueDepths":
        """Return itself; the connection is opened by the first `read`."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self.close()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all queues, in the topology's order."""
        return tuple(name for name, _, _ in self._queues)

    def read(self) -> tuple[QueueDepth, ...]:
        """Return the depth of each queue, in the topology's order.

        Raises `OSError` or kombu's errors (see `broker.explain`) where the broker cannot be
        reached; the next call connects again.
        """
        try:
            if self._connection is None:
                self._connection = connected(self._where)
            return tuple(_depth(self._connection, *queue) for queue in self._queues)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; `read` may be called again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()


def _depth(connection: Connection, name: str, role: Role, delay: int | None) -> QueueDepth:
    from amqp.exceptions import NotFound  # noqa: PLC0415

    # A channel each: the broker closes it where the queue is missing.
    with connection.channel() as channel:
        try:
            found = channel.queue_declare(name, passive=True)
        except NotFound:
            return QueueDepth(name, role, None, None, delay)
    return QueueDepth(name, role, found.message_count, found.consumer_count, delay)


def _role(name: str, names: Names) -> Role:
    if name in names.input_queues:
        return Role.INPUT
    others = {
        names.order_results_queue: Role.RESULTS,
        names.undelivered_queue: Role.UNDELIVERED,
        names.dead_queue: Role.DEAD,
    }
    return others.get(name, Role.RETRY)


def _delay(arguments: dict[str, str | int]) -> int | None:
    milliseconds = arguments.get("x-message-ttl")
    return int(milliseconds) // 1000 if milliseconds is not None else None

"""The names of exchanges and queues (contract 1); their first part is the namespace
(`ECS_NAMESPACE`).
"""

import re
from dataclasses import field

from messages.record import record

DEFAULT_NAMESPACE = "ecs"
#: RabbitMQ keeps names that begin with this for itself.
_BROKERS_OWN = "amq"
#: No dot: `ecs.retry` as a namespace would have queues that look like retry queues of `ecs`.
_NAMESPACE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")


def check_namespace(text: str) -> str:
    """Return a namespace unchanged. Raises `ValueError` where RabbitMQ or this worker would misread
    it.
    """
    if not _NAMESPACE.fullmatch(text) or text.lower() == _BROKERS_OWN:
        raise ValueError(
            "must be one word of letters, digits, - and _, beginning with a letter, at most 40 characters, and not amq"
        )
    return text


@record
class Names:
    """The names in one namespace. Exchange and queue of the same kind share their name."""

    namespace: str = DEFAULT_NAMESPACE
    #: Names that `reply_to` may have (`ECS_REPLY_QUEUES`), matched wholly; None: any but the
    #: worker's own.
    reply_queues: re.Pattern[str] | None = None
    commands_exchange: str = field(init=False)
    orders_exchange: str = field(init=False)
    results_exchange: str = field(init=False)
    status_exchange: str = field(init=False)
    dead_exchange: str = field(init=False)
    undelivered_exchange: str = field(init=False)
    #: The worker's alone: routes by the delay and leaves the routing key, the name of the queue of
    #: origin, as it is.
    retry_exchange: str = field(init=False)
    reads_queue: str = field(init=False)
    servers_queue: str = field(init=False)
    images_queue: str = field(init=False)
    orders_queue: str = field(init=False)
    order_results_queue: str = field(init=False)
    undelivered_queue: str = field(init=False)
    dead_queue: str = field(init=False)
    #: The queues that requests come from.
    input_queues: tuple[str, ...] = field(init=False)
    #: All queues of the worker but the retry queues.
    _own_queues: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_namespace(self.namespace)
        for kind in ("commands", "orders", "results", "status", "dead", "undelivered", "retry"):
            object.__setattr__(self, f"{kind}_exchange", f"{self.namespace}.{kind}")
        for kind in ("reads", "servers", "images", "orders", "undelivered", "dead"):
            object.__setattr__(self, f"{kind}_queue", f"{self.namespace}.{kind}")
        object.__setattr__(self, "order_results_queue", f"{self.namespace}.order-results")
        inputs = self.reads_queue, self.servers_queue, self.images_queue, self.orders_queue
        object.__setattr__(self, "input_queues", inputs)
        further = self.order_results_queue, self.undelivered_queue, self.dead_queue
        object.__setattr__(self, "_own_queues", frozenset((*self.input_queues, *further)))

    def retry_queue(self, delay: int) -> str:
        """Return the queue in which a message waits `delay` seconds."""
        return f"{self.retry_exchange}.{delay}"

    def may_reply_to(self, queue: str) -> bool:
        """Tell whether results may be put into a queue: the worker may write where its publisher
        may not.
        """
        if self.is_own_queue(queue):
            return False
        return self.reply_queues is None or self.reply_queues.fullmatch(queue) is not None

    def is_own_queue(self, queue: str) -> bool:
        """Tell whether a queue is one that the worker declares in this namespace, retry queues of any
        delay included.
        """
        return queue in self._own_queues or queue.startswith(f"{self.retry_exchange}.")

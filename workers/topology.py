"""Exchanges and queues (contract 1), as typed data, and the one function that declares them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kombu import Connection, Exchange, Queue, binding

DEFAULT_RETRY_DELAYS = (5, 30, 120, 600, 1800)
#: Header by which `ecs.retry` chooses the queue of a delay. Headers that begin with `x-` take no part in matching.
RETRY_HEADER = "ecs-retry-delay"
_SECONDS = 15


def _exchange(name: str, kind: str, **arguments: str) -> Exchange:
    return Exchange(name, type=kind, durable=True, arguments=arguments or None)


UNDELIVERED_EXCHANGE = _exchange("ecs.undelivered", "fanout")
COMMANDS_EXCHANGE = _exchange("ecs.commands", "topic", **{"alternate-exchange": UNDELIVERED_EXCHANGE.name})
ORDERS_EXCHANGE = _exchange("ecs.orders", "topic")
RESULTS_EXCHANGE = _exchange("ecs.results", "topic")
STATUS_EXCHANGE = _exchange("ecs.status", "topic")
DEAD_EXCHANGE = _exchange("ecs.dead", "topic")
#: Ours alone: routes by the delay and leaves the routing key, the name of the queue of origin, as it is.
RETRY_EXCHANGE = _exchange("ecs.retry", "headers")

SERVERS_QUEUE = "ecs.servers"
IMAGES_QUEUE = "ecs.images"
ORDERS_QUEUE = "ecs.orders"
ORDER_RESULTS_QUEUE = "ecs.order-results"
UNDELIVERED_QUEUE = "ecs.undelivered"
DEAD_QUEUE = "ecs.dead"
#: The queues that requests come from.
INPUT_QUEUES = (SERVERS_QUEUE, IMAGES_QUEUE, ORDERS_QUEUE)
OWN_PREFIX = "ecs."


class TopologyMismatch(Exception):
    """Something exists under our name with other arguments. The text is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Topology:
    """All that is declared."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]


def topology(retry_delays: Iterable[int] = DEFAULT_RETRY_DELAYS) -> Topology:
    """The topology with a retry queue for each delay in seconds."""
    return Topology(
        exchanges=(
            UNDELIVERED_EXCHANGE, COMMANDS_EXCHANGE, ORDERS_EXCHANGE, RESULTS_EXCHANGE, STATUS_EXCHANGE, DEAD_EXCHANGE,
            RETRY_EXCHANGE,
        ),
        queues=(
            _input(SERVERS_QUEUE, (COMMANDS_EXCHANGE, "server.#")),
            _input(IMAGES_QUEUE, (COMMANDS_EXCHANGE, "image.#")),
            _input(ORDERS_QUEUE, (ORDERS_EXCHANGE, "#"), (COMMANDS_EXCHANGE, "order.#")),
            _queue(ORDER_RESULTS_QUEUE, [binding(RESULTS_EXCHANGE, routing_key="order.#")]),
            _queue(UNDELIVERED_QUEUE, [binding(UNDELIVERED_EXCHANGE)]),
            _queue(DEAD_QUEUE, [binding(DEAD_EXCHANGE, routing_key="#")]),
            *(_retry(delay) for delay in sorted(set(retry_delays))),
        ),
    )  # fmt: skip


def queue_of_command(routing_key: str) -> str | None:
    """The queue that a command with this routing key comes to; None where none takes it."""
    for queue in topology().queues:
        for one in queue.bindings:
            if one.exchange is COMMANDS_EXCHANGE and f"{routing_key}.".startswith(one.routing_key.removesuffix("#")):
                return str(queue.name)
    return None


def retry_queue_name(delay: int) -> str:
    """The queue in which a message waits so many seconds."""
    return f"ecs.retry.{delay}"


def _queue(name: str, bindings: list[binding], arguments: Mapping[str, str | int] | None = None) -> Queue:
    return Queue(name, bindings=bindings, durable=True, queue_arguments={"x-queue-type": "quorum", **(arguments or {})})


def _input(name: str, *bound: tuple[Exchange, str]) -> Queue:
    bindings = [binding(exchange, routing_key=key) for exchange, key in bound]
    return _queue(name, bindings, {"x-dead-letter-exchange": UNDELIVERED_EXCHANGE.name})


def _retry(delay: int) -> Queue:
    """Dead-letters to the default exchange by the routing key that it kept, the queue of origin.

    At-least-once, or a message would be lost between the two queues; that needs `reject-publish`.
    """
    return _queue(
        retry_queue_name(delay),
        [binding(RETRY_EXCHANGE, arguments={"x-match": "all", RETRY_HEADER: str(delay)})],
        {
            "x-message-ttl": delay * 1000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )


def declare(url: str, wanted: Topology) -> None:
    """Declare everything; what is there already stays. Blocks.

    Raises `TopologyMismatch`, or `OSError` or kombu's errors where the broker cannot be reached.
    """
    from amqp.exceptions import PreconditionFailed  # noqa: PLC0415 - only here

    with _connection(url) as connection:
        try:
            with connection.channel() as channel:
                for exchange in wanted.exchanges:
                    exchange(channel).declare()
                for queue in wanted.queues:
                    queue(channel).declare()
        except PreconditionFailed as error:
            raise TopologyMismatch(_advice(str(error.reply_text))) from None


def _connection(url: str) -> Connection:
    """Does not wait for ever for an answer. The URL's options are meant for the worker's own connections."""
    limits = {"read_timeout": _SECONDS, "write_timeout": _SECONDS}
    return Connection(url.partition("?")[0], connect_timeout=_SECONDS, transport_options=limits)


def compare(url: str, retry_delays: Iterable[int]) -> tuple[str, list[str]]:
    """The broker's version, and the names of what is not declared yet. Changes nothing. Blocks.

    `TopologyMismatch` for what exists with other arguments.
    """
    from amqp.exceptions import NotFound, PreconditionFailed  # noqa: PLC0415

    missing = []
    with _connection(url) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0.1)
        version = str(connection.connection.server_properties.get("version", "unknown"))
        wanted = topology(retry_delays)
        for entity in (*wanted.exchanges, *wanted.queues):
            try:
                with connection.channel() as channel:  # the broker closes it where something is missing
                    _declare_alone(entity(channel), passive=True)
                    # It is there: only declaring it compares its arguments, and makes nothing.
                    _declare_alone(entity(channel), passive=False)
            except NotFound:
                missing.append(entity.name)
            except PreconditionFailed as error:
                raise TopologyMismatch(_advice(str(error.reply_text))) from None
    return version, missing


class NotDeclared(Exception):
    """A queue of ours is not there. The text is one line that says what to do."""


def depth(url: str, queue: str) -> tuple[int, int]:
    """How many messages wait in a queue, held by nobody, and how many consumers it has. Changes nothing. Blocks.

    `NotDeclared`, or `OSError` or kombu's errors where the broker cannot be reached.
    """
    from amqp.exceptions import NotFound  # noqa: PLC0415

    with Connection(url, connect_timeout=_SECONDS) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0.1)
        try:
            found = connection.channel().queue_declare(queue, passive=True)
        except NotFound:
            raise NotDeclared(f"there is no queue {queue}: run ecs-worker topology apply") from None
        return found.message_count, found.consumer_count


def _declare_alone(entity: Exchange | Queue, *, passive: bool) -> None:
    """Without what it is bound to."""
    if isinstance(entity, Queue):
        entity.queue_declare(passive=passive)
    else:
        entity.declare(passive=passive)


def _advice(broker_text: str) -> str:
    told = broker_text.removeprefix("PRECONDITION_FAILED - ").replace("\n", " ")
    return (
        f"the broker has another topology: {told}; empty what it names, delete it (rabbitmqctl delete_queue NAME), "
        "and run: ecs-worker topology apply"
    )


def rows(wanted: Topology) -> list[dict[str, str]]:
    """The topology as rows: kind, name, type, bindings and arguments."""
    exchanges = [
        {
            "kind": "exchange", "name": exchange.name, "type": exchange.type, "bindings": "",
            "arguments": _pairs(exchange.arguments),
        }
        for exchange in wanted.exchanges
    ]  # fmt: skip
    queues = [
        {
            "kind": "queue", "name": queue.name, "type": queue.queue_arguments["x-queue-type"],
            "bindings": ", ".join(_bound(one) for one in queue.bindings),
            "arguments": _pairs({k: v for k, v in queue.queue_arguments.items() if k != "x-queue-type"}),
        }
        for queue in wanted.queues
    ]  # fmt: skip
    return exchanges + sorted(queues, key=lambda row: row["name"])


def _bound(one: binding) -> str:
    key = one.routing_key or _pairs(one.arguments)
    return f"{one.exchange.name} {key}".strip()


def _pairs(arguments: Mapping[str, object] | None) -> str:
    return ", ".join(f"{key}={value}" for key, value in (arguments or {}).items())

"""Exchanges and queues (contract 1) as typed data, and the functions that declare and compare them."""

import time
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

from kombu import Connection, Exchange, Queue, binding

from ecs_client.address import Target, targets
from messages.commands import Operation
from messages.operations import OPERATIONS
from messages.record import record
from workers.amqp.broker import Broker, BrokerUnusable, Where, broker_at, explain
from workers.amqp.headers import RETRY_HEADER
from workers.amqp.names import Names

DEFAULT_NAMES = Names()
DEFAULT_RETRY_DELAYS = (5, 30, 120, 600, 1800)
#: Seconds for a connection, and for an answer; for a connection where another address is left.
_SECONDS, _SECONDS_OF_SEVERAL = 15, 5
#: Attempts to connect, and seconds between two, where the URL does not say.
_ATTEMPTS, _RETRY_DELAY = 2, 0.1
#: Seconds within which a node of a cluster knows of a queue that another one has declared.
_SECONDS_TO_HEAR = 2


class TopologyMismatch(Exception):
    """An exchange or a queue exists with other arguments. The text is one line that says what to
    do.
    """


@record
class RetiredBinding:
    """A binding that an earlier version made, and that would have a message delivered twice."""

    exchange: str
    queue: str
    routing_key: str


@record
class Topology:
    """All exchanges and queues that are declared, and the bindings that are removed."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    retired: tuple[RetiredBinding, ...]


def topology(
    retry_delays: Iterable[int] = DEFAULT_RETRY_DELAYS, names: Names = DEFAULT_NAMES
) -> Topology:
    """Return the topology of a namespace, with a retry queue for each delay in seconds."""
    commands = _exchange(
        names.commands_exchange, "topic", **{"alternate-exchange": names.undelivered_exchange}
    )
    orders = _exchange(names.orders_exchange, "topic")
    results = _exchange(names.results_exchange, "topic")
    dead = _exchange(names.dead_exchange, "topic")
    undelivered = _exchange(names.undelivered_exchange, "fanout")
    retry = _exchange(names.retry_exchange, "headers")
    gives_up_to = {"x-dead-letter-exchange": undelivered.name}

    def taking(queue: str) -> Queue:
        """Return a queue of commands, bound by the name of each operation that it is for."""
        keys = [key for key, taker in _queues_of_commands(names).items() if taker == queue]
        return _queue(queue, [_bound_by(commands, key) for key in sorted(keys)], gives_up_to)

    return Topology(
        # The alternate exchange before the one that names it.
        exchanges=(
            undelivered,
            commands,
            orders,
            results,
            _exchange(names.status_exchange, "topic"),
            dead,
            retry,
        ),
        queues=(
            taking(names.reads_queue),
            taking(names.servers_queue),
            taking(names.images_queue),
            _queue(names.orders_queue, [_bound_by(orders, "#")], gives_up_to),
            _queue(names.order_results_queue, [_bound_by(results, "order.#")]),
            _queue(names.undelivered_queue, [binding(undelivered)]),
            _queue(names.dead_queue, [_bound_by(dead, "#")]),
            *(_retry(names, retry, delay) for delay in sorted(set(retry_delays))),
        ),
        retired=tuple(
            RetiredBinding(commands.name, queue, f"{kind}.#")
            for kind, queue in (
                ("server", names.servers_queue),
                ("image", names.images_queue),
                ("order", names.orders_queue),
            )
        ),
    )


def queue_of_command(names: Names, routing_key: str) -> str | None:
    """Return the queue that a command with this routing key comes to; None where none takes it."""
    return _queues_of_commands(names).get(routing_key)


def _queues_of_commands(names: Names) -> dict[str, str]:
    """Return the queue of each operation of a command.

    A person waits for a read: all reads have one queue, in which no change is before them.
    """
    changes = {"server": names.servers_queue, "image": names.images_queue}
    return {
        operation.value: names.reads_queue
        if spec.changes_nothing
        else changes[operation.value.partition(".")[0]]
        for operation, spec in OPERATIONS.items()
        if isinstance(operation, Operation)
    }


def _exchange(name: str, kind: str, **arguments: str) -> Exchange:
    return Exchange(name, type=kind, durable=True, arguments=arguments or None)


def _bound_by(exchange: Exchange, key: str) -> binding:
    return binding(exchange, routing_key=key)


def _queue(
    name: str, bindings: list[binding], arguments: Mapping[str, str | int] | None = None
) -> Queue:
    return Queue(
        name,
        bindings=bindings,
        durable=True,
        queue_arguments={"x-queue-type": "quorum", **(arguments or {})},
    )


def _retry(names: Names, exchange: Exchange, delay: int) -> Queue:
    """Return a retry queue, which dead-letters to the default exchange by the routing key that it
    kept, the queue of origin.

    At-least-once, or a message would be lost between the two queues; that needs `reject-publish`.
    """
    return _queue(
        names.retry_queue(delay),
        [binding(exchange, arguments={"x-match": "all", RETRY_HEADER: str(delay)})],
        {
            "x-message-ttl": delay * 1000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )


def declare(where: Where, wanted: Topology) -> None:
    """Declare everything, then remove the retired bindings; what else is there stays. Blocks.

    ORDER: a command is to have a queue at every instant. While both its new and its retired binding
    are there, a read is delivered twice: the two results have one id, and nothing is done. A worker
    of the version before, which still runs, makes its bindings again now and then.

    Raises `TopologyMismatch`, or `OSError` or kombu's errors where the broker cannot be reached.
    """
    from amqp.exceptions import PreconditionFailed  # noqa: PLC0415 - only here

    with connected(where) as connection:
        try:
            with connection.channel() as channel:
                for exchange in wanted.exchanges:
                    exchange(channel).declare()
                for queue in wanted.queues:
                    queue(channel).declare()
                for one in wanted.retired:  # one that is not there is removed, too
                    channel.queue_unbind(one.queue, one.exchange, one.routing_key)
        except PreconditionFailed as error:
            raise TopologyMismatch(_advice(str(error.reply_text))) from None


def connected(where: Where) -> Connection:
    """Return an open connection that does not wait for ever for an answer, to the first address
    that can be used. Blocks. Raises `BrokerUnusable`, `OSError`, kombu's errors.
    """
    broker = broker_at(where)
    broker.tls_context()  # what is wrong with the files is told by their variables
    attempt = 1
    while True:
        found = broker.targets()
        errors = []
        for target in found:
            try:
                return _open(broker, target, is_last=target is found[-1])
            except BrokerUnusable:  # it is being changed
                raise
            except Exception as error:  # py-amqp raises whatever its socket and its parser do
                target.failed()
                errors.append(error)
        options = found[0].endpoint.options
        if attempt >= options.get("connection_attempts", _ATTEMPTS):
            # What somebody has to mend says more than that a node is away.
            raise next((one for one in errors if explain(one, broker).is_refused), errors[-1])
        attempt += 1
        time.sleep(options.get("retry_delay", _RETRY_DELAY))


def _open(broker: Broker, target: Target, *, is_last: bool) -> Connection:
    """Connect to one address. Heartbeats are for connections that last."""
    options = target.endpoint.options
    connection = broker.brokers.client(
        target,
        connect_timeout=options.get("socket_timeout", _SECONDS if is_last else _SECONDS_OF_SEVERAL),
        transport_options={
            "read_timeout": _SECONDS,
            "write_timeout": _SECONDS,
            **{name: options[name] for name in ("channel_max", "frame_max") if name in options},
        },
    )
    try:
        connection.ensure_connection(max_retries=0)
        # The kernel's time-outs alone would have py-amqp wait for ever for the rest of a frame.
        connection.connection.sock.settimeout(_SECONDS)
    except BaseException:
        connection.release()
        raise
    target.worked()
    return connection


def unusable(where: Where) -> list[tuple[str, Exception]]:
    """Connect to every address of every broker at once, and return those that cannot be used, each
    with its error. Blocks. Raises `BrokerUnusable`.

    An address of the other family (IPv6, IPv4) than one of the same name that works is left out:
    a broker need not listen on both.
    """
    broker = broker_at(where)
    found: list[tuple[str, Exception]] = []
    tried: list[Target] = []
    for endpoint in broker.brokers.endpoints:
        try:
            tried += targets([endpoint])
        except OSError as error:
            found.append((endpoint.address, error))

    def attempt(target: Target) -> Exception | None:
        try:
            _open(broker, target, is_last=False).release()
        except Exception as error:  # py-amqp raises whatever its socket and its parser do
            return error
        return None

    with ThreadPoolExecutor(max_workers=16) as pool:
        outcomes = list(zip(tried, pool.map(attempt, tried), strict=True))
    working = [one for one, error in outcomes if error is None]
    for target, problem in outcomes:
        by_name = [one for one in working if one.endpoint == target.endpoint]
        of_family = [one for one in by_name if (":" in one.ip) == (":" in target.ip)]
        if problem is not None and (of_family or not by_name):
            found.append((str(target), problem))
    return found


def nodes_apart(where: Where, names: Names) -> list[str]:
    """Return the addresses whose nodes do not know what is declared at another one: after a
    partition RabbitMQ's nodes may run on, each by itself. Those that cannot be used are left out.

    Blocks for some seconds at most. Raises `BrokerUnusable` and `OSError`.
    """
    broker = broker_at(where)
    queue = f"{names.namespace}.apart.{uuid.uuid4().hex}"
    with ExitStack() as stack:
        connections: list[tuple[Target, Connection]] = []
        for target in broker.targets():
            with suppress(Exception):  # py-amqp raises whatever its socket and its parser do
                connection = _open(broker, target, is_last=False)
                connections.append((target, stack.enter_context(connection)))
        if len(connections) < 2:
            return []
        # It goes with its connection, and no other one may use it.
        connections[0][1].default_channel.queue_declare(queue, durable=False, exclusive=True)
        return [str(one) for one, other in connections[1:] if not _is_known(queue, other)]


def _is_known(queue: str, connection: Connection) -> bool:
    from amqp.exceptions import NotFound, ResourceLocked  # noqa: PLC0415 - only here

    # A node hears of another one's queue a moment later.
    limit = time.monotonic() + _SECONDS_TO_HEAR
    while True:
        try:
            with connection.channel() as channel:
                channel.queue_declare(queue, passive=True)
        except ResourceLocked:
            return True
        except NotFound:
            if time.monotonic() > limit:
                return False
            time.sleep(0.1)


def compare(where: Where, wanted: Topology) -> tuple[str, list[str]]:
    """Return the broker's version, and the names of what is not declared yet. Changes nothing.
    Blocks.

    Bindings are not compared: AMQP has no question after one, be it missing or retired.

    Raises `TopologyMismatch` for what exists with other arguments.
    """
    from amqp.exceptions import NotFound, PreconditionFailed  # noqa: PLC0415

    missing = []
    with connected(where) as connection:
        version = str(connection.connection.server_properties.get("version", "unknown"))
        for entity in (*wanted.exchanges, *wanted.queues):
            try:
                with (
                    connection.channel() as channel
                ):  # the broker closes it where something is missing
                    _declare_alone(entity(channel), passive=True)
                    # It is there: only declaring it compares its arguments, and makes nothing.
                    _declare_alone(entity(channel), passive=False)
            except NotFound:
                missing.append(entity.name)
            except PreconditionFailed as error:
                raise TopologyMismatch(_advice(str(error.reply_text))) from None
    return version, missing


class NotDeclared(Exception):
    """A queue of the worker is not there. The text is one line that says what to do."""


def depth(where: Where, queue: str) -> tuple[int, int]:
    """Return how many messages wait in a queue, held by nobody, and how many consumers it has.
    Changes nothing. Blocks.

    Raises `NotDeclared`, or `OSError` or kombu's errors where the broker cannot be reached.
    """
    from amqp.exceptions import NotFound  # noqa: PLC0415

    with connected(where) as connection:
        try:
            found = connection.channel().queue_declare(queue, passive=True)
        except NotFound:
            raise NotDeclared(f"there is no queue {queue}: run ecs-worker topology apply") from None
        return found.message_count, found.consumer_count


def _declare_alone(entity: Exchange | Queue, *, passive: bool) -> None:
    """Declare an exchange or a queue without its bindings."""
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
    """Return the topology as rows: kind, name, type, bindings and arguments; and a row of the kind
    `retired` for each queue that loses a binding.
    """
    exchanges = [
        {
            "kind": "exchange",
            "name": exchange.name,
            "type": exchange.type,
            "bindings": "",
            "arguments": _pairs(exchange.arguments),
        }
        for exchange in wanted.exchanges
    ]
    queues = [
        {
            "kind": "queue",
            "name": queue.name,
            "type": queue.queue_arguments["x-queue-type"],
            "bindings": ", ".join(sorted(map(_bound, queue.bindings))),
            "arguments": _pairs(
                {k: v for k, v in queue.queue_arguments.items() if k != "x-queue-type"}
            ),
        }
        for queue in wanted.queues
    ]
    retired = [
        {
            "kind": "retired",
            "name": one.queue,
            "type": "binding",
            "bindings": f"{one.exchange} {one.routing_key}",
            "arguments": "",
        }
        for one in wanted.retired
    ]
    return exchanges + sorted(queues, key=lambda row: row["name"]) + retired


def _bound(one: binding) -> str:
    key = one.routing_key or _pairs(one.arguments)
    return f"{one.exchange.name} {key}".strip()


def _pairs(arguments: Mapping[str, object] | None) -> str:
    return ", ".join(f"{key}={value}" for key, value in (arguments or {}).items())

"""The delivery limit of RabbitMQ 4: whether a policy lifts it from the worker's queues.

AMQP shows no policies. So a queue of the broker's default, whose name the recommended policy's
pattern matches, is declared for a moment, and one message in it is given back more often than the
limit allows.
"""

import time
import uuid
from typing import Any

from kombu.exceptions import OperationalError

from workers.amqp.broker import Where, broker_at
from workers.amqp.names import Names
from workers.amqp.topology import connected

#: The first version with a limit of its own. Before it there is none, and 3.10 refuses a policy with -1.
_SINCE = 4
#: RabbitMQ's own limit, and seconds for a message that was given back to be there again.
_LIMIT, _PATIENCE = 20, 2.0
#: Milliseconds after which the broker deletes the queue by itself, should this process die.
_EXPIRES = 60_000
#: Errors after which it is worth looking again: the broker is away.
UNREACHABLE = (OSError, OperationalError)


def policy_command(where: Where, names: Names) -> str:
    """Return the command that lifts the limit from all queues of a namespace."""
    vhost = broker_at(where).brokers.endpoints[0].virtual_host
    return (
        f"rabbitmqctl set_policy --vhost {vhost} --apply-to queues {names.namespace}-delivery-limit"
        f" '^{names.namespace}\\.' '{{\"delivery-limit\": -1}}'"
    )


def has_delivery_limit(where: Where, names: Names) -> bool:
    """Tell whether the broker gives up on what was given back 20 times. Blocks for up to some
    seconds.

    Always False before RabbitMQ 4. Raises `OSError` or kombu's errors where the broker cannot be
    reached, or the worker may not declare the queue.
    """
    queue = f"{names.namespace}.delivery-limit.{uuid.uuid4().hex}"
    with connected(where) as connection:
        version = str(connection.connection.server_properties.get("version", ""))
        major = version.partition(".")[0]
        if not major.isdigit() or int(major) < _SINCE:
            return False
        with connection.channel() as channel:
            arguments = {"x-queue-type": "quorum", "x-expires": _EXPIRES}
            channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
            try:
                connection.Producer(channel).publish(b"", exchange="", routing_key=queue)
                return any(not _give_back(channel, queue) for _ in range(_LIMIT + 2))
            finally:
                channel.queue_delete(queue)


def _give_back(channel: Any, queue: str) -> bool:
    """Take the message and give it back; False where it does not come."""
    limit = time.monotonic() + _PATIENCE
    while (message := channel.basic_get(queue)) is None:
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    channel.basic_reject(message.delivery_tag, requeue=True)
    return True

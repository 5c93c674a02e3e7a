"""The names of exchanges and queues in the default namespace, in which nearly all tests work."""

from workers.amqp.names import Names
from workers.amqp.topology import queue_of_command

NAMES = Names()
READS_QUEUE, SERVERS_QUEUE = NAMES.reads_queue, NAMES.servers_queue
IMAGES_QUEUE, ORDERS_QUEUE = NAMES.images_queue, NAMES.orders_queue
UNDELIVERED_QUEUE, DEAD_QUEUE = NAMES.undelivered_queue, NAMES.dead_queue
INPUT_QUEUES = NAMES.input_queues


def queue_for(exchange: str, routing_key: str) -> str:
    """The queue into which the broker puts what is published so."""
    if exchange == NAMES.orders_exchange:
        return ORDERS_QUEUE
    if exchange == NAMES.commands_exchange:
        return queue_of_command(NAMES, routing_key) or UNDELIVERED_QUEUE
    return routing_key

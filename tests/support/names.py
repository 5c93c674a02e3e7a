"""The names of exchanges and queues in the default namespace, in which nearly all tests work."""

from workers.amqp.names import Names

NAMES = Names()
SERVERS_QUEUE, IMAGES_QUEUE, ORDERS_QUEUE = (
    NAMES.servers_queue,
    NAMES.images_queue,
    NAMES.orders_queue,
)
UNDELIVERED_QUEUE, DEAD_QUEUE = NAMES.undelivered_queue, NAMES.dead_queue
INPUT_QUEUES = NAMES.input_queues

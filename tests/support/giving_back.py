"""A client that gives messages back, as workers that die do; and the limit that brokers have for it."""

import json

from kombu import Connection

from sandbox.broker import PrivateBroker
from sandbox.cluster import Cluster

#: RabbitMQ 4's own; a policy sets it on earlier versions.
LIMIT = 20


def limit_deliveries(
    broker: PrivateBroker | Cluster, url: str, queues: str = r"^ecs\.", **more: str | int
) -> None:
    """Have the broker give up on what was given back 20 times, as RabbitMQ 4 does by itself;
    `more` stands in the same policy.
    """
    limit = ("limit", queues, json.dumps({"delivery-limit": LIMIT, **more}))
    broker.rabbitmqctl(
        "set_policy", "--vhost", url.rpartition("/")[2], "--apply-to", "queues", *limit
    )


def give_back(url: str, queue: str, times: int) -> int:
    """Take all messages of a queue and give them back, so many times; return how many there were
    the last time.
    """
    taken = 0
    with Connection(url) as connection:
        for _ in range(times):
            with connection.channel() as channel:
                tags = []
                while (message := channel.basic_get(queue)) is not None:
                    tags.append(message.delivery_tag)
                for tag in tags:
                    channel.basic_reject(tag, requeue=True)
                taken = len(tags)
    return taken
